"""Whom load balancers serve: the source ranges of Services, as kube-proxy holds them."""

import numpy as np
from numpy.typing import NDArray

from ringfence.inventory.snapshot import Snapshot
from ringfence.model.address import Address, Network
from ringfence.model.workload import Item
from ringfence.policy.connection import Connections

_ADDRESS = "S16"
"""Addresses as elements that numpy compares as numbers."""
Socket = tuple[Address, int, int]
"""Address, protocol and port."""


class Balancers:
    """The sockets of an inventory's load balancers that are not served from everywhere."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._limited: dict[Socket, tuple[Item, tuple[Network, ...]]] = {}
        for position in snapshot.services:
            item = snapshot.items[position]
            for address in item.service.balancer_addresses if item.service else ():
                networks = item.service.served_from(address) if item.service else ()
                for port in item.service.ports if item.service and networks else ():
                    self._limited[address, port.protocol, port.port] = item, networks

    def keep_out(self, connections: Connections) -> NDArray[np.bool_]:
        """Which connections come from outside the source ranges of what they dial."""
        found = np.zeros(len(connections), dtype=np.bool_)
        if not self._limited:
            return found
        dialled = _packed(connections.dialled)
        rows = np.flatnonzero(np.isin(dialled, [_bytes(address) for address, *_ in self._limited]))
        consumer, dialled = _packed(connections.consumer[rows]), dialled[rows]
        protocol, port = connections.protocol[rows], connections.dialled_port[rows]
        for (address, of_protocol, at), (_, networks) in self._limited.items():
            asked = (dialled == _bytes(address)) & (protocol == of_protocol) & (port == at)
            for one in networks:
                asked &= (consumer < _bytes(one.first)) | (consumer > _bytes(one.last))
            found[rows] |= asked
        return found

    def at(self, address: Address, protocol: int, port: int) -> tuple[Item, tuple[Network, ...]]:
        """The Service that is dialled so and from where it is served; raises KeyError for none."""
        return self._limited[address, protocol, port]


def _packed(addresses: NDArray[np.uint8]) -> NDArray[np.bytes_]:
    """Each address as one element, in shape (n,)."""
    return np.ascontiguousarray(addresses).view(_ADDRESS).reshape(-1)


def _bytes(address: Address | int) -> np.bytes_:
    packed = address.to_bytes(16) if isinstance(address, int) else address
    return np.frombuffer(packed, dtype=_ADDRESS)[0]  # type: ignore[no-any-return]
