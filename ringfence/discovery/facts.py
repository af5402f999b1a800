"""What the inventory declares of peers: the sockets they listen on, and whom they are told of."""

import numpy as np

from ringfence.discovery.behaviour import Mask, Numbers, distinct
from ringfence.discovery.observed import Observed
from ringfence.discovery.peers import Anybody, Named, Outside, ServiceFront
from ringfence.discovery.roles import Role
from ringfence.discovery.sockets import PORTS, declared, served, socket_key, sockets
from ringfence.inventory.snapshot import NOWHERE
from ringfence.model.address import is_v4
from ringfence.model.ids import NO_CLUSTER, ClusterId
from ringfence.model.workload import ItemKind

API_SERVER = frozenset({("default", "kubernetes")})
RESOLVERS = frozenset({("kube-system", "kube-dns"), ("kube-system", "coredns")})

_ANY = 0
"""The port of a reference that tells none."""


def _ports_told(written: str) -> set[int]:
    """The port that a reference tells: none where what stands there is no port."""
    if not written:
        return {_ANY}
    number = written.isascii() and written.isdecimal() and len(written) <= len(str(PORTS))
    return {int(written)} - {_ANY} if number else set()


class Facts:
    """Declarations, by the numbers of peers and fronts."""

    def __init__(self, observed: Observed) -> None:
        self._observed = observed
        self._peers = observed.peers
        self.listening = sockets(declared(self._peers))
        self.probed = sockets(
            {
                (number, protocol, port)
                for number, role in enumerate(self._peers.roles)
                for protocol, port in role.probe_ports
            },
        )
        self._behind = self._backends()

    def of_edges(self, known: Numbers) -> Mask:
        """For each edge whether its provider's protocol and port are among the sockets."""
        seen = self._observed
        return np.isin(socket_key(seen.provider, seen.protocol, seen.port), known)

    def serves(self, names: frozenset[tuple[str, str]]) -> Mask:
        """For each edge whether it leads to Services by these names, or to what is behind them."""
        fronts = [(one.namespace, one.name) in names for one in self._observed.fronts]
        behind = self.of_edges(np.array(sorted(self._sockets_behind(names)), dtype=np.int64))
        return behind | self._observed.through(np.array(fronts, dtype=np.bool_))

    def behind(self, names: frozenset[tuple[str, str]]) -> list[int]:
        """The peers behind Services by these names."""
        return sorted({key // (PORTS << 8) for key in self._sockets_behind(names)})

    def _sockets_behind(self, names: frozenset[tuple[str, str]]) -> set[int]:
        its = (keys for (_, *name), keys in self._behind.items() if tuple(name) in names)
        return set().union(*its)

    def _backends(self) -> dict[tuple[ClusterId, str, str], set[int]]:
        """For each Service, by cluster, namespace and name, the sockets of the peers behind it."""
        snapshot, found = self._peers.snapshot, dict[tuple[ClusterId, str, str], set[int]]()
        for at in snapshot.services:
            item = snapshot.items[at]
            for peer, protocol, port in served(item, self._peers):
                key = int(socket_key(np.array([peer]), np.array([protocol]), np.array([port]))[0])
                name = item.cluster, item.namespace, item.name
                found.setdefault(name, set()).add(key)
        return found

    def fronted(self) -> Mask:
        """For each edge whether a Service with an address stands before its provider's socket."""
        snapshot = self._peers.snapshot
        fronted = {
            socket
            for at in snapshot.services
            if snapshot.items[at].addresses
            for socket in served(snapshot.items[at], self._peers)
        }
        return self.of_edges(sockets(fronted))

    def published(self) -> Mask:
        """For each edge whether hosts outside have it through a Service that lets them in."""
        snapshot = self._peers.snapshot
        items = (snapshot.items[at] for at in snapshot.services)
        open_ = {
            (item.cluster, item.namespace, item.name)
            for item in items
            if item.service and item.service.is_published
        }
        fronts = self._observed.fronts
        lets_in = [(one.cluster, one.namespace, one.name) in open_ for one in fronts]
        from_outside = self._peers.which(Anybody)[self._observed.consumer]
        return self._observed.through(np.array(lets_in, dtype=np.bool_)) & from_outside

    def referred(self) -> Mask:
        """For each edge whether the consumer's configuration names the provider, on its port."""
        seen = self._observed
        told = [self._told(number) for number in range(len(self._peers))]
        known = np.zeros(len(seen), dtype=np.bool_)
        if not any(told):
            return known
        names = self._names()
        pairs, which = np.unique(
            seen.consumer * len(self._peers) + seen.provider, return_inverse=True
        )
        ports = [
            {port for name in names[provider] for port in told[consumer].get(name, ())}
            for consumer, provider in (divmod(pair, len(self._peers)) for pair in pairs.tolist())
        ]
        some = np.array([bool(one) for one in ports], dtype=np.bool_)[which]
        routes = np.flatnonzero(some[seen.route_edge])
        for edge, dialled in zip(
            seen.route_edge[routes].tolist(), seen.route_port[routes].tolist(), strict=True
        ):
            known[edge] |= not {_ANY, dialled, int(seen.port[edge])}.isdisjoint(ports[which[edge]])
        return known

    def _told(self, number: int) -> dict[tuple[ClusterId, str], set[int]]:
        """The ports by the host that a role's workloads are told of; 0 where none is told.

        A host is NAME.NAMESPACE in their own Kubernetes cluster, or as it is written in none.
        """
        found: dict[tuple[ClusterId, str], set[int]] = {}
        if number >= len(self._peers.roles):
            return found
        for at in self._peers.roles[number].members:
            item = self._peers.snapshot.items[at]
            for reference in item.references:
                written, _, port = reference.lower().partition(":")
                inside = written.removesuffix(".").removesuffix(".cluster.local")
                inside = inside.removesuffix(".svc")
                full = inside if "." in inside else f"{inside}.{item.namespace}"
                for host in ((NO_CLUSTER, written), (item.cluster, full)):
                    found.setdefault(host, set()).update(_ports_told(port))
        return found

    def _names(self) -> list[set[tuple[ClusterId, str]]]:
        """For each peer the names under which it may be told of, as `_told` has them."""
        found: list[set[tuple[ClusterId, str]]] = []
        for peer in self._peers:
            match peer:
                case Named(name):
                    found.append({(NO_CLUSTER, name)})
                case ServiceFront(cluster, namespace, name):
                    found.append({(cluster, f"{name}.{namespace}")})
                case _:
                    found.append(set())
        for (cluster, namespace, name), keys in self._behind.items():
            for number in {key // (PORTS << 8) for key in keys}:
                found[number].add((cluster, f"{name}.{namespace}"))
        return found

    def twins(self, known: Mask) -> Mask:
        """For each edge whether the same application does it in another namespace too.

        Only `known` edges tell.

        The same are workloads of one name that each talk within their own namespace, or to the
        same host outside; not to a known one, which may be another's.
        """
        seen, places = self._observed, self.namespaces()
        kinds = self._kinds()
        consumer, provider = kinds[seen.consumer], kinds[seen.provider]
        nobodys = ~self._peers.which(Role)[seen.provider]
        within = nobodys | (places[seen.consumer] == places[seen.provider])
        at_home = within & (places[seen.consumer] >= 0)
        first, alike = distinct(consumer, provider, seen.protocol, seen.port, at_home)
        others = np.bincount(alike, known, len(first))[alike] - known
        return np.asarray(at_home & (others > 0))

    def beside(self, known: Mask) -> Mask:
        """For each edge to a host outside whether the consumer has a known one next to that host.

        What is reached at several addresses, as by a name, mostly has them in one network.
        """
        seen, blocks = self._observed, self._blocks()
        _, alike = distinct(seen.consumer, blocks[seen.provider], seen.protocol, seen.port)
        usual = np.bincount(alike, known, minlength=len(seen)) > 0
        return np.asarray(usual[alike] & (blocks >= 0)[seen.provider])

    def _blocks(self) -> Numbers:
        """For each host outside a number of the network next to it, /24 or /64; else NOWHERE."""
        numbers: dict[bytes, int] = {}
        found = np.full(len(self._peers), NOWHERE, dtype=np.int64)
        for number, peer in enumerate(self._peers):
            if isinstance(peer, Outside):
                near = 15 if is_v4(peer.address) else 8
                found[number] = numbers.setdefault(peer.address[:near], len(numbers))
        return found

    def _kinds(self) -> Numbers:
        """For each peer a number that all roles of workloads of its name share."""
        numbers: dict[str, int] = {}
        found = np.arange(len(self._peers), dtype=np.int64)
        for number, role in enumerate(self._peers.roles):
            item = self._peers.snapshot.items[role.members.min()] if role.members else None
            if item is not None and item.namespace and item.workload_name != item.name:
                found[number] = numbers.setdefault(item.workload_name, number)
        return found

    def by_hand(self) -> Mask:
        """For each peer whether its pods have no owner, nor a Service before them."""
        found = np.zeros(len(self._peers), dtype=np.bool_)
        for number, role in enumerate(self._peers.roles):
            its = [self._peers.snapshot.items[at] for at in role.members]
            found[number] = bool(its) and all(
                one.kind is ItemKind.POD and one.workload_name in ("", one.name) for one in its
            )
        behind = {key // (PORTS << 8) for keys in self._behind.values() for key in keys}
        found[sorted(behind)] = False
        return found

    def namespaces(self) -> Numbers:
        """For each peer a number of its namespace, NOWHERE for those that have none."""
        numbers: dict[tuple[ClusterId, str], int] = {}
        found = np.full(len(self._peers), NOWHERE, dtype=np.int64)
        for number, role in enumerate(self._peers.roles):
            item = self._peers.snapshot.items[role.members.min()] if role.members else None
            if item is not None and item.namespace:
                place = (item.cluster, item.namespace)
                found[number] = numbers.setdefault(place, len(numbers))
        return found
