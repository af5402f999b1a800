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

from ringfence.model.address import Address
from ringfence.model.ids import PolicyId, ScopeName, Version, WorkspaceName
from ringfence.model.policy import Action, Direction
from ringfence.model.protocol import PortRange, disjoint
from ringfence.model.ranges import AddressRange, spans, subtract, union
from ringfence.model.verdict import Decision, Layer, Stage
from ringfence.policy.ends import ANYONE, ResolvedEnd, own_nodes
from ringfence.policy.kubernetes.cluster import Selection
from ringfence.policy.kubernetes.policies import (
    KubernetesPolicy,
    NamedPort,
    Networks,
    Peer,
    PolicyRule,
    Ports,
    UnknownPeer,
)
from ringfence.policy.layer import OrderedRule

OWN_NODE = "own-node"
ISOLATION = "isolation"
_Ports = tuple[int | None, tuple[PortRange, ...]]
_EVERYTHING: _Ports = (None, ())


class KubernetesLayer:
    """What a cluster's policies mean, independent of the order in which they are given.

    `source` is the workspace and version that they were imported as.
    """

    def __init__(
        self,
        cluster: Selection,
        policies: Iterable[KubernetesPolicy],
        source: tuple[WorkspaceName, Version] = (WorkspaceName(""), Version(0)),
    ) -> None:
        self.cluster = cluster
        self._source = source
        self.snapshot = cluster.snapshot
        self.governed = cluster.subjects
        in_order = sorted(policies, key=lambda one: (one.priority, one.kind, one.display))
        self.tiers = {
            stage: [policy for policy in in_order if policy.stage is stage]
            for stage in (Stage.ADMIN, Stage.NETWORK_POLICY, Stage.BASELINE)
        }
        self._rules: list[OrderedRule] = []
        self._resolved: dict[tuple[tuple[Peer, ...], Action], ResolvedEnd] = {}
        self._tier(Stage.ADMIN)
        self._network_policies()
        self._tier(Stage.BASELINE)
        for direction in Direction:
            decision = self._decision(Stage.CATCH_ALL, None, "", Action.ALLOW)
            self._rules.append(OrderedRule(decision, self.governed, direction=direction))
        self.rules = tuple(self._rules)

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

    def _tier(self, stage: Stage) -> None:
        for policy in self.tiers[stage]:
            subjects = self.cluster.select(policy.subject)
            for rule in policy.rules if subjects else ():
                self._policy_rule(policy, rule, subjects)

    def _network_policies(self) -> None:
        """The pod's own node, all that policies allow, and then what each of them isolates."""
        stage, policies = Stage.NETWORK_POLICY, self.tiers[Stage.NETWORK_POLICY]
        decision, nodes = (
            self._decision(stage, None, OWN_NODE, Action.ALLOW),
            ResolvedEnd(own_node=True),
        )
        self._rules.append(OrderedRule(decision, self.governed, nodes, direction=Direction.INBOUND))
        self._tier(stage)
        for policy in policies:
            subjects = self.cluster.select(policy.subject)
            for direction in Direction:
                if subjects and direction in policy.isolates:
                    decision = self._decision(stage, policy, ISOLATION, Action.DENY)
                    self._rules.append(OrderedRule(decision, subjects, direction=direction))

    def _policy_rule(self, policy: KubernetesPolicy, rule: PolicyRule, subjects: BitMap) -> None:
        action = rule.action
        if rule.peers and any(isinstance(peer, UnknownPeer) for peer in rule.peers):
            action = Action.ALLOW if action is Action.ALLOW else Action.DENY
        end = self.resolve(rule.peers, action)
        for members, peers, ports in self._narrowed(rule, subjects, end):
            inbound = rule.direction is Direction.INBOUND
            ends = (peers, ANYONE) if inbound else (ANYONE, peers)
            decision = self._decision(policy.stage, policy, rule.name, action)
            self._rules.append(OrderedRule(decision, members, *ends, *ports, rule.direction))

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
                    items |= self.cluster.select(peer)
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
            for (protocol, number), pods in self._named_ports.get(named.name, {}).items():
                if named.protocol not in (None, protocol):
                    continue
                which = (protocol, (PortRange(number, number),))
                if rule.direction is Direction.INBOUND:
                    yield subjects & pods, end, which
                else:
                    part = f"{end.part} {named.name} {protocol}/{number}"
                    yield subjects, replace(self._among(end, pods), part=part), which

    @cached_property
    def _named_ports(self) -> dict[str, dict[tuple[int, int], BitMap]]:
        """By name, the pods that declare it for a (protocol, number)."""
        found: dict[str, dict[tuple[int, int], BitMap]] = {}
        for at in self.governed:
            for port in self.snapshot.items[at].containers:
                numbers = found.setdefault(port.name, {})
                numbers.setdefault((port.protocol, port.port), BitMap()).add(at)
        return found

    def _among(self, end: ResolvedEnd, pods: BitMap) -> ResolvedEnd:
        """Who of the end is one of the pods."""
        if end.anyone:
            return ResolvedEnd(pods)
        held = [address for at in pods for address in self.snapshot.items[at].addresses]
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
            len(self._rules),
            action,
            rule,
        )


def _point(address: Address) -> AddressRange:
    return int.from_bytes(address), int.from_bytes(address)


def _holds(ranges: tuple[AddressRange, ...], address: int) -> bool:
    return any(first <= address <= last for first, last in ranges)
