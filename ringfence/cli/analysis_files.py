"""Analysis of files, with no server: what their policies would have done to their flows."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ringfence.cli.analysis_rows import RecordTexts, told_decision
from ringfence.cli.recorded import documents_of, of_files, recorded_flows, recorded_inventory
from ringfence.control.analysis import History, Judged, judge
from ringfence.control.judged import JudgedBy
from ringfence.flows.connections import Records
from ringfence.flows.recorded import dispositions
from ringfence.inventory.contents import Content, Contents, pack
from ringfence.inventory.resolutions import Resolution, Resolutions
from ringfence.inventory.timeline import FOREVER
from ringfence.model.address import Address
from ringfence.model.address_set import Written
from ringfence.model.errors import InputError
from ringfence.model.flow import Category
from ringfence.model.ids import Version, WorkspaceName
from ringfence.model.policy import FqdnEnd, Workspace
from ringfence.model.ranges import of_families
from ringfence.model.scope import ScopeTree
from ringfence.policy.document import Documents

VERSION = Version(1)
"""Of workspaces in files, which have none."""


@dataclass(frozen=True)
class FileAnalysis:
    """What the API would answer, in parts: the records may be many."""

    workspace: WorkspaceName
    counts: dict[Category, int]
    logged: list[dict[str, Any]]
    _rows: dict[Category, NDArray[np.intp]]
    _texts: RecordTexts

    def records(self, only: Category | None, limit: int | None) -> Iterator[str]:
        """The records of each category, the newest first, at most `limit` of each.

        They come many at a time, with commas between.
        """
        for category, rows in self._rows.items():
            if only in (None, category):
                yield from self._texts.of(category, rows[:limit])

    def document(self, only: Category | None, limit: int | None) -> Iterator[str]:
        """All of the answer in JSON, a line for each record."""
        head = {
            "workspace": self.workspace,
            "version": VERSION,
            "counts": self.counts,
            "logged": self.logged,
        }
        yield f'{json.dumps(head)[:-1]}, "records": ['
        before = "\n"
        for part in self.records(only, limit):
            yield before
            yield part
            before = ",\n"
        yield "\n]}\n"


def analyze_files(
    policies: list[Path], inventory: Path, flows: Path, wanted: str | None
) -> FileAnalysis:
    """Judge the flows by all primary workspaces of the policies' files.

    In view is what `wanted` governs, which may be none of the primary ones; None where the files
    have only one workspace.
    """
    documents = documents_of(policies)
    workspace = _chosen(documents, wanted, policies)
    held = recorded_inventory(inventory)
    seen = recorded_flows(flows, held.timeline)
    with of_files():
        tree = ScopeTree(documents.scopes, documents.filters)
    judged_by = JudgedBy(
        tree,
        tuple((one, VERSION) for one in documents.workspaces if one.primary or one is workspace),
    )
    history = History(held.timeline, _names(documents, seen), _contents(documents))
    judged = asyncio.run(judge(seen, history, held.until_ns, judged_by, workspace.name))
    fate = dispositions(seen)
    newest = np.argsort(-seen.column("last_ns"), kind="stable")
    rows = {
        category: newest[(mask & judged.in_view)[newest]]
        for category, mask in fate.categories(judged.allowed).items()
    }
    return FileAnalysis(
        workspace.name,
        {category: len(of) for category, of in rows.items()},
        _logged(judged),
        rows,
        RecordTexts(seen, judged, fate.first(), held.timeline),
    )


def _chosen(documents: Documents, wanted: str | None, files: list[Path]) -> Workspace:
    named = ", ".join(one.name for one in documents.workspaces) or "none"
    where = ", ".join(map(str, files))
    if wanted is None:
        if len(documents.workspaces) != 1:
            raise InputError(f"choose one with --workspace: {where} has workspaces {named}")
        return documents.workspaces[0]
    for one in documents.workspaces:
        if one.name == wanted:
            return one
    raise InputError(f"there is no workspace {wanted!r}: {where} has {named}")


def _names(documents: Documents, seen: Records) -> Resolutions:
    """The names that the flows tell of addresses, as if they had them all the time."""
    ends = (
        end
        for workspace in documents.workspaces
        for policy in workspace.policies
        for end in (policy.consumer, policy.provider)
    )
    if not any(isinstance(end, FqdnEnd) for end in ends):
        return Resolutions()
    told = seen.table.select(["provider_dns_name", "provider"]).group_by(
        ["provider_dns_name", "provider"]
    )
    pairs = [row for row in told.aggregate([]).to_pylist() if row["provider_dns_name"]]
    names = Resolutions(len(pairs) + 1, len(pairs) + 1)
    for row in pairs:
        name = row["provider_dns_name"].lower().rstrip(".")
        names.learn(Resolution(name, Address(row["provider"]), 0, FOREVER, ""))
    return names


def _contents(documents: Documents) -> Contents:
    """What address sets hold as far as they say it themselves."""
    contents = Contents()
    for one in documents.address_sets:
        contents.begin(one.name)
        if isinstance(one.source, Written):
            contents.hold(Content(one.name, 0, pack(of_families(one.source.ranges))))
    return contents


def _logged(judged: Judged) -> list[dict[str, Any]]:
    return [
        {"decision": told_decision(decision), "connections": count}
        for decision, count in judged.logged.counts(judged.in_view).items()
    ]
