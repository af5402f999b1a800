"""`ringfence schema`: what editors need to complete and check documents."""

import typer

from ringfence.cli.output import Format, emit_data

app = typer.Typer(add_completion=False)


@app.command()
def schema() -> None:
    """Print the JSON Schema of scopes and workspaces. Needs no server.

    For yaml-language-server, begin a file with: # yaml-language-server: $schema=ringfence.json

    Example: ringfence schema > ringfence.json
    """
    from ringfence.policy.schema import document_schema  # noqa: PLC0415

    emit_data(document_schema(), Format.JSON)
