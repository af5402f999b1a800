"""Which lives of a timeline had which address, and whose that makes it as a cluster sees it."""

from collections.abc import Callable, Iterable, Iterator

from ringfence.inventory.holders import Holding, Segments, segments
from ringfence.model.address import Address, Network, network_of
from ringfence.model.ids import NO_CLUSTER, ClusterId, RevisionId
from ringfence.model.workload import Item

_NEVER_HELD = segments((), NO_CLUSTER)


class Held:
    """Rows of lives by address; `holding` tells what one is by now. Not thread-safe."""

    def __init__(self, holding: Callable[[int], Holding]) -> None:
        self._holding = holding
        self._rows: dict[Address, list[int]] = {}
        self._of_pod_networks: dict[ClusterId, dict[int, dict[Network, list[int]]]] = {}
        """By prefix; who tells of each."""
        self._segments: dict[Address, dict[ClusterId, Segments]] = {}
        """As seen from each Kubernetes cluster that asked."""
        self._abroad: set[Address] = set()
        """Those of them that pod networks may bring home."""

    def add(self, row: int, item: Item) -> None:
        """A life that began."""
        for address in item.addresses:
            self._rows.setdefault(address, []).append(row)
        for network in item.pod_networks:
            of_cluster = self._of_pod_networks.setdefault(item.cluster, {})
            of_cluster.setdefault(network.prefix, {}).setdefault(network, []).append(row)

    def forget(self, item: Item) -> None:
        """Who held the item's addresses when has to be worked out again."""
        for address in item.addresses:
            self._segments.pop(address, None)
        if item.pod_networks:
            for address in self._abroad:
                self._segments.pop(address, None)
            self._abroad.clear()

    def rows(self, address: Address) -> Iterable[int]:
        """The lives that had the address."""
        return self._rows.get(address, ())

    def segments(self, address: Address, home: ClusterId) -> Segments:
        """Whose the address was when, as a Kubernetes cluster sees it."""
        if address not in self._rows:  # most of the addresses that there are
            return _NEVER_HELD
        seen = self._segments.setdefault(address, {})
        if home not in seen:
            held = [self._holding(row) for row in self._rows[address]]
            if any(one.cluster != home for one in held):
                self._abroad.add(address)
                held += self.around(address, home)
            seen[home] = segments(held, home)
        return seen[home]

    def around(self, address: Address, home: ClusterId) -> Iterator[Holding]:
        """When a Kubernetes cluster's pod networks had the address: as nobody's."""
        for prefix, networks in self._of_pod_networks.get(home, {}).items():
            for row in networks.get(network_of(address, prefix), ()):
                one = self._holding(row)
                yield Holding(one.from_ns, one.to_ns, RevisionId(0), shared=True, cluster=home)
