"""Where an address was seen, and so whose it is.

Kubernetes clusters may use equal networks: what the own cluster of the agent that saw an address
holds counts first.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ringfence.model.ids import NO_CLUSTER, ClusterId


@dataclass(frozen=True)
class SeenFrom:
    """The Kubernetes clusters whose agents saw n rows, and which of them each row is of.

    NO_CLUSTER: an agent on a host, or one that nobody told of.
    """

    clusters: Sequence[ClusterId]
    which: NDArray[np.integer]

    @classmethod
    def of(cls, clusters: Sequence[ClusterId], which: NDArray[np.integer]) -> "SeenFrom":
        """The same with each of the clusters once."""
        number = {cluster: at for at, cluster in enumerate(dict.fromkeys(clusters))}
        codes = np.array([number[cluster] for cluster in clusters], dtype=np.int32)
        return cls(tuple(number), codes[which])

    @classmethod
    def one(cls, cluster: ClusterId, count: int) -> "SeenFrom":
        """All rows were seen from one cluster."""
        return cls((cluster,), np.zeros(count, dtype=np.int32))

    def tile(self, count: int) -> "SeenFrom":
        """The same rows, so many times."""
        return SeenFrom(self.clusters, np.tile(self.which, count))

    def take(self, rows: NDArray[Any]) -> "SeenFrom":
        """Some of the rows."""
        return SeenFrom(self.clusters, self.which[rows])

    def distinct(self, addresses: NDArray[np.uint8]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """A row of each distinct address and cluster, sorted by these, and which each row is."""
        keys = np.ascontiguousarray(self.beside(addresses))
        _, places, which = np.unique(
            keys.view(f"V{keys.shape[1]}").ravel(), return_index=True, return_inverse=True
        )
        return places, which

    def beside(self, addresses: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Rows' addresses, shape (n, 16), each with what tells its cluster apart."""
        if len(self.clusters) == 1:
            return addresses
        codes = np.ascontiguousarray(self.which, dtype=np.int32).view(np.uint8)
        return np.concatenate([addresses, codes.reshape(-1, 4)], axis=1)


def meant(
    holding: Collection[ClusterId], home: ClusterId, *, owned: bool = False
) -> tuple[ClusterId, ...]:
    """Of the clusters that hold an address those whose it may be as seen from `home`.

    `home` itself and none, who share their addresses; else another one. No cluster's where several
    others hold it, or where the address is `owned`: in one of the pod networks of `home`.
    """
    near = tuple(one for one in dict.fromkeys((home, NO_CLUSTER)) if one in holding)
    return near if near or owned or len(set(holding)) != 1 else tuple(holding)
