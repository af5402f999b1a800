"""The two ends of edges: what a policy can name, and the workloads and addresses behind it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ringfence.discovery.behaviour import Numbers, PeerNumbers
from ringfence.discovery.roles import Role, Roles
from ringfence.flows.connections import Records
from ringfence.inventory.snapshot import NOWHERE, Snapshot
from ringfence.model.address import Address, Network, format_address, is_v4, network_of
from ringfence.model.ids import ClusterId
from ringfence.model.workload import Item, ItemKind


@dataclass(frozen=True, slots=True, order=True)
class Nodes:
    """The nodes of one Kubernetes cluster."""

    cluster: ClusterId


@dataclass(frozen=True, slots=True, order=True)
class OwnNode:
    """The node that runs the other end."""


@dataclass(frozen=True, slots=True, order=True)
class Outside:
    """One address that no item of Kubernetes holds."""

    address: Address

    def __str__(self) -> str:
        """The address as people write it."""
        return format_address(self.address)


@dataclass(frozen=True, slots=True, order=True)
class ServiceFront:
    """A Service, by any of its addresses; `from_outside` where a node received for it."""

    cluster: ClusterId
    namespace: str
    name: str
    from_outside: bool


@dataclass(frozen=True, slots=True)
class Anybody:
    """Every host outside: as consumers they are alike."""


@dataclass(frozen=True, slots=True)
class Named:
    """A host outside, by the name under which consumers found it."""

    name: str


Peer = Role | Nodes | OwnNode | Outside | Anybody | Named | ServiceFront


def name_of(peer: Peer) -> str:
    """What to call a peer."""
    match peer:
        case Role(cluster):
            return cluster.name
        case Nodes(cluster_id):
            return f"nodes of {cluster_id}" if cluster_id else "nodes"
        case OwnNode():
            return "own node"
        case Anybody():
            return "outside"
        case Named(name):
            return name
        case ServiceFront():
            return f"service {peer.namespace}/{peer.name}"
        case Outside():
            return str(peer)


class Peers:
    """Peers of an inventory by number.

    First the roles, by their own numbers, then whatever else is asked for. Parties, the workloads
    and addresses behind, are numbered as `behaviour.PeerNumbers` does.
    """

    def __init__(self, snapshot: Snapshot, roles: Roles, item_of: Callable[[int], Item | None]):
        self.snapshot, self.roles = snapshot, roles
        self._parties = PeerNumbers(snapshot, item_of)
        self._all: list[Peer] = list(roles)
        self._number: dict[object, int] = {}
        self.named: dict[Named, set[Address]] = {}
        """At which addresses hosts outside were found by a name."""

    def __getitem__(self, number: int) -> Peer:
        """A peer by its number."""
        return self._all[number]

    def __iter__(self) -> Iterator[Peer]:
        """All of them so far, by number."""
        return iter(self._all)

    def __len__(self) -> int:
        """How many there are so far."""
        return len(self._all)

    def number(self, peer: Peer) -> int:
        """The number of a peer that is no role."""
        if peer not in self._number:
            self._number[peer] = len(self._all)
            self._all.append(peer)
        return self._number[peer]

    def parties(self, records: Records, end: str) -> Numbers:
        """Each record's party at one end."""
        return self._parties.peers(records, end)

    def item(self, party: int) -> Item | None:
        """The item that a party is, None for an address that nobody held."""
        return self.snapshot.items[party] if party < len(self.snapshot.items) else None

    def address(self, party: int) -> Address:
        """The address that a party is, of one that is no item."""
        return Address(self._parties.addresses[party - len(self.snapshot.items)])

    def consumers(self, parties: Numbers) -> Numbers:
        """The peer that each party is as a consumer: hosts outside are all alike.

        What nobody is known to hold in a node's pod networks is no host outside, but itself.
        """
        pods = {one for item in self.snapshot.items for one in _pods_alone(item)}
        prefixes = {one.prefix for one in pods}

        def outside(party: int) -> int:
            address = self.address(party)
            within = (network_of(address, prefix) for prefix in prefixes)
            return self.number(Anybody() if pods.isdisjoint(within) else Outside(address))

        return self._of(parties, outside)

    def providers(self, parties: Numbers) -> Numbers:
        """The peer that each party is as a provider."""
        return self._of(parties, lambda party: self.number(Outside(self.address(party))))

    def _of(self, parties: Numbers, outside: Callable[[int], int]) -> Numbers:
        distinct, which = np.unique(parties, return_inverse=True)
        found = [self._one(party, outside) for party in distinct.tolist()]
        return np.array(found, dtype=np.int64)[which] if found else parties

    def _one(self, party: int, outside: Callable[[int], int]) -> int:
        item = self.item(party)
        if item is None:
            return outside(party)
        role = int(self.roles.numbers[party])
        if role != NOWHERE:
            return role
        match item.kind:
            case ItemKind.NODE | ItemKind.POD:  # a host-network pod is its node
                return self.number(Nodes(item.cluster))
            case ItemKind.SERVICE:
                front = ServiceFront(item.cluster, item.namespace, item.name, from_outside=False)
                return self.number(front)
            case _:
                return outside(party)

    def which(self, *kinds: type) -> NDArray[np.bool_]:
        """For each peer whether it is of some kinds."""
        return np.array([isinstance(peer, kinds) for peer in self._all], dtype=np.bool_)


def _pods_alone(node: Item) -> Iterator[Network]:
    """A node's pod networks in which all that is not a pod is known.

    Masquerading gives the gateway's address to hosts outside. Which it is an agent tells: then the
    node has an address within, besides its own outside, else the network is no pods' alone.
    """
    for network in node.pod_networks:
        alike = (one for one in node.addresses if is_v4(one) == network.is_v4)
        within = [network_of(one, network.prefix) == network for one in alike]
        if any(within) and not all(within):
            yield network
