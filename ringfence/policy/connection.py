"""Connections to be judged, many at a time, as columns."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from ringfence.inventory.seen_from import SeenFrom
from ringfence.inventory.snapshot import NOWHERE, Snapshot
from ringfence.model.address import Address
from ringfence.model.ids import NO_CLUSTER, ClusterId


@dataclass(frozen=True)
class Connections:
    """n connections, each told from its first hop to its last.

    Positions are those of the `Snapshot` that they are judged by, NOWHERE where no item holds
    the address. A host-network pod stands as its node.
    """

    protocol: NDArray[np.uint8]
    consumer: NDArray[np.uint8]
    """Address before source NAT, shape (n, 16)."""
    consumer_item: NDArray[np.int32]
    provider: NDArray[np.uint8]
    """Address after destination NAT, shape (n, 16)."""
    provider_port: NDArray[np.uint16]
    provider_item: NDArray[np.int32]
    dialled: NDArray[np.uint8]
    """Address before destination NAT, shape (n, 16); the provider's where there was none."""
    dialled_port: NDArray[np.uint16]
    node_item: NDArray[np.int32]
    """The receiving node of a NodePort or LoadBalancer connection, else NOWHERE."""

    def __len__(self) -> int:
        """The number of connections."""
        return len(self.protocol)

    def take(self, rows: NDArray[np.intp] | Sequence[int]) -> "Connections":
        """Some of the connections."""
        return Connections(*(getattr(self, column.name)[rows] for column in fields(self)))


@dataclass(frozen=True, slots=True)
class Connection:
    """One connection, told by addresses as in `Connections`; `node` is None where no node received.

    Where no destination NAT takes place, `dialled` and its port are the provider's. `home` is the
    Kubernetes cluster in which it is seen: of two that use one address it tells whose is meant.
    """

    protocol: int
    consumer: Address
    provider: Address
    provider_port: int
    dialled: Address
    dialled_port: int
    node: Address | None = None
    home: ClusterId = NO_CLUSTER


def tabulate(snapshot: Snapshot, connections: Sequence[Connection]) -> Connections:
    """The connections as columns, their items found by address. For few: it walks them all."""

    def addresses(held: list[Address]) -> NDArray[np.uint8]:
        return np.frombuffer(b"".join(held), dtype=np.uint8).reshape(-1, 16)

    consumer = addresses([one.consumer for one in connections])
    provider = addresses([one.provider for one in connections])
    homes = [one.home for one in connections]
    seen_from = SeenFrom.of(homes, np.arange(len(homes)))
    nodes = [
        NOWHERE if one.node is None else snapshot.at(one.node, one.home) for one in connections
    ]
    return Connections(
        protocol=np.array([one.protocol for one in connections], dtype=np.uint8),
        consumer=consumer,
        consumer_item=snapshot.locate(consumer, seen_from),
        provider=provider,
        provider_port=np.array([one.provider_port for one in connections], dtype=np.uint16),
        provider_item=snapshot.locate(provider, seen_from),
        dialled=addresses([one.dialled for one in connections]),
        dialled_port=np.array([one.dialled_port for one in connections], dtype=np.uint16),
        node_item=np.array(nodes, dtype=np.int32),
    )
