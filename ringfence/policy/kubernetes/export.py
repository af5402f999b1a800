"""Ringfence policies as policies of Kubernetes that mean the same to a cluster's pods.

What no policy allows is denied by NetworkPolicies that isolate, and what is allowed after the last
DENY is by NetworkPolicies that allow. All up to that DENY needs an order and becomes
ClusterNetworkPolicies of the Admin tier, one a rule; so NetworkPolicies alone do for workspaces
that deny nothing but by their catch-alls. Nodes and hosts are no subjects of Kubernetes' policies.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeVar

from ringfence.model.ids import Version
from ringfence.model.policy import (
    Action,
    AddressSetEnd,
    ApiServerEnd,
    CidrEnd,
    ClusterEnd,
    Direction,
    End,
    FilterEnd,
    FqdnEnd,
    OutsideEnd,
    OwnNodeEnd,
    Policy,
    ScopeEnd,
    ServiceEnd,
    Workspace,
)
from ringfence.model.protocol import PortRange, format_protocol
from ringfence.model.query import And, Not, Or, Query
from ringfence.model.ranges import spans, subtract
from ringfence.model.scope import ScopeTree
from ringfence.model.verdict import Stage
from ringfence.policy.ends import ResolvedEnd, cluster_query
from ringfence.policy.errors import InexpressibleError
from ringfence.policy.kubernetes.cluster_policy import CLUSTER_NETWORK_POLICY, MAX_PRIORITY
from ringfence.policy.kubernetes.fields import PROTOCOLS
from ringfence.policy.kubernetes.network_policy import NETWORK_POLICY
from ringfence.policy.kubernetes.policies import (
    KubernetesPolicy,
    NamedPort,
    Networks,
    Peer,
    Pods,
    PolicyRule,
    Ports,
)
from ringfence.policy.kubernetes.terms import Term, terms
from ringfence.policy.order import sequence

_WORDS = {Direction.INBOUND: "ingress", Direction.OUTBOUND: "egress"}
_MOST_ITEMS = 25
"""Of peers, addresses and ports in a rule of a ClusterNetworkPolicy (v1alpha2)."""
_MAX_NAME = 253


class Form(StrEnum):
    """What policies are exported as."""

    NETWORK_POLICY = "networkpolicy"
    CLUSTER_NETWORK_POLICY = "clusternetworkpolicy"
    """With NetworkPolicies for what needs no order."""


@dataclass
class Exported:
    """Policies; none is of use where there are refusals, which say what cannot be expressed."""

    policies: list[KubernetesPolicy] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Target:
    """The Kubernetes cluster that policies are for, by name; `namespaces` are those that it has.

    Both may be left empty where no scope or filter needs them.
    """

    cluster: str = ""
    namespaces: tuple[str, ...] = ()


def export(
    tree: ScopeTree, workspaces: Iterable[Workspace], form: Form, target: Target
) -> Exported:
    """The workspaces, as they are if they are all enforced."""
    exporter = _Exporter(tree, form, target)
    ordered = list(sequence(tree, [(one, Version(0)) for one in workspaces]))
    for direction in Direction:
        exporter.add(direction, ordered)
    return exporter.found


T = TypeVar("T")
_Said = tuple[Stage, Workspace, Version, Policy | Direction]


class _Exporter:
    def __init__(self, tree: ScopeTree, form: Form, target: Target) -> None:
        self.found = Exported()
        self._tree = tree
        self._form = form
        self._target = target
        self._names: dict[str, int] = {}
        self._priority = 0

    def add(self, direction: Direction, ordered: Sequence[_Said]) -> None:
        """Everything that is said of one direction."""
        policies = [(one[1], one[3]) for one in ordered if isinstance(one[3], Policy)]
        # What only logs decides nothing, so nothing is lost without it.
        policies = [pair for pair in policies if pair[1].action is not Action.LOG]
        denying = [at for at, (_, one) in enumerate(policies) if one.action is Action.DENY]
        in_order = max(denying, default=-1) + 1
        denied = self._denied(direction, ordered)
        for at, (workspace, policy) in enumerate(policies):
            try:
                if at < in_order:
                    self._ordered(workspace, policy, direction)
                elif denied is not None:
                    self._allowed(workspace, policy, direction, denied)
            except InexpressibleError as error:
                where = f"workspace {workspace.name}: policy {policy.id}: {_WORDS[direction]}"
                self.found.refusals.append(f"{where}: {error}")

    def _denied(self, direction: Direction, ordered: Sequence[_Said]) -> Query | None:
        """Who is denied what nothing allows; what isolates them is added."""
        denied: list[Query] = []
        before: list[Query] = []
        for stage, workspace, _, said in ordered:
            if stage is not Stage.CATCH_ALL or said is not direction:
                continue
            scope = self._tree.full_query(workspace.scope)
            if workspace.catch_all.of(direction) is Action.DENY:
                query = And((scope, *map(Not, before)))
                denied.append(query)
                try:
                    for subject in self._subjects(query):
                        named = f"{workspace.name}-{_WORDS[direction]}"
                        self._network_policy(named, subject, direction, None)
                except InexpressibleError as error:
                    where = f"workspace {workspace.name}: catch-all {direction}"
                    self.found.refusals.append(f"{where}: {error}")
            before.append(scope)
        return Or(tuple(denied)) if denied else None

    def _allowed(
        self, workspace: Workspace, policy: Policy, direction: Direction, denied: Query
    ) -> None:
        """An ALLOW that only what denies everything comes after."""
        own, peer = _ends(policy, direction)
        subject = self._subject(workspace, policy, own, direction)
        if subject is None or (isinstance(peer, OwnNodeEnd) and direction is Direction.INBOUND):
            # A NetworkPolicy always admits the pod's own node.
            return
        subjects = self._subjects(And((subject, denied)))
        peers = self._peers(workspace, peer, direction, NETWORK_POLICY) if subjects else ()
        rule = PolicyRule(
            f"{_WORDS[direction]}[0]", direction, Action.ALLOW, peers or None, _ports(policy)
        )
        for one in subjects if peers else ():
            named = f"{workspace.name}-{policy.id}-{_WORDS[direction]}"
            self._network_policy(named, one, direction, rule)

    def _ordered(self, workspace: Workspace, policy: Policy, direction: Direction) -> None:
        """A policy before which others, or after which a DENY, may decide."""
        if self._form is Form.NETWORK_POLICY:
            if policy.action is Action.DENY:
                raise InexpressibleError("a NetworkPolicy cannot deny")
            raise InexpressibleError("it comes before a DENY, and NetworkPolicies have no order")
        if any(isinstance(one, str) for one in policy.ports):
            raise InexpressibleError("a ClusterNetworkPolicy names a port without its protocol")
        own, peer = _ends(policy, direction)
        subject = self._subject(workspace, policy, own, direction)
        subjects = terms(subject, self._target.cluster) if subject is not None else []
        peers = self._peers(workspace, peer, direction, CLUSTER_NETWORK_POLICY) if subjects else ()
        for one in subjects if peers else ():
            if not one.has_pods:
                continue
            if self._priority > MAX_PRIORITY:
                raise InexpressibleError(f"there are only priorities 0 to {MAX_PRIORITY}")
            rule = PolicyRule(
                f"{_WORDS[direction]}[0]",
                direction,
                policy.action,
                peers,
                _bounded("ports", _ports(policy) or ()) or None,
                policy.id[:100],
            )
            self.found.policies.append(
                KubernetesPolicy(
                    Stage.ADMIN,
                    CLUSTER_NETWORK_POLICY,
                    "",
                    self._name(f"{workspace.name}-{policy.id}-{_WORDS[direction]}"),
                    one.selected,
                    (rule,),
                    self._priority,
                )
            )
            self._priority += 1

    def _subject(
        self, workspace: Workspace, policy: Policy, own: End, direction: Direction
    ) -> Query | None:
        """Of which workloads the policy decides that direction; None if of no pod."""
        if policy.expires_ns is not None:
            raise InexpressibleError("it expires, and Kubernetes' policies do not")
        if isinstance(own, OwnNodeEnd):
            return None
        if isinstance(own, CidrEnd) and policy.action is Action.ALLOW:
            self.found.notes.append(
                f"workspace {workspace.name}: policy {policy.id}: no pod is selected by its "
                f"address: left out for {_WORDS[direction]}, which is stricter"
            )
            return None
        return And((self._tree.full_query(workspace.scope), self._query(workspace, own)))

    def _subjects(self, query: Query) -> list[tuple[str, Pods]]:
        """By namespace: a NetworkPolicy selects pods of its own."""
        found: dict[tuple[str, Pods], None] = {}
        for term in terms(query, self._target.cluster):
            if not term.has_pods:
                continue
            names = term.namespace_names(self._target.namespaces)
            if names is None:
                raise InexpressibleError(
                    "a NetworkPolicy is for one namespace: name the pods' in a filter, or all that "
                    "the cluster has with --namespace"
                )
            found |= {(name, Pods(name, term.pods)): None for name in names}
        return list(found)

    def _query(self, workspace: Workspace, end: End) -> Query:
        match end:
            case ScopeEnd(scope):
                return self._tree.full_query(scope)
            case ClusterEnd(name):
                within = self._tree.full_query(workspace.scope)
                return And((within, cluster_query(workspace, name)))
            case FilterEnd(query):
                return query
        raise InexpressibleError(f"{_KINDS.get(type(end), 'this end')} is known to no selector")

    def _peers(
        self, workspace: Workspace, end: End, direction: Direction, kind: str
    ) -> tuple[Peer, ...]:
        if isinstance(end, CidrEnd):
            return _blocks(end, direction, kind)
        selected: list[Term] = terms(self._query(workspace, end), self._target.cluster)
        if any(not term.pods_only for term in selected):
            raise InexpressibleError(
                'a selector knows pods only, and the filter nodes and hosts too: add kind = "pod"'
            )
        peers: tuple[Peer, ...] = tuple(term.selected for term in selected)
        return _bounded("peers", peers) if kind == CLUSTER_NETWORK_POLICY else peers

    def _network_policy(
        self,
        name: str,
        subject: tuple[str, Pods],
        direction: Direction,
        rule: PolicyRule | None,
    ) -> None:
        namespace, selected = subject
        self.found.policies.append(
            KubernetesPolicy(
                Stage.NETWORK_POLICY,
                NETWORK_POLICY,
                namespace,
                self._name(name),
                selected,
                (rule,) if rule else (),
                isolates=frozenset({direction}),
            )
        )

    def _name(self, wanted: str) -> str:
        """A name of an object (RFC 1123) that no other of these has."""
        plain = re.sub(r"[^a-z0-9]+", "-", wanted.lower()).strip("-")[: _MAX_NAME - 8].strip("-")
        number = self._names[plain] = self._names.get(plain, 0) + 1
        return plain if number == 1 else self._name(f"{plain}-{number}")


_KINDS: dict[type, str] = {
    CidrEnd: "an address",
    AddressSetEnd: "an address set, whose content changes",
    FqdnEnd: "a name of DNS",
    OwnNodeEnd: "the pod's own node",
    ServiceEnd: "a Service",
    ApiServerEnd: "the API server",
    OutsideEnd: "every host outside",
}


def _ends(policy: Policy, direction: Direction) -> tuple[End, End]:
    """Whose decision it is, and the other."""
    if direction is Direction.INBOUND:
        return policy.provider, policy.consumer
    return policy.consumer, policy.provider


def _blocks(end: CidrEnd, direction: Direction, kind: str) -> tuple[Peer, ...]:
    if kind == NETWORK_POLICY:
        return tuple(_with_holes(end))
    if direction is Direction.INBOUND:
        raise InexpressibleError("a ClusterNetworkPolicy knows no addresses for ingress")
    rest = ResolvedEnd(ranges=subtract(spans(end.networks), spans(end.exceptions))).networks
    return (Networks(_bounded("blocks of addresses", rest)),) if rest else ()


def _with_holes(end: CidrEnd) -> Iterator[Networks]:
    """Each block with those exceptions that lie within it."""
    for whole in end.networks:
        alike = [hole for hole in end.exceptions if hole.is_v4 == whole.is_v4]
        if not any(hole.first <= whole.first and whole.last <= hole.last for hole in alike):
            holes = (hole for hole in alike if whole.first <= hole.first <= whole.last)
            yield Networks((whole,), tuple(dict.fromkeys(holes)))


def _ports(policy: Policy) -> tuple[Ports | NamedPort, ...] | None:
    if policy.protocol is None:
        return None
    if policy.protocol not in PROTOCOLS.values():
        name = format_protocol(policy.protocol)
        raise InexpressibleError(f"{name} is none of {', '.join(PROTOCOLS)}")
    if any(isinstance(one, PortRange) and one.first == 0 for one in policy.ports):
        raise InexpressibleError("port 0 is none of Kubernetes' ports")
    return tuple(
        Ports(policy.protocol, (one,))
        if isinstance(one, PortRange)
        else NamedPort(policy.protocol, one)
        for one in policy.ports
    ) or (Ports(policy.protocol),)


def _bounded(what: str, items: tuple[T, ...]) -> tuple[T, ...]:
    if len(items) > _MOST_ITEMS:
        raise InexpressibleError(f"a rule has at most {_MOST_ITEMS} {what}, this {len(items)}")
    return items
