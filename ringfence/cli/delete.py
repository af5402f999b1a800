"""`ringfence delete`: take away what nothing uses any more."""

from enum import StrEnum
from typing import Annotated

import typer

from ringfence.cli.client import connect, segment
from ringfence.cli.output import tell

app = typer.Typer(add_completion=False)


class Kind(StrEnum):
    """What can be deleted."""

    SCOPE = "scope"
    FILTER = "filter"
    ADDRESS_SET = "address-set"
    WORKSPACE = "workspace"


_DOCUMENTS = {
    Kind.SCOPE: "Scope",
    Kind.FILTER: "Filter",
    Kind.ADDRESS_SET: "AddressSet",
    Kind.WORKSPACE: "Workspace",
}


@app.command()
def delete(
    kind: Annotated[Kind, typer.Argument(help="What it is.")],
    name: Annotated[str, typer.Argument(help="Its name.")],
) -> None:
    """Delete a scope, a named filter, an address set or a workspace.

    Refused while something uses it, which is named: a policy of a latest or an enforced version, a
    scope below, a rule of `requests`, the enforced set. `ringfence changes` has what it said. A
    workspace's versions are kept: made again, it goes on counting.

    Examples:
      ringfence delete filter databases
      ringfence delete workspace experiment
    """
    connect().delete(f"/documents/{_DOCUMENTS[kind]}/{segment(name)}")
    tell(f"deleted {kind} {name}")
