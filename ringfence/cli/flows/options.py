"""The options that commands about flows share."""

from typing import Annotated

import typer

SinceOption = Annotated[str, typer.Option(help="A time, or a duration back from now such as 5m.")]
UntilOption = Annotated[str | None, typer.Option(help="A time or a duration back from now.")]
LimitOption = Annotated[int, typer.Option(min=1, max=10_000, help="At most this many.")]
FilterOption = Annotated[
    str | None,
    typer.Option(
        "--filter",
        "-f",
        help="Such as 'consumer.name = \"carts\" and port = 80'; see docs/filters.md.",
    ),
]
