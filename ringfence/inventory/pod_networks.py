"""Which addresses are for a Kubernetes cluster's own pods, as its nodes tell."""

from collections import Counter
from collections.abc import Iterable

from ringfence.model.address import Address, Network, network_of
from ringfence.model.ids import ClusterId
from ringfence.model.workload import Item


class PodNetworks:
    """The pod networks of clusters; an address is looked for by prefix, of which there are few."""

    def __init__(self, items: Iterable[Item] = ()) -> None:
        self._told: dict[ClusterId, dict[int, Counter[Network]]] = {}
        for item in items:
            self.add(item)

    def add(self, item: Item) -> None:
        """A node is there; nothing comes of other items."""
        for network in item.pod_networks:
            self._alike(item.cluster, network)[network] += 1

    def remove(self, item: Item) -> None:
        """It is there no more."""
        for network in item.pod_networks:
            alike = self._alike(item.cluster, network)
            alike[network] -= 1
            if not alike[network]:
                del alike[network]

    def hold(self, cluster: ClusterId, address: Address) -> bool:
        """Whether an address is in one of a cluster's pod networks."""
        by_prefix = self._told.get(cluster, {})
        return any(network_of(address, prefix) in alike for prefix, alike in by_prefix.items())

    def _alike(self, cluster: ClusterId, network: Network) -> Counter[Network]:
        return self._told.setdefault(cluster, {}).setdefault(network.prefix, Counter())
