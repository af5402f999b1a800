"""The options that commands about flows share."""

from pathlib import Path
from typing import Annotated

import typer

from ringfence.model.errors import InputError

_TIME = "A time (RFC 3339), a date, or a duration back from now: a number and s, m, h or d."
SinceOption = Annotated[str, typer.Option(help=_TIME)]
UntilOption = Annotated[str | None, typer.Option(help=_TIME)]
InventoryFileOption = Annotated[
    Path | None, typer.Option(help="Of a file by `ringfence inventory export`; no server.")
]
FlowsFileOption = Annotated[
    Path | None, typer.Option(help="Of a file by `ringfence flows export`; no server.")
]


def refuse_window(context: typer.Context) -> None:
    """Beside files --since and --until mean nothing: all of them is taken; raises InputError."""
    for name in ("since", "until"):
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise InputError(f"--{name}: of files all is taken; `ringfence flows export` has it")


LimitOption = Annotated[int, typer.Option(min=1, max=10_000, help="At most this many.")]
FilterOption = Annotated[
    str | None,
    typer.Option(
        "--filter",
        "-f",
        help="Such as 'consumer.name = \"carts\" and port = 80'; see docs/filters.md.",
    ),
]
