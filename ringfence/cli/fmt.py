"""`ringfence fmt`: YAML files in their one canonical form."""

from pathlib import Path
from typing import Annotated

import typer

from ringfence.cli.documents import STDIN, read_documents
from ringfence.cli.files import rewrite
from ringfence.cli.output import emit_text, say
from ringfence.model.errors import RingfenceError

app = typer.Typer(add_completion=False)


@app.command()
def fmt(
    files: Annotated[list[Path], typer.Argument(help="Files, folders, or - for stdin to stdout.")],
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit code 2 if a file would change.")
    ] = False,
) -> None:
    """Rewrite scopes and workspaces in canonical form, and print the names of files that change.

    Scopes stand before workspaces, parents before children; filters and fields are written in one
    way, defaults are left out. Comments stay with the field that they stand beside or above. Needs
    no server.

    Example: ringfence fmt --check policies/
    """
    from ringfence.policy.comments import format_text  # noqa: PLC0415
    from ringfence.policy.errors import DocumentError  # noqa: PLC0415

    changed = False
    # All are read before the first is written, so that a refusal leaves every file as it is.
    formatted = []
    for name, text in read_documents(files):
        try:
            formatted.append((name, text, format_text(text, name)))
        except DocumentError as error:
            raise RingfenceError(str(error)) from error
    for name, text, canonical in formatted:
        if name == STDIN and not check:
            emit_text(canonical)
        elif canonical != text:
            changed = True
            say(name)
            if not check:
                rewrite(Path(name), canonical)
    raise typer.Exit(2 if check and changed else 0)
