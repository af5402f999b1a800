"""What changes from one set of documents to another, part by part."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from ringfence.policy.document import Documents, filter_spec, scope_spec, workspace_spec

Spec = Mapping[str, Any]


class ChangeKind(StrEnum):
    """What became of a scope, a filter or a workspace."""

    CREATED = "created"
    CHANGED = "changed"
    UNCHANGED = "unchanged"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True)
class Change:
    """What became of one scope, filter or workspace.

    `lines` tell each part of it that differs: `+` what is new, `-` what goes, `~` what reads
    otherwise.
    """

    kind: str
    name: str
    change: ChangeKind
    lines: tuple[str, ...]


def difference(old: Documents, new: Documents) -> list[Change]:
    """One change for each scope, then each filter and workspace, of either side, by name.

    What only `old` has counts as deleted: hand over only what is meant to be compared.
    """
    return [
        *_changes("Scope", _scopes(old), _scopes(new)),
        *_changes("Filter", _filters(old), _filters(new)),
        *_changes("Workspace", _workspaces(old), _workspaces(new)),
    ]


def _scopes(documents: Documents) -> dict[str, Spec]:
    return {scope.name: scope_spec(scope) for scope in documents.scopes}


def _filters(documents: Documents) -> dict[str, Spec]:
    return {one.name: filter_spec(one) for one in documents.filters}


def _workspaces(documents: Documents) -> dict[str, Spec]:
    return {one.name: _by_name(workspace_spec(one)) for one in documents.workspaces}


def _changes(kind: str, old: Mapping[str, Spec], new: Mapping[str, Spec]) -> Iterator[Change]:
    for name in sorted({*old, *new}):
        lines = tuple(_lines(old.get(name, {}), new.get(name, {})))
        if name not in old:
            yield Change(kind, name, ChangeKind.CREATED, lines)
        elif name not in new:
            yield Change(kind, name, ChangeKind.DELETED, lines)
        else:
            change = ChangeKind.CHANGED if lines else ChangeKind.UNCHANGED
            yield Change(kind, name, change, lines)


def _by_name(spec: Spec) -> Spec:
    """A workspace with its clusters and policies each under a name of its own."""
    flat = {key: value for key, value in spec.items() if key not in ("clusters", "policies")}
    for cluster in spec.get("clusters", ()):
        flat[f"cluster {cluster['name']}"] = cluster["query"]
    for policy in spec.get("policies", ()):
        flat[f"policy {policy['id']}"] = {key: policy[key] for key in policy if key != "id"}
    return flat


def _lines(old: Spec, new: Spec) -> Iterator[str]:
    for part in [*new, *(part for part in old if part not in new)]:
        if part not in old:
            yield f"+ {part}: {_write(new[part])}"
        elif part not in new:
            yield f"- {part}: {_write(old[part])}"
        elif isinstance(old[part], Mapping) and isinstance(new[part], Mapping):
            for line in _lines(old[part], new[part]):
                yield f"{line[:2]}{part}, {line[2:]}"
        elif old[part] != new[part]:
            yield f"~ {part}: {_write(old[part])} → {_write(new[part])}"
    # Of two policies with one priority the first decides, so their order is part of the meaning.
    kept = [part for part in new if part in old and part.startswith("policy ")]
    if kept != [part for part in old if part in kept]:
        yield f"~ order of policies: {', '.join(part.removeprefix('policy ') for part in kept)}"


def _write(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_write(part)}" for key, part in value.items())
    if isinstance(value, list):
        return f"[{', '.join(map(_write, value))}]"
    return str(value)
