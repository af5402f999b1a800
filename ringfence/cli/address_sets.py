"""`ringfence address-sets`: what lists of addresses hold; `get address-sets` lists the lists."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from ringfence.cli.client import ApiError, connect, segment
from ringfence.cli.files import unreadable
from ringfence.cli.output import Column, Format, OutputOption, emit, tell
from ringfence.model.errors import InputError
from ringfence.model.words import counted

app = typer.Typer(no_args_is_help=True, add_completion=False)

NameArgument = Annotated[str, typer.Argument(help="An address set.")]


@app.command("show")
def show(name: NameArgument, output: OutputOption = Format.TABLE) -> None:
    """Print what a set holds: addresses, CIDR blocks and ranges, in order.

    Example: ringfence address-sets show bad-guys
    """
    addresses = connect().get(f"/address-sets/{segment(name)}")["addresses"]
    column = Column("ADDRESS", lambda row: row["address"])
    emit([{"address": one} for one in addresses], [column], output, "it holds nothing yet")


@app.command("upload")
def upload(
    name: NameArgument,
    file: Annotated[Path, typer.Argument(help="A list, one address a line, or JSON; - for stdin.")],
) -> None:
    """Have a set that is `uploaded: true` hold the addresses of a file, and no others.

    Each line has an address, a CIDR block or a range FIRST-LAST; what follows # or ; is a comment.
    A JSON list of such texts will do as well. A file with an error is refused as a whole.

    Example: ringfence address-sets upload partners partners.txt
    """
    from ringfence.model.address_set import read_list  # noqa: PLC0415

    text = _read(file)
    try:
        read_list(text)
    except InputError as error:  # no mistake in the command
        raise ApiError(f"{file}: {error}; nothing was changed") from error
    answer = connect().post(f"/address-sets/{segment(name)}/upload", {"text": text})
    tell(f"{name} holds {counted(answer['ranges'], 'range')}")


@app.command("refresh")
def refresh(name: NameArgument) -> None:
    """Fetch a set's list now. Exit code 1 if it cannot be had: the set then holds what it held.

    Example: ringfence address-sets refresh bad-guys
    """
    answer = connect().post(f"/address-sets/{segment(name)}/refresh", {})
    if answer["problem"]:
        raise ApiError(f"{name} is not refreshed: {answer['problem']}")
    tell(f"{name} holds {counted(answer['ranges'], 'range')}")


def _read(file: Path) -> str:
    try:
        return sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise unreadable(file, error) from error
