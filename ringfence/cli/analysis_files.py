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
    distinct_flows,
    documents_of,
    of_files,
    recorded_history,
    recorded_inventory,
    told_flows,
)
from ringfence.control.analysis import History, Judged, judge
from ringfence.control.judged import JudgedBy
from ringfence.flows.connections import Records
from ringfence.flows.merged import merged
from ringfence.flows.recorded import codes_of, dispositions
from ringfence.inventory.holders import octets_of
from ringfence.inventory.timeline import Timeline
from ringfence.model.errors import InputError, RingfenceError
from ringfence.model.flow import Category
from ringfence.model.ids import RevisionId, Version, WorkspaceName
from ringfence.model.policy import Workspace
from ringfence.model.scope import ScopeTree
from ringfence.policy.document import Documents
from ringfence.policy.moment import expiries

VERSION = Version(1)
"""Of workspaces in files, which have none."""


@dataclass(frozen=True)
class FileAnalysis:
    """What the API would answer, in parts: the records may be many."""

    workspace: WorkspaceName
    counts: dict[Category, int]
    logged: list[dict[str, Any]]
    _rows: dict[Category, tuple[NDArray[np.intp], NDArray[np.int64]]]
    _texts: RecordTexts

    def records(self, only: Category | None, limit: int | None) -> Iterator[memoryview]:
        """The records of each category, the newest first, at most `limit` of each.

        They come many at a time, with commas between.
        """
        for category, (rows, conversations) in self._rows.items():
            if only in (None, category):
                yield from self._texts.of(category, rows[:limit], conversations)

    def document(self, only: Category | None, limit: int | None) -> Iterator[bytes | memoryview]:
        """All of the answer in JSON and ASCII, a line for each record."""
        head = {
            "workspace": self.workspace,
            "version": VERSION,
            "counts": self.counts,
            "listed": {category: len(rows) for category, (rows, _) in self._rows.items()},
            "logged": self.logged,
            "notes": [],
        }
        yield f'{json.dumps(head)[:-1]}, "records": ['.encode("ascii")
        before = b"\n"
        for part in self.records(only, limit):
            yield before
            yield part
            before = b",\n"
        yield b"\n]}\n"


@dataclass(frozen=True)
class FilesAsked:
    """What files tell, to be judged by all primary workspaces and by `workspace` of them."""

    workspace: Workspace
    judged_by: JudgedBy
    seen: Records
    history: History
    until_ns: int


def read_files(
    policies: list[Path],
    inventory: Path,
    flows: Path,
    wanted: str | None,
    *,
    each_slot: bool = False,
) -> FilesAsked:
    """Read all of them. Asked about is `wanted`; None where the files have only one workspace.

    With `each_slot` rows stay apart that differ in their time alone, as discovery needs them.
    """
    documents = documents_of(policies)
    workspace = _chosen(documents, wanted, policies)
    held = recorded_inventory(inventory)
    with of_files():
        tree = ScopeTree(documents.scopes, documents.filters)
    judged_by = JudgedBy(
        tree,
        tuple((one, VERSION) for one in documents.workspaces if one.primary or one is workspace),
    )
    seen = (
        told_flows(flows, held)
        if each_slot
        else distinct_flows(flows, held, expiries(judged_by.workspaces))
    )
    history = recorded_history(documents, held.timeline, seen)
    return FilesAsked(workspace, judged_by, seen, history, held.until_ns)


def analyze_files(asked: FilesAsked) -> FileAnalysis:
    """Judge the flows; in view is what the workspace governs."""
    timeline, name = asked.history.timeline, asked.workspace.name
    found = judge(asked.seen, asked.history, asked.until_ns, asked.judged_by, name)
    seen, judged = _told_once(asked.seen, asyncio.run(found), timeline)
    fate = dispositions(seen)
    newest = np.argsort(-seen.column("last_ns"), kind="stable")
    rows = {
        category: (newest[(counts * judged.in_view)[newest] > 0], counts)
        for category, counts in fate.categories(judged.allowed).items()
    }
    return FileAnalysis(
        name,
        {category: int(counts[of].sum()) for category, (of, counts) in rows.items()},
        _logged(judged),
        rows,
        RecordTexts(seen, judged, fate.first(), timeline),
    )


def _told_once(seen: Records, judged: Judged, timeline: Timeline) -> tuple[Records, Judged]:
    """Conversations of the same ends that the same rules decided as one, whatever else changed."""
    fate = dispositions(seen)
    apart = octets_of(
        *(seen.column(end) for end in ("first_consumer", "provider", "dialled")),
        *(_items(seen, end, timeline) for end in ("first_consumer", "provider")),
        *map(seen.column, ("protocol", "provider_port", "dialled_port")),
        *(fate.passed, fate.dropped, fate.unanswered, codes_of(seen, "disposition")),
        *judged.deciding.numbers.values(),
        *(judged.logged.numbers, judged.allowed, judged.in_view),
    )
    seen, newest = merged(seen, apart)
    return seen, judged.spread(newest)


def _items(seen: Records, end: str, timeline: Timeline) -> NDArray[np.int64]:
    """Numbers of the items at an end, the same for all revisions of one."""
    revisions, which = np.unique(seen.column(f"{end}_revision"), return_inverse=True)
    numbers: dict[str, int] = {"": 0}
    items = [timeline.revision(RevisionId(one))[0].key if one else "" for one in revisions.tolist()]
    told = [numbers.setdefault(key, len(numbers)) for key in items]
    return np.array(told, dtype=np.int64)[which]


def _chosen(documents: Documents, wanted: str | None, files: list[Path]) -> Workspace:
    named = ", ".join(one.name for one in documents.workspaces) or "no workspace"
    where = ", ".join(map(str, files))
    if wanted is None:
        if not documents.workspaces:
            raise RingfenceError(f"{where}: no workspace is there; `ringfence discover` makes one")
        if len(documents.workspaces) > 1:
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
