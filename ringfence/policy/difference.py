"""What changes from one set of documents to another, part by part."""

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from ringfence.model.policy import Workspace
from ringfence.policy.document import (
    Documents,
    address_set_spec,
    filter_spec,
    scope_spec,
    workspace_spec,
)

Spec = Mapping[str, Any]
_POLICY = "policy "


class DocumentKind(StrEnum):
    """The kinds of documents."""

    SCOPE = "Scope"
    FILTER = "Filter"
    ADDRESS_SET = "AddressSet"
    WORKSPACE = "Workspace"


class ChangeKind(StrEnum):
    """What became of a document."""

    CREATED = "created"
    CHANGED = "changed"
    UNCHANGED = "unchanged"
    DELETED = "deleted"


class PartChange(StrEnum):
    """What became of a part."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"
    MOVED = "moved"


@dataclass(frozen=True, slots=True)
class PartDifference:
    """One thing that differs: a field, a cluster, a policy, or a field of one of these.

    `part` is `scope`, `catchAll`, `cluster NAME`, `policy ID` and so on; `field` is empty where the
    part as a whole is meant. `old` and `new` are values as documents write them, None for what is
    not written; of a policy that MOVED they are its places in the list, from 1.
    """

    part: str
    field: str
    change: PartChange
    old: Any
    new: Any

    def __str__(self) -> str:
        """One line: `+` what is new, `-` what goes, `~` what reads otherwise."""
        name = f"{self.part}, {self.field}" if self.field else self.part
        match self.change:
            case PartChange.ADDED:
                return f"+ {name}: {_write(self.new)}"
            case PartChange.REMOVED:
                return f"- {name}: {_write(self.old)}"
            case PartChange.CHANGED:
                return f"~ {name}: {_write(self.old)} → {_write(self.new)}"
            case PartChange.MOVED:
                return f"~ {name}: moved from place {self.old} to {self.new}"


@dataclass(frozen=True, slots=True)
class Change:
    """What became of one document, and each part of it that differs."""

    kind: DocumentKind
    name: str
    change: ChangeKind
    parts: tuple[PartDifference, ...]

    @property
    def lines(self) -> tuple[str, ...]:
        """A line for each part that differs."""
        return tuple(map(str, self.parts))


def difference(old: Documents, new: Documents) -> list[Change]:
    """One change for each scope, then each filter, address set and workspace of either side.

    Each kind by name.

    What only `old` has counts as deleted: hand over only what is meant to be compared.
    """
    return [
        *_changes(DocumentKind.SCOPE, _scopes(old), _scopes(new)),
        *_changes(DocumentKind.FILTER, _filters(old), _filters(new)),
        *_changes(DocumentKind.ADDRESS_SET, _address_sets(old), _address_sets(new)),
        *_changes(DocumentKind.WORKSPACE, _workspaces(old), _workspaces(new)),
    ]


def _scopes(documents: Documents) -> dict[str, Spec]:
    return {scope.name: scope_spec(scope) for scope in documents.scopes}


def _filters(documents: Documents) -> dict[str, Spec]:
    return {one.name: filter_spec(one) for one in documents.filters}


def _address_sets(documents: Documents) -> dict[str, Spec]:
    return {one.name: address_set_spec(one) for one in documents.address_sets}


def _workspaces(documents: Documents) -> dict[str, Spec]:
    return {one.name: _by_name(workspace_spec(one)) for one in documents.workspaces}


def workspace_difference(old: Workspace, new: Workspace) -> tuple[PartDifference, ...]:
    """What differs between two workspaces or two versions of one, their names aside."""
    return tuple(differences(*(_by_name(workspace_spec(one)) for one in (old, new))))


def _changes(
    kind: DocumentKind, old: Mapping[str, Spec], new: Mapping[str, Spec]
) -> Iterator[Change]:
    for name in sorted({*old, *new}):
        parts = tuple(differences(old.get(name, {}), new.get(name, {})))
        if name not in old:
            yield Change(kind, name, ChangeKind.CREATED, parts)
        elif name not in new:
            yield Change(kind, name, ChangeKind.DELETED, parts)
        else:
            change = ChangeKind.CHANGED if parts else ChangeKind.UNCHANGED
            yield Change(kind, name, change, parts)


def _by_name(spec: Spec) -> Spec:
    """A workspace with its clusters and policies each under a name of its own."""
    flat = {key: value for key, value in spec.items() if key not in ("clusters", "policies")}
    for cluster in spec.get("clusters", ()):
        flat[f"cluster {cluster['name']}"] = cluster["query"]
    for policy in spec.get("policies", ()):
        flat[f"{_POLICY}{policy['id']}"] = {key: policy[key] for key in policy if key != "id"}
    return flat


def differences(old: Spec, new: Spec) -> Iterator[PartDifference]:
    """What differs between two things by their parts' names; a part may have fields."""
    for part in _either(old, new):
        was, will = old.get(part), new.get(part)
        if isinstance(was, Mapping) and isinstance(will, Mapping):
            for field in _either(was, will):
                yield from _difference(part, field, was.get(field), will.get(field))
        else:
            yield from _difference(part, "", was, will)
    # Of two policies with one priority the first decides, so their order is part of the meaning.
    before, after = ([part for part in one if part.startswith(_POLICY)] for one in (old, new))
    for part in moved(
        [part for part in before if part in new], [part for part in after if part in old]
    ):
        places = before.index(part) + 1, after.index(part) + 1
        yield PartDifference(part, "", PartChange.MOVED, *places)


def _either(old: Spec, new: Spec) -> list[str]:
    return [*new, *(part for part in old if part not in new)]


def _difference(part: str, field: str, old: object, new: object) -> Iterator[PartDifference]:
    if old is None:
        yield PartDifference(part, field, PartChange.ADDED, old, new)
    elif new is None:
        yield PartDifference(part, field, PartChange.REMOVED, old, new)
    elif old != new:
        yield PartDifference(part, field, PartChange.CHANGED, old, new)


def moved(before: Sequence[str], after: Sequence[str]) -> list[str]:
    """The fewest names that, put elsewhere, turn one order of the same names into the other."""
    place = {name: number for number, name in enumerate(before)}
    # Those that stay are a longest increasing run of the old places: patience sorting.
    lowest: list[int] = []
    ends: list[str] = []
    behind: dict[str, str | None] = {}
    for name in after:
        at = bisect_left(lowest, place[name])
        behind[name] = ends[at - 1] if at else None
        lowest[at : at + 1] = [place[name]]
        ends[at : at + 1] = [name]
    stays: set[str] = set()
    last = ends[-1] if ends else None
    while last is not None:
        stays.add(last)
        last = behind[last]
    return [name for name in after if name not in stays]


def _write(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_write(part)}" for key, part in value.items())
    if isinstance(value, list):
        return f"[{', '.join(map(_write, value))}]"
    return str(value)
