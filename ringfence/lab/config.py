"""The shape of a lab: its machines, their addresses, and where its files are."""

import os
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

PREFIX = "rf-lab-"
"""Everything of the lab that has a name in the kernel starts with this."""
_LAN = IPv4Network("10.77.0.0/24")
_PODS = IPv4Network("10.244.0.0/16")
_SERVICES = IPv4Network("10.100.0.0/16")
_OUTSIDE = IPv4Network("203.0.113.0/24")  # TEST-NET-3, RFC 5737


class Cni(StrEnum):
    """How pods of one node reach those of another."""

    ROUTED = "routed"
    OVERLAY = "overlay"
    """Through a VXLAN (RFC 7348) between the nodes."""


@dataclass(frozen=True)
class MachineSpec:
    """One machine of the lab: a set of namespaces with one interface on the lab's bridge."""

    name: str
    address: IPv4Address

    @property
    def netns(self) -> str:
        """Name of the network namespace, as in ``ip netns``."""
        return PREFIX + self.name


@dataclass(frozen=True)
class NodeSpec(MachineSpec):
    """A machine that is a Kubernetes node, with the pod network routed to it."""

    pods: IPv4Network

    @property
    def overlay_address(self) -> IPv4Address:
        """Of the node's end of an overlay: the one of its pod network that no pod gets."""
        return self.pods[0]

    @property
    def overlay_mac(self) -> str:
        """Of the same, locally administered and made of the node's address."""
        return "02:00:" + self.address.packed.hex(":")

    @property
    def cgroup(self) -> str:
        """Name of the node's cgroup, under the root of each hierarchy."""
        return PREFIX + self.name


@dataclass(frozen=True)
class LabConfig:
    """Addresses and directories of a lab. None of the addresses exists on the host itself."""

    nodes: int = 2
    cni: Cni = Cni.ROUTED
    lan: IPv4Network = _LAN
    pods: IPv4Network = _PODS
    services: IPv4Network = _SERVICES
    outside: IPv4Network = _OUTSIDE
    api_port: int = 36443
    """TCP port on the host's loopback that leads to the Kubernetes API."""
    control_plane_port: int = 36444
    """TCP port on the host's loopback that leads to Ringfence's API."""
    run: Path = Path("/run/ringfence-lab")
    """State, logs, keys and kubeconfig of the running lab."""
    data: Path = Path("/var/lib/ringfence-lab")
    """What the nodes keep on disk while the lab runs."""
    logs: Path = Path("/var/log/ringfence-lab")
    """Logs of the last lab that was taken down."""

    @property
    def control(self) -> MachineSpec:
        """The machine of the Kubernetes control plane."""
        return MachineSpec("control", self.lan[10])

    @property
    def external(self) -> MachineSpec:
        """The host outside the cluster."""
        return MachineSpec("external", self.outside[10])

    @property
    def node_specs(self) -> tuple[NodeSpec, ...]:
        """The Kubernetes nodes, ``node1`` first; each owns a /24 of the pod network."""
        subnets = list(self.pods.subnets(new_prefix=24))
        return tuple(
            NodeSpec(f"node{i}", self.lan[10 + i], subnets[i]) for i in range(1, self.nodes + 1)
        )

    @property
    def machines(self) -> tuple[MachineSpec, ...]:
        """All machines."""
        return (self.control, *self.node_specs, self.external)

    @property
    def api_address(self) -> IPv4Address:
        """ClusterIP of the Service ``kubernetes``: the first address of the range."""
        return self.services[1]

    @property
    def dns_address(self) -> IPv4Address:
        """ClusterIP of the cluster's DNS."""
        return self.services[10]

    @property
    def kubeconfig(self) -> Path:
        """Kubeconfig of an administrator on the host."""
        return self.run / "kubeconfig"


def cache_dir() -> Path:
    """Directory for what is slow to make, outside any checkout (XDG base directories)."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "ringfence"
