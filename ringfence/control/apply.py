"""What applying documents would change, decided without doing it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from ringfence.inventory.snapshot import Snapshot
from ringfence.model.errors import InputError
from ringfence.model.ids import Version, WorkspaceName
from ringfence.model.policy import Workspace
from ringfence.model.scope import Scope, ScopeTree
from ringfence.policy.document import difference
from ringfence.policy.order import Enforced as EnforcedVersion
from ringfence.policy.order import PolicySet

Document = Scope | Workspace


class ChangeKind(StrEnum):
    """What happens to one document."""

    CREATED = "created"
    CHANGED = "changed"
    UNCHANGED = "unchanged"


@dataclass(frozen=True, slots=True)
class DocumentChange:
    """One document and its lines of difference; `version` is that of a workspace afterwards."""

    document: Document
    change: ChangeKind
    diff: tuple[str, ...]
    version: Version | None

    @property
    def kind(self) -> str:
        """The document's kind."""
        return type(self.document).__name__


def decide(
    tree: ScopeTree,
    held: Mapping[WorkspaceName, EnforcedVersion],
    documents: Iterable[Document],
) -> list[DocumentChange]:
    """The change that each document makes; raises InputError where the outcome is unsound.

    `held` are all workspaces with their latest versions.
    """
    documents = list(documents)
    _refuse_doubles(documents)
    given = {one.name: one for one in documents if isinstance(one, Scope)}
    scopes = {scope.name: scope for scope in tree.preorder()}
    workspaces = {
        **{name: workspace for name, (workspace, _) in held.items()},
        **{one.name: one for one in documents if isinstance(one, Workspace)},
    }
    _check(ScopeTree({**scopes, **given}.values()), workspaces.values())
    changes = []
    for document in documents:
        if isinstance(document, Scope):
            changes.append(_change(scopes.get(document.name), document, None))
        else:
            old, version = held.get(document.name, (None, Version(0)))
            changes.append(_change(old, document, version))
    return changes


def _change(old: Document | None, new: Document, version: Version | None) -> DocumentChange:
    if old == new:
        return DocumentChange(new, ChangeKind.UNCHANGED, (), version)
    kind = ChangeKind.CREATED if old is None else ChangeKind.CHANGED
    after = Version(version + 1) if version is not None else None
    return DocumentChange(new, kind, tuple(difference(old, new)), after)


def _refuse_doubles(documents: Sequence[Document]) -> None:
    seen = set()
    for document in documents:
        named = type(document).__name__, document.name
        if named in seen:
            raise InputError(f"{named[0]} {named[1]!r} is given twice")
        seen.add(named)


def _check(tree: ScopeTree, workspaces: Iterable[Workspace]) -> None:
    """Every name that a workspace uses must mean something in the tree."""
    nothing = Snapshot([])
    primary: dict[str, WorkspaceName] = {}
    for workspace in workspaces:
        if workspace.scope not in tree:
            raise InputError(
                f"workspace {workspace.name!r} is bound to scope {workspace.scope!r}, which is none"
            )
        try:
            PolicySet(nothing, tree, [(workspace, Version(0))])
        except InputError as error:
            raise InputError(f"workspace {workspace.name!r}: {error}") from error
        if workspace.primary:
            other = primary.setdefault(workspace.scope, workspace.name)
            if other != workspace.name:
                raise InputError(
                    f"scope {workspace.scope!r} has two primary workspaces, {other!r} and "
                    f"{workspace.name!r}: make one of them `primary: false`"
                )
