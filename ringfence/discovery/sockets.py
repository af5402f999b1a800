"""Sockets of peers, a peer with a protocol and a port, as the inventory declares them."""

import numpy as np

from ringfence.discovery.behaviour import Numbers
from ringfence.discovery.peers import Peers
from ringfence.inventory.snapshot import NOWHERE
from ringfence.model.workload import Item

PORTS = 1 << 16
Socket = tuple[int, int, int]
"""A peer's number, a protocol and a port."""


def declared(peers: Peers) -> set[Socket]:
    """The (peer, protocol, port) on which roles say that they listen."""
    found = set()
    for number, role in enumerate(peers.roles):
        for at in role.members:
            item = peers.snapshot.items[at]
            found |= {(number, one.protocol, one.port) for one in item.containers}
            found |= {(number, protocol, port) for protocol, port in item.probe_ports}
    for at in peers.snapshot.services:
        found |= set(served(peers.snapshot.items[at], peers))
    return found


def served(item: Item, peers: Peers) -> list[Socket]:
    """The sockets of peers behind a Service."""
    found = []
    for backend in item.service.backends if item.service else ():
        at = peers.snapshot.position(backend.item) if backend.item else NOWHERE
        at = at if at != NOWHERE else peers.snapshot.at(backend.address, item.cluster)
        if at != NOWHERE:
            (peer,) = peers.providers(np.array([at])).tolist()
            found.append((peer, backend.protocol, backend.port))
    return found


def sockets(known: set[Socket]) -> Numbers:
    """Sockets as numbers, sorted."""
    if not known:
        return np.zeros(0, dtype=np.int64)
    return socket_key(*np.array(sorted(known), dtype=np.int64).T)


def socket_key(peer: Numbers, protocol: Numbers, port: Numbers) -> Numbers:
    """One number for each peer, protocol and port."""
    return (peer * 256 + protocol) * PORTS + port
