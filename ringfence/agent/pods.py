"""Which pods are on this node, and which of its interfaces lead to them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from ringfence.kernel.cri import Sandbox
from ringfence.kernel.errors import KernelError
from ringfence.kernel.interfaces import Interface, netns_id
from ringfence.kernel.netns import inode
from ringfence.model.address import Address, parse_network
from ringfence.policy.program import LINK_LOCAL, LINKS_TO_PODS, Gate, Passage

NODE_NETNS = Path("/proc/self/ns/net")

_UNTOLD = (
    "the container runtime does not tell its network namespace; containerd 1.6 or later, or CRI-O, "
    "is needed"
)
_PAIRED = ("veth", "netkit")
_EVERYWHERE = tuple(
    parse_network(text) for text in ("127.0.0.0/8", "169.254.0.0/16", "::1/128", "fe80::/10")
)


@dataclass(frozen=True, slots=True)
class Place:
    """A network namespace that holds rules: a pod's, or the node's own."""

    uid: str
    """The pod's; empty for the node."""
    netns: Path
    inode: int
    """The number by which the kernel names the namespace."""


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod with a network namespace of its own."""

    place: Place
    addresses: tuple[Address, ...]
    interfaces: frozenset[int]
    """The node's ends of its veths, by ifindex."""
    namespace: str = ""
    passages: frozenset[Passage] = frozenset()
    """Its addresses, each behind the interfaces by which the node routes its packets."""
    alone: frozenset[str] = frozenset()
    """The names of those that lead to this pod alone, not to all that a bridge joins."""


@dataclass
class Here:
    """What an agent's node was last seen to have."""

    interfaces: tuple[Interface, ...] = ()
    pods: tuple[Pod, ...] = ()

    @property
    def addresses(self) -> tuple[Address, ...]:
        """The node's own addresses."""
        return node_addresses(self.interfaces)


def locate(
    sandboxes: Iterable[Sandbox], interfaces: Iterable[Interface]
) -> tuple[tuple[Pod, ...], dict[str, str]]:
    """Join the runtime's pods with the node's interfaces.

    Also gives, by uid, why a pod's namespace cannot be reached: most often it is gone, and
    sometimes not there yet.
    """
    ends: dict[int, set[int]] = {}
    at = {interface.ifindex: interface for interface in interfaces}
    for interface in at.values():
        if interface.peer_netns_id is not None:
            ends.setdefault(interface.peer_netns_id, set()).add(interface.ifindex)
    pods: list[Pod] = []
    unreached: dict[str, str] = {}
    for sandbox in sandboxes:
        if sandbox.netns is None:
            unreached[sandbox.uid] = _UNTOLD
            continue
        try:
            known_as = netns_id(sandbox.netns)
            place = Place(sandbox.uid, sandbox.netns, inode(sandbox.netns))
        except KernelError as error:
            unreached[sandbox.uid] = str(error)
            continue
        mine = ends.get(known_as, set()) if known_as is not None else set()
        alone = frozenset(at[one].name for one in mine if at[one].master is None)
        joined = {at[master].name for one in mine if (master := at[one].master) in at}
        passages = frozenset(
            Passage(*pair)
            for pair in (
                *product(alone | joined, sandbox.addresses),
                *product(alone, (LINK_LOCAL.address,)),
            )
        )
        pods.append(
            Pod(place, sandbox.addresses, frozenset(mine), sandbox.namespace, passages, alone)
        )
    return tuple(pods), unreached


def at_pods(interfaces: Iterable[Interface]) -> frozenset[int]:
    """Interfaces whose other end may be a pod's, though none that is known yet, by ifindex.

    That by which the node is in a network itself is another's: of a node that is a container the
    uplink is a veth too.
    """
    return frozenset(
        interface.ifindex
        for interface in interfaces
        if interface.kind in _PAIRED
        and interface.peer_netns_id is not None
        and not interface.in_network
    )


def own_links(interfaces: Iterable[Interface], gate: Gate | None) -> frozenset[Passage]:
    """The interfaces by which a node with a gate is in a network that is not its pods'.

    They may be of a kind that leads to pods.
    """
    networks = gate.networks if gate else ()
    return frozenset(
        Passage(one.name, LINK_LOCAL.address)
        for one in interfaces
        if gate
        and one.kind in LINKS_TO_PODS
        and one.in_network
        and not any(address in network for address in one.addresses for network in networks)
    )


def node() -> Place:
    """The node's own network namespace, which is the agent's."""
    return Place("", NODE_NETNS, inode(NODE_NETNS))


def places(
    pods: Iterable[Pod], of_node: Sequence[Address]
) -> list[tuple[Place, Sequence[Address]]]:
    """Every network namespace of the node and its addresses; `of_node` are the node's own."""
    return [(node(), of_node), *((pod.place, pod.addresses) for pod in pods)]


def node_addresses(interfaces: Iterable[Interface]) -> tuple[Address, ...]:
    """All addresses of the node's interfaces that mean this node alone, CNI gateways included.

    Loopback and link-local ones mean another machine on each machine or link.
    """
    return tuple(
        sorted(
            {
                address
                for interface in interfaces
                for address in interface.addresses
                if not any(address in network for network in _EVERYWHERE)
            }
        )
    )
