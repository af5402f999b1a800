"""`ringfence discover`: the policies that the observed flows need, as a file to review."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ringfence.cli.client import connect
from ringfence.cli.flows.options import SinceOption, UntilOption
from ringfence.cli.output import emit_text, tell
from ringfence.model.errors import InputError
from ringfence.model.words import counted

if TYPE_CHECKING:
    from ringfence.model.scope import ScopeTree

app = typer.Typer(add_completion=False)

ALL = "all"
"""The scope of everything in an inventory, where no file tells of scopes."""


class Boundary(StrEnum):
    """How finely policies tell ends apart."""

    FINE = "fine"


class DiscoverFormat(StrEnum):
    """The forms of -o."""

    YAML = "yaml"


@app.command()
def discover(  # noqa: PLR0913, PLR0917 - one parameter for each option
    scope: Annotated[
        str | None, typer.Argument(help="The scope to propose a workspace for.")
    ] = None,
    since: SinceOption = "1h",
    until: UntilOption = None,
    inventory: Annotated[
        Path | None, typer.Option(help="Of a file by `ringfence inventory export`; no server.")
    ] = None,
    flows: Annotated[
        Path | None, typer.Option(help="Of a file by `ringfence flows export`; no server.")
    ] = None,
    scopes: Annotated[
        list[Path] | None,
        typer.Option("--scopes", "--policies", help="With files: YAML with the scopes."),
    ] = None,
    scope_name: Annotated[
        str | None,
        typer.Option("--scope", help="With files: the scope; left out, the one above all."),
    ] = None,
    boundary: Annotated[  # noqa: ARG001 -- there is one
        Boundary, typer.Option(help="How finely policies tell ends apart.")
    ] = Boundary.FINE,
    output: Annotated[  # noqa: ARG001 -- there is one
        DiscoverFormat, typer.Option("--output", "-o", help="How to print the proposal.")
    ] = DiscoverFormat.YAML,
) -> None:
    """Print a proposed workspace as YAML on stdout; what was taken for noise goes to stderr.

    With --inventory and --flows no server is asked: all that the flows' file tells of is taken,
    whatever --since. Without --scopes the scope is `all`, everything in the inventory.

    Exit code 2 if no connection was observed that needs a policy: there is nothing to go by.

    Examples: ringfence discover sock-shop --since 1h > sock-shop.yaml

    ringfence discover --inventory inventory.yaml --flows flows.parquet > all.yaml
    """
    if inventory and flows:
        if scope and scope_name:
            raise InputError("the scope is named twice: leave --scope out")
        named, answer = _of_files(inventory, flows, scopes or [], scope or scope_name)
    elif inventory or flows or scopes or scope_name:
        raise InputError("--inventory and --flows go together, --scopes and --scope with both")
    elif scope is None:
        raise InputError("name a scope, or --inventory and --flows to ask no server")
    else:
        asked = {"scope": scope, "since": since, **({"until": until} if until else {})}
        named, answer = scope, connect().post("/discover", asked)
    emit_text(answer["documents"])
    summary = answer["summary"]
    policies = counted(summary["policies"], "policy", "policies")
    tell(f"{policies} from {counted(summary['edges'], 'edge')}")
    for noise in summary["noise"]:
        said = f"{noise['reason']} ({noise['count']}), such as {noise['example']}"
        tell(f"not proposed: {said}")
    if not summary["edges"]:
        tell(
            "warning: no connection was observed in this time; to enforce this workspace would cut"
            f" everything off in {named}"
        )
        raise typer.Exit(2)


def _of_files(
    inventory: Path, flows: Path, scopes: list[Path], wanted: str | None
) -> tuple[str, dict[str, Any]]:
    """The scope, and what the control plane would answer."""
    from ringfence.cli.recorded import recorded_flows, recorded_inventory  # noqa: PLC0415
    from ringfence.control.discover import discover as propose  # noqa: PLC0415
    from ringfence.model.ids import ScopeName, WorkspaceName  # noqa: PLC0415
    from ringfence.policy.document import Documents, format_documents  # noqa: PLC0415

    tree = _tree(scopes)
    scope = tree[ScopeName(wanted)].name if wanted is not None else tree.preorder()[0].name
    held = recorded_inventory(inventory)
    seen = recorded_flows(flows, held.timeline)
    found = propose(seen, held.timeline, held.last(), tree, scope, WorkspaceName(scope))
    # Scopes that stand in no file go with the workspace, which means nothing without them.
    beside = () if scopes else tree.preorder()
    summary = {
        "policies": len(found.workspace.policies),
        "edges": found.edges,
        "noise": [
            {"reason": one.reason, "count": one.count, "example": one.example}
            for one in found.noise
        ],
    }
    text = format_documents(Documents(beside, (found.workspace,)))
    return scope, {"documents": text, "summary": summary}


def _tree(files: list[Path]) -> "ScopeTree":
    from ringfence.cli.recorded import documents_of, of_files  # noqa: PLC0415
    from ringfence.model.ids import ScopeName  # noqa: PLC0415
    from ringfence.model.query import Everything  # noqa: PLC0415
    from ringfence.model.scope import Scope, ScopeTree  # noqa: PLC0415

    if not files:
        return ScopeTree([Scope(ScopeName(ALL), None, Everything())])
    documents = documents_of(files)
    if not documents.scopes:
        raise InputError(f"{', '.join(map(str, files))}: no scope is there")
    with of_files():
        return ScopeTree(documents.scopes, documents.filters)
