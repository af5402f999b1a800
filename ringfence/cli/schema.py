"""`ringfence schema`: what editors need to complete and check documents."""

from enum import StrEnum
from typing import Annotated

import typer

from ringfence.cli.output import Format, emit_data

app = typer.Typer(add_completion=False)


class Subject(StrEnum):
    """What there are schemas of."""

    POLICIES = "policies"
    INVENTORY = "inventory"


@app.command()
def schema(
    of: Annotated[
        Subject, typer.Argument(help="Scopes and workspaces, or an exported inventory.")
    ] = Subject.POLICIES,
) -> None:
    """Print the JSON Schema of scopes and workspaces, or of an inventory. Needs no server.

    For yaml-language-server, begin a file with: # yaml-language-server: $schema=ringfence.json

    Examples: ringfence schema > ringfence.json

    ringfence schema inventory > inventory.schema.json
    """
    if of is Subject.INVENTORY:
        from ringfence.inventory.file_format import inventory_schema  # noqa: PLC0415

        emit_data(inventory_schema(), Format.JSON)
        return
    from ringfence.policy.schema import document_schema  # noqa: PLC0415

    emit_data(document_schema(), Format.JSON)
