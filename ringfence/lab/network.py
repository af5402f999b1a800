"""The lab's wires: a bridge in a namespace of its own and one veth to each machine.

No address and no interface of the lab exists in the host's own network namespace.
"""

from pathlib import Path

from ringfence.lab.command import run
from ringfence.lab.config import PREFIX, LabConfig, MachineSpec, NodeSpec

BRIDGE_NETNS = PREFIX + "net"
_NETNS_DIRECTORY = Path("/run/netns")


def build(config: LabConfig) -> None:
    """Make the namespaces, the bridge, the addresses and the routes."""
    run(["ip", "netns", "add", BRIDGE_NETNS])
    _ip(BRIDGE_NETNS, "link add br0 type bridge", "link set br0 up")
    for spec in config.machines:
        _plug(config, spec)
    for node in config.node_specs:
        _prepare_node(config, node)


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
    if inside:
        others = [n for n in config.node_specs if n.name != spec.name]
        _ip(spec.netns, *(f"route add {n.pods} via {n.address}" for n in others))


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
