"""What no policy may cut off at a node, so that no mistake locks the cluster or its owner out.

API server to and from kubelets, etcd, tunnels between nodes, and SSH from configured networks.
Ports are Kubernetes' own ("Ports and Protocols" in its reference), VXLAN's (RFC 7348, and 8472 of
Linux before it), Geneve's (RFC 8926) and WireGuard's customary one. API servers are where the
Service default/kubernetes says.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from hashlib import sha256

from ringfence.inventory.snapshot import Snapshot
from ringfence.model.address import Address, Network, host_network
from ringfence.model.ids import ClusterId
from ringfence.model.policy import Action, Direction
from ringfence.model.protocol import TCP, UDP, PortRange
from ringfence.model.workload import Item, ItemKind
from ringfence.policy.program import NodePolicy, Rule, SetId

_IPIP = 4
_KUBELET = (PortRange(10250, 10250),)
_ETCD = (PortRange(2379, 2380),)
_SSH = (PortRange(22, 22),)
_TUNNELS = tuple(PortRange(port, port) for port in (4789, 6081, 8472, 51820))


@dataclass(frozen=True, slots=True)
class FailSafe:
    """Connections with `peers` that a node always lets pass in one direction."""

    name: str
    direction: Direction
    protocol: int
    ports: tuple[PortRange, ...]
    peers: tuple[Network, ...]

    def covers(
        self, direction: Direction, protocol: int, peer: Address, provider_port: int
    ) -> bool:
        """Whether a connection of the node passes because of this."""
        return (
            direction is self.direction
            and protocol == self.protocol
            and (not self.ports or any(provider_port in ports for ports in self.ports))
            and any(peer in network for network in self.peers)
        )


def fail_safes(
    snapshot: Snapshot, cluster: ClusterId, ssh_networks: tuple[Network, ...]
) -> tuple[FailSafe, ...]:
    """The fail-safes of every node of a Kubernetes cluster."""
    servers, server_ports = _api_servers(snapshot, cluster)
    nodes = _networks(
        address
        for item in snapshot.items
        if item.kind is ItemKind.NODE and item.cluster == cluster
        for address in item.addresses
    )
    inward, outward = Direction.INBOUND, Direction.OUTBOUND
    stated = [
        FailSafe("kubelet", inward, TCP, _KUBELET, servers),
        FailSafe("kubelet", outward, TCP, _KUBELET, nodes),
        FailSafe("api-server", outward, TCP, server_ports, servers),
        FailSafe("api-server", inward, TCP, server_ports, nodes),
        FailSafe("etcd", inward, TCP, _ETCD, servers),
        FailSafe("etcd", outward, TCP, _ETCD, servers),
        FailSafe("ssh", inward, TCP, _SSH, ssh_networks),
    ]
    for direction in Direction:
        stated += [
            FailSafe("tunnel", direction, UDP, _TUNNELS, nodes),
            FailSafe("tunnel", direction, _IPIP, (), nodes),
        ]
    # Without peers there is nobody to let pass; an unknown API server port is not "any port".
    return tuple(one for one in stated if one.peers and (one.ports or one.protocol == _IPIP))


def with_fail_safes(policy: NodePolicy, stated: Iterable[FailSafe]) -> NodePolicy:
    """The node's policy with the fail-safes before every program."""
    sets = dict(policy.sets)
    rules: dict[Direction, list[Rule]] = {direction: [] for direction in Direction}
    for one in stated:
        text = " ".join(str(network) for network in one.peers)
        peers = SetId(f"f{sha256(text.encode()).hexdigest()[:16]}")
        sets[peers] = one.peers
        rules[one.direction].append(
            Rule(f"fail-safe/{one.name}", Action.ALLOW, one.protocol, one.ports, peers)
        )
    binding = replace(
        policy.binding,
        fail_safes_in=tuple(rules[Direction.INBOUND]),
        fail_safes_out=tuple(rules[Direction.OUTBOUND]),
    )
    return replace(policy, sets=sets, binding=binding)


def _api_servers(
    snapshot: Snapshot, cluster: ClusterId
) -> tuple[tuple[Network, ...], tuple[PortRange, ...]]:
    backends = [
        backend
        for position in snapshot.services
        if _is_api_server(item := snapshot.items[position], cluster) and item.service
        for backend in item.service.backends
    ]
    ports = sorted({backend.port for backend in backends})
    servers = _networks(backend.address for backend in backends)
    return servers, tuple(PortRange(port, port) for port in ports)


def _is_api_server(item: Item, cluster: ClusterId) -> bool:
    return (item.cluster, item.namespace, item.name) == (cluster, "default", "kubernetes")


def _networks(addresses: Iterable[Address]) -> tuple[Network, ...]:
    return tuple(host_network(address) for address in sorted(set(addresses)))
