"""Connections to be judged, many at a time, as columns."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


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
    """The receiving node of a NodePort, LoadBalancer or hostPort connection, else NOWHERE."""

    def __len__(self) -> int:
        """The number of connections."""
        return len(self.protocol)
