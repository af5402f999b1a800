"""What a new proposal says beyond, or short of, what was approved: by meaning, not by name."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from ringfence.model.policy import ClusterEnd, End, Policy, Workspace
from ringfence.model.protocol import PortRange
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


def changes(approved: Workspace, proposed: Workspace) -> Iterator[PolicyChange]:
    """Policies of which the other workspace has none with the same ends and protocol, or fewer
    ports. Policies that await review are added ones.
    """
    before, after = _by_meaning(approved), _by_meaning(proposed)
    for meaning, policy in after.items():
        held = before.get(meaning)
        if held is None:
            yield PolicyChange(ChangeKind.ADDED, policy)
        elif not _covers(held, policy):
            yield PolicyChange(ChangeKind.GENERALISED, policy)
    for meaning, policy in before.items():
        if meaning not in after:
            yield PolicyChange(ChangeKind.UNUSED, policy)


_Meaning = tuple[End | Query, End | Query, int | None]


def _by_meaning(workspace: Workspace) -> dict[_Meaning, Policy]:
    queries = {cluster.name: cluster.query for cluster in workspace.clusters}

    def meant(end: End) -> End | Query:
        return queries[end.cluster] if isinstance(end, ClusterEnd) else end

    return {
        (meant(one.consumer), meant(one.provider), one.protocol): one for one in workspace.policies
    }


def _covers(held: Policy, other: Policy) -> bool:
    """Whether every port of the other is one of the held policy's."""
    ranges = [port for port in held.ports if isinstance(port, PortRange)]
    wanted = [port for port in other.ports if isinstance(port, PortRange)]
    if not held.ports or not other.ports:
        return not held.ports
    return all(
        any(one.first <= it.first and it.last <= one.last for one in ranges) for it in wanted
    )
