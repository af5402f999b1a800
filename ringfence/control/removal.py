"""Whether something that people decided can go: what still uses it is named."""

from collections.abc import Iterable, Iterator

from ringfence.model.approval import ApprovalRule
from ringfence.model.ids import AddressSetName, FilterName, ScopeName
from ringfence.model.policy import AddressSetEnd, End, NamedFilterEnd, ScopeEnd
from ringfence.policy.difference import DocumentKind
from ringfence.policy.document import Documents
from ringfence.policy.order import Enforced


def users(
    kind: DocumentKind,
    name: str,
    latest: Documents,
    enforced: Iterable[Enforced],
    rules: Iterable[ApprovalRule],
) -> list[str]:
    """What uses a document: other documents by their latest versions, what is enforced, rules."""
    enforced = tuple(enforced)
    if kind is DocumentKind.SCOPE:
        found = [
            *_of_scope(name, latest),
            *(f"rule {one.id}" for one in rules if one.scope == name),
        ]
    elif kind is DocumentKind.WORKSPACE:
        found = [f"the enforced set, as p{at}" for one, at in enforced if one.name == name]
        found += [f"rule {one.id}" for one in rules if one.provider_workspace == name]
    else:
        found = []
    versions = [
        *((one, one.name) for one in latest.workspaces),
        *((one, f"{one.name}@p{version}") for one, version in enforced),
    ]
    wanted = _end(kind, name)
    for workspace, called in versions:
        for policy in workspace.policies:
            if wanted in (policy.consumer, policy.provider):
                found.append(f"policy {called}/{policy.id}")
        if kind is DocumentKind.SCOPE and workspace.scope == name:
            found.append(f"workspace {called}")
    return found


def _of_scope(name: str, latest: Documents) -> Iterator[str]:
    for scope in latest.scopes:
        if scope.parent == name:
            yield f"scope {scope.name}"
    for one in latest.filters:
        if one.scope == name:
            yield f"filter {one.name}"


def _end(kind: DocumentKind, name: str) -> End | None:
    """How policies name it, None where none can."""
    match kind:
        case DocumentKind.SCOPE:
            return ScopeEnd(ScopeName(name))
        case DocumentKind.FILTER:
            return NamedFilterEnd(FilterName(name))
        case DocumentKind.ADDRESS_SET:
            return AddressSetEnd(AddressSetName(name))
        case DocumentKind.WORKSPACE:
            return None
