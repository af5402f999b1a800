"""What a new proposal says beyond, or short of, what was approved: by meaning, not by name."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from ringfence.model.icmp import IcmpType
from ringfence.model.policy import Action, ClusterEnd, End, Policy, Workspace
from ringfence.model.protocol import PortRange, disjoint
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
    fewer ports.

    Agreed upon is what an ALLOW policy that counts at `now_ns`, epoch ns, lets pass: what awaits
    review, has expired or denies is no such one.
    """
    agreed = [one for one in approved.policies if one.action is Action.ALLOW and one.counts(now_ns)]
    before, after = _by_meaning(approved, agreed), _by_meaning(proposed, proposed.policies)
    for meaning, policies in after.items():
        held = before.get(meaning)
        for policy in policies:
            if held is None:
                yield PolicyChange(ChangeKind.ADDED, policy)
            elif not _cover(held, policy):
                yield PolicyChange(ChangeKind.GENERALISED, policy)
    for meaning, policies in before.items():
        if meaning not in after:
            for policy in policies:
                yield PolicyChange(ChangeKind.UNUSED, policy)


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
