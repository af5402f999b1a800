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
from ringfence.cli.recorded import (
    documents_of,
    of_files,
    recorded_flows,
    recorded_history,
    recorded_inventory,
)
from ringfence.control.analysis import Judged, judge
from ringfence.control.judged import JudgedBy
from ringfence.flows.recorded import dispositions
from ringfence.model.errors import InputError, RingfenceError
from ringfence.model.flow import Category
from ringfence.model.ids import Version, WorkspaceName
from ringfence.model.policy import Workspace
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
    history = recorded_history(documents, held.timeline, seen)
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
    raise RingfenceError(f"there is no workspace {wanted!r}: {where} has {named}")


def _logged(judged: Judged) -> list[dict[str, Any]]:
    return [
        {"decision": told_decision(decision), "connections": count}
        for decision, count in judged.logged.counts(judged.in_view).items()
    ]
