"""Lint of files, with no control plane: findings with the file and the line of their policy."""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from ringfence.inventory.contents import sets_with
from ringfence.inventory.snapshot import Snapshot
from ringfence.model.errors import InputError
from ringfence.model.ids import RevisionId, Version, WorkspaceName
from ringfence.model.scope import ScopeTree
from ringfence.model.workload import Item
from ringfence.policy.comments import Path, places
from ringfence.policy.document import Documents, parse_documents
from ringfence.policy.finding import Finding
from ringfence.policy.lint import expiring, lint, lint_sets
from ringfence.policy.moment import Moment
from ringfence.policy.order import PolicySet
from ringfence.policy.several import together
from ringfence.policy.universe import universe


@dataclass(frozen=True, slots=True)
class Place:
    """Where a policy stands; `line` counts from 1."""

    file: str
    line: int


def lint_documents(
    files: Iterable[tuple[str, str]],
    items: Iterable[Item] | None,
    workspaces: Collection[str] = (),
    *,
    now_ns: int = 0,
    within_ns: int = 0,
    note: Callable[[str], object],
) -> list[tuple[Place, Finding]]:
    """What is odd about the workspaces of files, (name, text), by place.

    Without items they are held against every inventory that there may be, and told is what any of
    them bears out. Policies are told that have expired at `now_ns`, epoch ns, or do so within a
    time of it. Raises InputError where the files are not sound, or `workspaces`, which limits what
    is judged, names none of theirs. `note` hears of workspaces that stand in two files and differ.
    """
    read: list[tuple[str, Documents]] = []
    where: dict[Path, Place] = {}
    for name, text in files:
        read.append((name, parse_documents(text, name)))
        for mark, path in places(text):
            where[path] = Place(name, mark.line + 1)
    documents = together(read, note)
    found = documents.workspaces
    names = {one.name for one in documents.workspaces}
    for wanted in workspaces:
        if wanted not in names:
            raise InputError(f"there is no workspace {wanted!r} in these files")
    about = {WorkspaceName(name) for name in workspaces} or names
    known = items is not None
    if items is None:
        documents, items = universe(documents)
    snapshot = Snapshot((RevisionId(number), one) for number, one in enumerate(items, 1))
    tree = ScopeTree(documents.scopes, documents.filters)
    moment = Moment(sets=sets_with({}, documents.address_sets))
    versions = {name: Version(1) for name in names}
    odd = [
        one
        for bound, judged in lint_sets(documents.workspaces, versions, about)
        for one in lint(
            PolicySet(snapshot, tree, bound, moment),
            [one for one in found if one.name in judged],
            known=known,
        )
    ]
    odd += expiring([one for one in found if one.name in about], now_ns, within_ns)
    positions = {
        (one.name, policy.id): at for one in found for at, policy in enumerate(one.policies)
    }
    told = [
        (where["Workspace", one.workspace, "spec", "policies", at], one)
        for one in odd
        for at in [positions[one.workspace, one.policy]]
    ]
    return sorted(told, key=lambda pair: (pair[0].file, pair[0].line))
