"""What a node needs to stay a node, whatever its policy says.

Ports are Kubernetes' own (kubernetes.io, "Ports and Protocols") and the registered ones of the
tunnels that CNIs build between nodes.
"""

from dataclasses import dataclass

from ringfence.inventory.snapshot import View
from ringfence.model.address import Address, Network
from ringfence.model.ids import ClusterId
from ringfence.model.policy import Action
from ringfence.model.protocol import TCP, UDP, PortRange
from ringfence.model.ranges import spans
from ringfence.model.workload import Item, ItemKind
from ringfence.policy.program import Rule, SetId
from ringfence.policy.sets import AddressSets, of_addresses

FAIL_SAFE = "fail-safe/"
"""What the handles of fail-safes begin with."""
CONTROL_PLANE = f"{FAIL_SAFE}control-plane"
"""The handle of what every governed workload may dial; back ends write it without a rule."""
_SSH = (PortRange(22, 22),)
_API_SERVER = (PortRange(6443, 6443),)
_KUBELET = (PortRange(10250, 10250),)
_ETCD = (PortRange(2379, 2380),)
_TUNNELS = tuple(PortRange(port, port) for port in (4789, 6081, 8472))
_IPIP = 4


@dataclass(frozen=True, slots=True)
class NodeAccess:
    """What operators state besides: from where nodes may be administered."""

    ssh_from: tuple[Network, ...] = ()


def fail_safes(
    snapshot: View, node: Item, access: NodeAccess, sets: AddressSets
) -> tuple[tuple[Rule, ...], tuple[Rule, ...]]:
    """The fail-safe rules of a node, inbound and outbound."""
    inbound: list[Rule] = []
    outbound: list[Rule] = []
    if access.ssh_from:
        peers = sets.name(f"SSH from {access.ssh_from}", spans(access.ssh_from))
        inbound.append(_rule("ssh", TCP, _SSH, peers))
    if node.kind is not ItemKind.NODE:
        return tuple(inbound), tuple(outbound)
    nodes = sets.name(
        f"nodes of {node.cluster}", of_addresses(node_addresses(snapshot, node.cluster))
    )
    between = (
        _rule("kubelet", TCP, _KUBELET, nodes),
        _rule("etcd", TCP, _ETCD, nodes),
        _rule("tunnel", UDP, _TUNNELS, nodes),
        _rule("tunnel", _IPIP, (), nodes),
        _rule("api-server", TCP, _API_SERVER, nodes),
    )
    inbound += between
    outbound += between
    for address, port in sorted(api_servers(snapshot, node.cluster)):
        peers = sets.name(f"API server {address.hex()}", of_addresses([address]))
        ports = (PortRange(port, port),)
        outbound.append(_rule("api-server", TCP, ports, peers))
        inbound.append(_rule("kubelet", TCP, _KUBELET, peers))
    return tuple(dict.fromkeys(inbound)), tuple(dict.fromkeys(outbound))


def _rule(name: str, protocol: int, ports: tuple[PortRange, ...], peers: SetId) -> Rule:
    return Rule(f"{FAIL_SAFE}{name}", Action.ALLOW, protocol, ports, peers)


def node_addresses(snapshot: View, cluster: ClusterId) -> list[Address]:
    """All addresses of a Kubernetes cluster's nodes."""
    return [
        address
        for item in (snapshot.items[at] for at in snapshot.nodes)
        if item.cluster == cluster
        for address in item.addresses
    ]


def api_servers(snapshot: View, cluster: ClusterId) -> set[tuple[Address, int]]:
    """Where the Service default/kubernetes leads, and its own addresses."""
    found: set[tuple[Address, int]] = set()
    for position in snapshot.services:
        item = snapshot.items[position]
        if item.service and item.cluster == cluster and item.display == "default/kubernetes":
            found |= {(b.address, b.port) for b in item.service.backends}
            found |= {(a, port.port) for a in item.addresses for port in item.service.ports}
    return found
