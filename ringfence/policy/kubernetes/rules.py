"""The Kubernetes layer: its policies as ordered rules over one cluster's inventory.

Stages: Admin; NetworkPolicy, which ends with DENY for the pods that a policy isolates; Baseline;
then ALLOW. Rules exist in their own direction only and select only pods that have an address of
their own. Tiers are read by priority, then by name, then by position.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cached_property
from itertools import groupby

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from ringfence.inventory.snapshot import Snapshot, View
from ringfence.model.address import Address
from ringfence.model.ids import PolicyId, ScopeName, Version, WorkspaceName
from ringfence.model.policy import Action, Direction
from ringfence.model.protocol import PortRange, disjoint
from ringfence.model.ranges import AddressRange, spans, subtract, union
from ringfence.model.verdict import Decision, Layer, Stage
from ringfence.policy.ends import ANYONE, ResolvedEnd, own_nodes
from ringfence.policy.kubernetes.cluster import Fact, Selection
from ringfence.policy.kubernetes.policies import (
    KubernetesPolicy,
    NamedPort,
    Networks,
    Nodes,
    Peer,
    Pods,
    PolicyRule,
    Ports,
    UnknownPeer,
)
from ringfence.policy.layer import OrderedRule

OWN_NODE = "own-node"
ISOLATION = "isolation"
TIERS = (Stage.ADMIN, Stage.NETWORK_POLICY, Stage.BASELINE)
Source = tuple[WorkspaceName, Version]
_AS_IN_CLUSTER: Source = (WorkspaceName(""), Version(0))
_Ports = tuple[int | None, tuple[PortRange, ...]]
_EVERYTHING: _Ports = (None, ())


class KubernetesLayer:
    """What a cluster's policies mean, independent of the order in which they are given.

    `source` is the workspace and version that they were imported as.
    """

    def __init__(
        self,
        cluster: Selection[Snapshot],
        policies: Iterable[KubernetesPolicy],
        source: Source = _AS_IN_CLUSTER,
    ) -> None:
        self.cluster = cluster
        self.source = source
        self.snapshot = cluster.snapshot
        self.governed = cluster.subjects
        self.policies = sorted(policies, key=place_of)
        self.tiers = {
            stage: [policy for policy in self.policies if policy.stage is stage] for stage in TIERS
        }
        self._meaning = Meaning(cluster, source)
        self.resolve = self._meaning.resolve

    @cached_property
    def rules(self) -> tuple[OrderedRule, ...]:
        """All rules in order."""
        found: list[OrderedRule] = []
        for stage in TIERS:
            policies = self.tiers[stage]
            if stage is Stage.NETWORK_POLICY:
                found.append(self._meaning.own_node())
            found += [rule for policy in policies for rule in self._meaning.of(policy)]
            found += [rule for policy in policies for rule in self._meaning.isolation(policy)]
        found += map(self._meaning.otherwise, Direction)
        return tuple(
            replace(rule, decision=replace(rule.decision, place=place))
            for place, rule in enumerate(found)
        )

    @cached_property
    def own_nodes(self) -> NDArray[np.int32]:
        """For each position that of its node; see `ends.own_nodes`."""
        return own_nodes(self.snapshot)

    @cached_property
    def ties(self) -> tuple[tuple[str, ...], ...]:
        """Policies of one tier and priority, which upstream leaves undefined: the name decides."""
        found = []
        for stage in (Stage.ADMIN, Stage.BASELINE):
            for _, group in groupby(self.tiers[stage], key=lambda policy: policy.priority):
                names = tuple(policy.display for policy in group)
                found += [names] if len(names) > 1 else []
        return tuple(found)


class Meaning:
    """The rules that each policy comes to in a cluster as it is, all of them with the place 0."""

    def __init__(self, cluster: Selection[View], source: Source) -> None:
        self._cluster, self._source = cluster, source
        self._resolved: dict[tuple[tuple[Peer, ...], Action], ResolvedEnd] = {}

    def own_node(self) -> OrderedRule:
        """That every pod is reached from its own node."""
        decision = self._decision(Stage.NETWORK_POLICY, None, OWN_NODE, Action.ALLOW)
        nodes = ResolvedEnd(own_node=True)
        return OrderedRule(decision, self._cluster.subjects, nodes, direction=Direction.INBOUND)

    def of(self, policy: KubernetesPolicy) -> Iterator[OrderedRule]:
        """What a policy says of the pods that it selects, in order."""
        subjects = self._cluster.select(policy.subject)
        for rule in policy.rules if subjects else ():
            yield from self._policy_rule(policy, rule, subjects)

    def isolation(self, policy: KubernetesPolicy) -> Iterator[OrderedRule]:
        """What a NetworkPolicy denies where none allows it."""
        subjects = self._cluster.select(policy.subject)
        for direction in Direction:
            if subjects and direction in policy.isolates:
                decision = self._decision(policy.stage, policy, ISOLATION, Action.DENY)
                yield OrderedRule(decision, subjects, direction=direction)

    def otherwise(self, direction: Direction) -> OrderedRule:
        """What holds where no policy decides."""
        decision = self._decision(Stage.CATCH_ALL, None, "", Action.ALLOW)
        return OrderedRule(decision, self._cluster.subjects, direction=direction)

    def _policy_rule(
        self, policy: KubernetesPolicy, rule: PolicyRule, subjects: BitMap
    ) -> Iterator[OrderedRule]:
        action = rule.action
        if rule.peers and any(isinstance(peer, UnknownPeer) for peer in rule.peers):
            action = Action.ALLOW if action is Action.ALLOW else Action.DENY
        end = self.resolve(rule.peers, action)
        decision = self._decision(policy.stage, policy, rule.name, action)
        for members, peers, ports in self._narrowed(rule, subjects, end):
            inbound = rule.direction is Direction.INBOUND
            ends = (peers, ANYONE) if inbound else (ANYONE, peers)
            yield OrderedRule(decision, members, *ends, *ports, rule.direction)

    def resolve(self, peers: tuple[Peer, ...] | None, action: Action) -> ResolvedEnd:
        """Who the peers of a rule with that action are in the cluster."""
        if peers is None:
            return ANYONE
        # Many policies name the same peers.
        if (peers, action) not in self._resolved:
            self._resolved[peers, action] = self._resolve(peers, action)
        return self._resolved[peers, action]

    def _resolve(self, peers: tuple[Peer, ...], action: Action) -> ResolvedEnd:
        items = BitMap()
        ranges: list[AddressRange] = []
        for peer in peers:
            match peer:
                case Networks(networks, exceptions):
                    ranges += subtract(spans(networks), spans(exceptions))
                case UnknownPeer():
                    if action is not Action.ALLOW:
                        return ResolvedEnd(anyone=True, unknown=True)
                case _:
                    items |= self._cluster.select(peer)
        return ResolvedEnd(items, union(ranges), part=repr(peers))

    def _narrowed(
        self, rule: PolicyRule, subjects: BitMap, end: ResolvedEnd
    ) -> Iterator[tuple[BitMap, ResolvedEnd, _Ports]]:
        """The rule once for each protocol; once for each number that a named port stands for."""
        if rule.ports is None:
            yield subjects, end, _EVERYTHING
            return
        numbered: dict[int, list[PortRange]] = {}
        for ports in rule.ports:
            if isinstance(ports, Ports):
                every = numbered.setdefault(ports.protocol, [])
                every += ports.ranges or (PortRange(0, 65535),)
        for protocol, ranges in numbered.items():
            yield subjects, end, (protocol, disjoint(protocol, ranges))
        for named in rule.ports:
            if not isinstance(named, NamedPort):
                continue
            for (protocol, number), pods in sorted(self._cluster.declaring(named.name).items()):
                if named.protocol not in (None, protocol):
                    continue
                which = (protocol, (PortRange(number, number),))
                if rule.direction is Direction.INBOUND:
                    yield subjects & pods, end, which
                else:
                    part = f"{end.part} {named.name} {protocol}/{number}"
                    yield subjects, replace(self._among(end, pods), part=part), which

    def _among(self, end: ResolvedEnd, pods: BitMap) -> ResolvedEnd:
        """Who of the end is one of the pods."""
        if end.anyone:
            return ResolvedEnd(pods)
        held = [address for at in pods for address in self._cluster.snapshot.items[at].addresses]
        within = [_point(one) for one in held if _holds(end.ranges, int.from_bytes(one))]
        return ResolvedEnd(end.items & pods, union(within))

    def _decision(
        self, stage: Stage, policy: KubernetesPolicy | None, rule: str, action: Action
    ) -> Decision:
        return Decision(
            Layer.KUBERNETES,
            stage,
            ScopeName(""),
            *self._source,
            PolicyId(policy.display) if policy else None,
            0,
            action,
            rule,
        )


def place_of(policy: KubernetesPolicy) -> tuple[int, int, str, str]:
    """Where it stands among the policies of a cluster."""
    return TIERS.index(policy.stage), policy.priority, policy.kind, policy.display


def depends_on(policy: KubernetesPolicy) -> Iterator[Fact]:
    """What the rules of a policy depend on."""
    yield policy.subject
    for rule in policy.rules:
        yield from (peer for peer in rule.peers or () if isinstance(peer, Pods | Nodes))
        yield from (port.name for port in rule.ports or () if isinstance(port, NamedPort))


def _point(address: Address) -> AddressRange:
    return int.from_bytes(address), int.from_bytes(address)


def _holds(ranges: tuple[AddressRange, ...], address: int) -> bool:
    return any(first <= address <= last for first, last in ranges)
