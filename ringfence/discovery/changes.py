"""What a new proposal says beyond, or short of, what was approved: by meaning, not by name."""

from collections.abc import Collection, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import count

from ringfence.model.icmp import IcmpType
from ringfence.model.ids import PolicyId
from ringfence.model.policy import Action, ClusterEnd, End, Policy, Workspace
from ringfence.model.protocol import Port, PortRange, disjoint
from ringfence.model.query import Query


class ChangeKind(StrEnum):
    """What became of a policy."""

    ADDED = "added"
    UNUSED = "now unused"
    GENERALISED = "generalised"


@dataclass(frozen=True, slots=True)
class PolicyChange:
    """A policy that differs, by its id; `policy` is the new one, or the old one of no use."""

    kind: ChangeKind
    policy: Policy

    def __str__(self) -> str:
        """One line."""
        return f"{self.kind}: {self.policy.id}"


def changes(approved: Workspace, proposed: Workspace, now_ns: int) -> Iterator[PolicyChange]:
    """Policies of which the other workspace allows nothing with the same ends and protocol, or
    fewer ports. Where they have no port in common, nothing of the old one is generalised.

    Agreed upon is what an ALLOW policy that counts at `now_ns`, epoch ns, lets pass: what awaits
    review, has expired or denies is no such one. What still awaits review does not differ.
    """
    agreed = [one for one in approved.policies if one.action is Action.ALLOW and one.counts(now_ns)]
    before, after = _by_meaning(approved, agreed), _by_meaning(proposed, proposed.policies)
    waiting = _by_meaning(approved, [one for one in approved.policies if one.review])
    for meaning, policies in after.items():
        held = before.get(meaning)
        if held and not _meet(held, policies):
            held = None
        for policy in policies:
            if policy.review and _cover(waiting.get(meaning, ()), policy):
                continue
            if held is None:
                yield PolicyChange(ChangeKind.ADDED, policy)
            elif not _cover(held, policy):
                yield PolicyChange(ChangeKind.GENERALISED, policy)
    for meaning, policies in before.items():
        if not _meet(policies, after.get(meaning, ())):
            for policy in policies:
                yield PolicyChange(ChangeKind.UNUSED, policy)


def changed(
    approved: Workspace, proposed: Workspace, chosen: Collection[PolicyChange]
) -> Workspace:
    """The approved workspace with some of the changes: nothing else in it is touched.

    What is new stands at the end. What awaits review takes no other policy's place.
    """
    gone = {one.policy.id for one in chosen if one.kind is ChangeKind.UNUSED}
    policies = {one.id: one for one in approved.policies if one.id not in gone}
    named = _fitting(approved, proposed)
    clusters = {one.name: one for one in approved.clusters}
    clusters |= {
        named[one.name]: replace(one, name=named[one.name])
        for one in proposed.clusters
        if named[one.name] not in clusters
    }
    for one in chosen:
        if one.kind is ChangeKind.UNUSED:
            continue
        consumer, provider = (
            ClusterEnd(named[end.cluster]) if isinstance(end, ClusterEnd) else end
            for end in (one.policy.consumer, one.policy.provider)
        )
        wanted = replace(one.policy, consumer=consumer, provider=provider)
        held = policies.get(wanted.id)
        wider = held and (one.kind is ChangeKind.GENERALISED or held.review) and not wanted.review
        if held and wider and _ends(held) == _ends(wanted):
            ports = _united(held, wanted)
            policies[held.id] = replace(held, ports=ports, review="", evidence=wanted.evidence)
        else:
            said = PolicyId(_free(wanted.id, policies))
            policies[said] = replace(wanted, id=said)
    used = {
        end.cluster
        for one in policies.values()
        for end in (one.consumer, one.provider)
        if isinstance(end, ClusterEnd)
    }
    kept = {one.name for one in approved.clusters}
    together = tuple(one for name, one in clusters.items() if name in used or name in kept)
    return replace(approved, clusters=together, policies=tuple(policies.values()))


def _ends(policy: Policy) -> tuple[object, ...]:
    """All that decides but the ports."""
    return policy.consumer, policy.provider, policy.protocol, policy.icmp, policy.action


def _fitting(approved: Workspace, proposed: Workspace) -> dict[str, str]:
    """The names that proposed clusters get beside the approved ones."""
    queries = {one.name: one.query for one in approved.clusters}
    names = {one.query: one.name for one in approved.clusters}
    found = {}
    for one in proposed.clusters:
        found[one.name] = names.get(one.query) or _free(one.name, queries)
        queries[found[one.name]] = one.query
    return found


def _free(name: str, taken: Container[str]) -> str:
    numbered = (f"{name}-{number}" for number in count(2))
    return name if name not in taken else next(one for one in numbered if one not in taken)


def _united(held: Policy, other: Policy) -> tuple[Port, ...]:
    """The ports of both."""
    if not (held.ports and other.ports):
        return ()
    ports = (*held.ports, *other.ports)
    names = dict.fromkeys(one for one in ports if isinstance(one, str))
    return (*names, *disjoint(held.protocol, (one for one in ports if isinstance(one, PortRange))))


_Meaning = tuple[End | Query, End | Query, int | None, frozenset[IcmpType]]


def _by_meaning(workspace: Workspace, policies: Iterable[Policy]) -> dict[_Meaning, list[Policy]]:
    """Policies that differ in their ports alone stand together."""
    queries = {cluster.name: cluster.query for cluster in workspace.clusters}

    def meant(end: End) -> End | Query:
        return queries[end.cluster] if isinstance(end, ClusterEnd) else end

    found: dict[_Meaning, list[Policy]] = {}
    for one in policies:
        meaning = meant(one.consumer), meant(one.provider), one.protocol, frozenset(one.icmp)
        found.setdefault(meaning, []).append(one)
    return found


def _meet(held: Sequence[Policy], others: Sequence[Policy]) -> bool:
    """Whether any two of them have a port in common; what awaits review takes nobody's place."""
    return any(
        other.review
        or not (one.ports and other.ports)
        or any(_touch(a, b) for a in one.ports for b in other.ports)
        for one in held
        for other in others
    )


def _touch(one: Port, other: Port) -> bool:
    if isinstance(one, PortRange) and isinstance(other, PortRange):
        return one.first <= other.last and other.first <= one.last
    return one == other


def _cover(held: Sequence[Policy], other: Policy) -> bool:
    """Whether every port of the other is one of the held policies'."""
    if not all(one.ports for one in held):
        return True
    ports = [port for one in held for port in one.ports]
    ranges = disjoint(other.protocol, (one for one in ports if isinstance(one, PortRange)))
    return bool(other.ports) and all(
        any(one.first <= port.first and port.last <= one.last for one in ranges)
        if isinstance(port, PortRange)
        else port in ports
        for port in other.ports
    )
