"""The lab's wires: a bridge in a namespace of its own and one veth to each machine.

No address and no interface of the lab exists in the host's own network namespace.
"""

from pathlib import Path

from ringfence.lab.command import run
from ringfence.lab.config import PREFIX, Cni, LabConfig, MachineSpec, NodeSpec

BRIDGE_NETNS = PREFIX + "net"
MTU = 1500
OVERLAY_MTU = MTU - 50
"""What IPv4, UDP, VXLAN and Ethernet headers leave of a packet (RFC 7348, section 4.3)."""
_OVERLAY = "vxlan0"
_VXLAN_ID, _VXLAN_PORT = 1, 4789
_NETNS_DIRECTORY = Path("/run/netns")


def build(config: LabConfig) -> None:
    """Make the namespaces, the bridge, the addresses and the routes."""
    run(["ip", "netns", "add", BRIDGE_NETNS])
    _ip(BRIDGE_NETNS, "link add br0 type bridge", "link set br0 up")
    for spec in config.machines:
        _plug(config, spec)
    for node in config.node_specs:
        _join(config, node)


def rebuild(config: LabConfig, node: NodeSpec) -> None:
    """Give a node a network namespace as it was at first; whoever was in the old one has ended."""
    _ip(BRIDGE_NETNS, f"link delete {node.name}")  # deleted with its namespace, it goes later
    run(["ip", "netns", "delete", node.netns])
    _plug(config, node)
    _join(config, node)


def _join(config: LabConfig, node: NodeSpec) -> None:
    _prepare_node(config, node)
    if config.cni is Cni.OVERLAY:
        _join_overlay(config, node)


def _plug(config: LabConfig, spec: MachineSpec) -> None:
    run(["ip", "netns", "add", spec.netns])
    inside = spec.address in config.lan
    address = f"{spec.address}/{config.lan.prefixlen}" if inside else f"{spec.address}/32"
    _ip(
        spec.netns,
        "link set lo up",
        f"link add eth0 type veth peer name {spec.name} netns {BRIDGE_NETNS}",
        f"addr add {address} dev eth0",
        "link set eth0 up",
        f"route add {config.outside if inside else config.lan} dev eth0",
    )
    _ip(BRIDGE_NETNS, f"link set {spec.name} master br0 up")
    if inside and not (config.cni is Cni.OVERLAY and isinstance(spec, NodeSpec)):
        _ip(
            spec.netns,
            *(f"route add {n.pods} via {n.address}" for n in _others(config, spec)),
        )


def _join_overlay(config: LabConfig, node: NodeSpec) -> None:
    """Give a node its end of a VXLAN whose tables are written and never learnt."""
    vxlan = f"id {_VXLAN_ID} dstport {_VXLAN_PORT} local {node.address} dev eth0 nolearning"
    commands = [
        f"link add {_OVERLAY} address {node.overlay_mac} mtu {OVERLAY_MTU} type vxlan {vxlan}",
        f"addr add {node.overlay_address}/32 dev {_OVERLAY}",
        f"link set {_OVERLAY} up",
    ]
    forwarding = []
    for other in _others(config, node):
        address, mac = other.overlay_address, other.overlay_mac
        commands.append(f"neigh add {address} lladdr {mac} dev {_OVERLAY} nud permanent")
        commands.append(f"route add {other.pods} via {address} dev {_OVERLAY} onlink")
        forwarding.append(f"fdb add {mac} dev {_OVERLAY} dst {other.address}")
    _ip(node.netns, *commands)
    run(["bridge", "-netns", node.netns, "-batch", "-"], stdin="\n".join(forwarding))


def _others(config: LabConfig, spec: MachineSpec) -> list[NodeSpec]:
    return [node for node in config.node_specs if node.name != spec.name]


def _prepare_node(config: LabConfig, node: NodeSpec) -> None:
    """Forward, and hide pods behind the node's address where they leave the cluster."""
    enter = ["nsenter", f"--net={_NETNS_DIRECTORY / node.netns}"]
    run([*enter, "sysctl", "-qw", "net.ipv4.ip_forward=1"])
    inside = f"{{ {config.pods}, {config.services}, {config.lan} }}"
    masquerade = [
        "add table ip lab_nat",
        "add chain ip lab_nat postrouting { type nat hook postrouting priority srcnat; }",
        f"add rule ip lab_nat postrouting ip saddr {config.pods} ip daddr != {inside} masquerade",
    ]
    run([*enter, "nft", "-f", "-"], stdin="\n".join(masquerade))


def _ip(netns: str, *commands: str) -> None:
    run(["ip", "-netns", netns, "-batch", "-"], stdin="\n".join(commands))


def namespaces() -> list[Path]:
    """The lab's network namespaces that exist."""
    return sorted(_NETNS_DIRECTORY.glob(f"{PREFIX}*"))


def remove() -> None:
    """Remove the lab's network namespaces; their interfaces and rules go with them."""
    for path in namespaces():
        run(["ip", "netns", "delete", path.name])
