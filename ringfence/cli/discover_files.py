"""Discovery of files, with no server: what the control plane would answer of the same."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ringfence.cli.recorded import (
    documents_of,
    held_ends,
    in_long_rows,
    of_files,
    recorded_history,
    recorded_inventory,
    strangers,
    told_flows,
)
from ringfence.control.admitted import admitted
from ringfence.control.comparison import NOTHING, compare
from ringfence.control.discover import Discovery, Wanted, discover
from ringfence.control.discovered import answer, coverage_of, wanted_of
from ringfence.flows.connections import Records
from ringfence.inventory.timeline import Timeline
from ringfence.model.errors import InputError, RingfenceError
from ringfence.model.ids import ScopeName, WorkspaceName
from ringfence.model.keys import parse_filter
from ringfence.model.query import Everything
from ringfence.model.scope import Scope, ScopeTree
from ringfence.policy.document import Documents

ALL = "all"
"""The scope of everything in an inventory, where no file tells of scopes."""


@dataclass(frozen=True)
class DiscoveryFiles:
    """What files tell of a scope; `documents` are those of the scopes, and what stands beside."""

    scope: ScopeName
    tree: ScopeTree
    documents: Documents
    timeline: Timeline
    seen: Records

    def found(self, how: Wanted) -> Discovery:
        """A proposal; it is named as what was approved, else as the scope."""
        name = how.approved.name if how.approved else WorkspaceName(self.scope)
        return discover(self.seen, self.timeline, self.tree, self.scope, name, how)

    def notes(self, found: Discovery) -> Iterator[str]:
        """What may be wrong with the files."""
        inside = found.in_scope[found.observed.edges]
        if not found.coverage.seen and not (held_ends(self.seen) & inside).any():
            yield strangers(self.seen, f"scope {self.scope}")
        if in_long_rows(self.seen):
            yield (
                "most rows tell of more than five minutes, so that nobody knows in how many"
                " intervals an edge was seen: `ringfence flows export --every 5m` tells it"
            )


def read_files(
    inventory: Path, flows: Path, scopes: list[Path], wanted: str | None
) -> DiscoveryFiles:
    """Read all of them, for the scope `wanted` or the one above all."""
    if wanted not in {None, ALL} and not scopes:
        raise RingfenceError(
            f"there is no scope {wanted!r}: without --scopes there is only {ALL!r}, everything in "
            "the inventory"
        )
    tree, documents = _tree(scopes)
    with of_files():
        scope = tree[ScopeName(wanted)].name if wanted is not None else tree.preorder()[0].name
    held = recorded_inventory(inventory)
    seen = told_flows(flows, held)
    return DiscoveryFiles(scope, tree, documents, held.timeline, seen)


def proposal_of_files(
    inventory: Path, flows: Path, scopes: list[Path], wanted: str | None, asked: dict[str, Any]
) -> tuple[str, dict[str, Any]]:
    """The scope, and the proposal that the control plane would answer with."""
    if asked["exclude"]:
        parse_filter(asked["exclude"])  # what is wrong in it is a mistake in the command
    files = read_files(inventory, flows, scopes, wanted)
    with of_files():
        every_edge, begin = asked.pop("every_edge"), asked.pop("begin")
        how = replace(
            wanted_of(files.scope, **asked), above=files.documents.workspaces, begin=begin
        )
    found = files.found(how)
    notes = list(files.notes(found))
    approved, compared = how.approved, NOTHING
    history = recorded_history(files.documents, files.timeline, files.seen)
    with of_files():
        if approved is not None:
            told = found, files.seen, history, files.tree, found.observed.until_ns
            compared = asyncio.run(compare(approved, *told))
        found, let_pass = asyncio.run(admitted(found, files.seen, history, files.tree, how.above))
    # Scopes that stand in no file go with the workspace, which means nothing without them.
    beside = () if scopes else files.tree.preorder()
    made = answer(found, beside, compared, let_pass, every_edge=every_edge)
    made["summary"]["warnings"] += notes
    return files.scope, made


def coverage_of_files(
    inventory: Path, flows: Path, scopes: list[Path], wanted: str | None
) -> dict[str, Any]:
    """What `GET /api/v1/coverage` would answer."""
    files = read_files(inventory, flows, scopes, wanted)
    found = files.found(Wanted(above=files.documents.workspaces))
    sentences = [*found.coverage.sentences(), *files.notes(found)]
    return {**coverage_of(found), "sentences": sentences}


def _tree(files: list[Path]) -> tuple[ScopeTree, Documents]:
    """The scopes, and all that stands beside them."""
    if not files:
        return ScopeTree([Scope(ScopeName(ALL), None, Everything())]), Documents()
    documents = documents_of(files)
    if not documents.scopes:
        raise InputError(f"{', '.join(map(str, files))}: no scope is there")
    with of_files():
        return ScopeTree(documents.scopes, documents.filters), documents
