"""The meaning of Kubernetes' policies once more, slow and obvious: one connection at a time.

It exists to be read beside upstream's definitions and to be compared with the fast layer. It shares
no code with it, only the domain types. Quotation marks hold the sentence that a step follows.
"""

from collections.abc import Sequence

from ringfence.model.address import Address, Network, is_v4
from ringfence.model.policy import Action, Direction
from ringfence.model.verdict import Stage
from ringfence.policy.connection import Connection
from ringfence.policy.kubernetes.cluster import NAMESPACE_NAME, KubernetesLabels, Node, Pod
from ringfence.policy.kubernetes.policies import (
    KubernetesPolicy,
    NamedPort,
    Networks,
    Nodes,
    Peer,
    Pods,
    PolicyRule,
    Ports,
    Requires,
    Selector,
    UnknownPeer,
)


class KubernetesOracle:
    """Judges single connections by upstream's definitions."""

    def __init__(
        self,
        namespaces: dict[str, KubernetesLabels],
        pods: Sequence[Pod],
        nodes: Sequence[Node],
        policies: Sequence[KubernetesPolicy],
    ) -> None:
        self._namespaces = namespaces
        self._pods = pods
        self._nodes = nodes
        self._policies = policies

    def allows(self, connection: Connection, direction: Direction) -> bool:
        """Whether one end allows: the consumer outbound, the provider inbound."""
        inbound = direction is Direction.INBOUND
        subject = self._pod(connection.provider if inbound else connection.consumer)
        # "Policies select only pods that have an address of their own."
        if subject is None:
            return True
        decided = (
            self._tier(Stage.ADMIN, subject, connection, direction)
            or self._network_policies(subject, connection, direction)
            or self._tier(Stage.BASELINE, subject, connection, direction)
            # "then ALLOW"
            or Action.ALLOW
        )
        return decided is Action.ALLOW

    def _tier(
        self, stage: Stage, subject: Pod, connection: Connection, direction: Direction
    ) -> Action | None:
        """Follows "priority, then name, then position"; None passes."""
        tier = [policy for policy in self._policies if policy.stage is stage]
        for policy in sorted(tier, key=lambda one: (one.priority, one.kind, one.name)):
            if not self._is_among(subject, policy.subject):
                continue
            for rule in policy.rules:
                if rule.direction is direction and self._speaks_of(rule, connection):
                    if rule.action is Action.PASS:
                        # "A DENY or PASS of an unknown peer denies all."
                        unknown = any(isinstance(one, UnknownPeer) for one in rule.peers or ())
                        return Action.DENY if unknown else None
                    return rule.action
        return None

    def _network_policies(
        self, subject: Pod, connection: Connection, direction: Direction
    ) -> Action | None:
        # "The allowed connections into the pod are those from the pod's node and those allowed by
        # the ingress list of some NetworkPolicy."
        if direction is Direction.INBOUND and self._is_own_node(connection.consumer, subject):
            return Action.ALLOW
        isolating = [
            policy
            for policy in self._policies
            if policy.stage is Stage.NETWORK_POLICY
            and direction in policy.isolates
            and self._is_among(subject, policy.subject)
        ]
        # "By default, a pod is non-isolated: all connections are allowed."
        if not isolating:
            return None
        # "The effects of those lists combine additively."
        if any(
            rule.direction is direction and self._speaks_of(rule, connection)
            for policy in isolating
            for rule in policy.rules
        ):
            return Action.ALLOW
        return Action.DENY

    def _speaks_of(self, rule: PolicyRule, connection: Connection) -> bool:
        inbound = rule.direction is Direction.INBOUND
        peer = connection.consumer if inbound else connection.provider
        peers = rule.peers is None or any(
            self._is_peer(peer, one, rule.action) for one in rule.peers
        )
        ports = rule.ports is None or any(self._is_port(connection, one) for one in rule.ports)
        return peers and ports

    def _is_peer(self, address: Address, peer: Peer, action: Action) -> bool:
        match peer:
            case Networks(networks, exceptions):
                return _in_any(address, networks) and not _in_any(address, exceptions)
            case Nodes(selector):
                return any(
                    address in node.addresses and _selects(selector, node.labels)
                    for node in self._nodes
                )
            case Pods():
                pod = self._pod(address)
                return pod is not None and self._is_among(pod, peer)
            case UnknownPeer():
                return action is not Action.ALLOW

    def _is_among(self, pod: Pod, selected: Pods) -> bool:
        own = {**self._namespaces.get(pod.namespace, {}), NAMESPACE_NAME: pod.namespace}
        named = selected.namespaces
        inside = pod.namespace == named if isinstance(named, str) else _selects(named, own)
        return inside and _selects(selected.pods, pod.labels)

    def _is_port(self, connection: Connection, ports: Ports | NamedPort) -> bool:
        if isinstance(ports, Ports):
            return connection.protocol == ports.protocol and (
                not ports.ranges or any(connection.provider_port in one for one in ports.ranges)
            )
        # "The named port is that of the destination pod."
        target = self._pod(connection.provider)
        return (
            target is not None
            and ports.protocol in (None, connection.protocol)
            and any(
                (port.name, port.protocol, port.port)
                == (ports.name, connection.protocol, connection.provider_port)
                for port in target.ports
            )
        )

    def _pod(self, address: Address) -> Pod | None:
        """The pod whose own address it is, none if a node has it."""
        for pod in self._pods:
            if address in pod.addresses and not pod.host_network:
                return pod
        return None

    def _is_own_node(self, address: Address, pod: Pod) -> bool:
        return any(node.name == pod.node and address in node.addresses for node in self._nodes)


def _selects(selector: Selector, labels: KubernetesLabels) -> bool:
    for one in selector:
        value = labels.get(one.key)
        held = {
            Requires.EQUALS: value in one.values,
            Requires.IN: value in one.values,
            Requires.NOT_IN: value not in one.values,
            Requires.EXISTS: value is not None,
            Requires.DOES_NOT_EXIST: value is None,
        }
        if not held[one.operator]:
            return False
    return True


def _in_any(address: Address, networks: tuple[Network, ...]) -> bool:
    return any(network.is_v4 == is_v4(address) and address in network for network in networks)
