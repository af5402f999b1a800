"""The options that commands about flows share."""

from typing import Annotated

import typer

_TIME = "A time (RFC 3339), a date, or a duration back from now: a number and s, m, h or d."
SinceOption = Annotated[str, typer.Option(help=_TIME)]
UntilOption = Annotated[str | None, typer.Option(help=_TIME)]
LimitOption = Annotated[int, typer.Option(min=1, max=10_000, help="At most this many.")]
FilterOption = Annotated[
    str | None,
    typer.Option(
        "--filter",
        "-f",
        help="Such as 'consumer.name = \"carts\" and port = 80'; see docs/filters.md.",
    ),
]
