"""What is known of a flow's end by its address alone: `address.type`.

It is said of ends that no item of Kubernetes holds, uploaded networks among them: what kind of
address it is, and whether a cloud's metadata service answers there. Where an API server answers is
known from its endpoints, so it is said of a node that runs one as well.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from operator import attrgetter, itemgetter

import numpy as np
from numpy.typing import NDArray

from ringfence.model.address import Address, Network, host_network, parse_address, parse_network
from ringfence.model.ids import ClusterId
from ringfence.model.labels import ADDRESS_TYPE, Labels
from ringfence.model.workload import Item, ItemKind

PUBLIC = "public"
KUBE_APISERVER = "kube-apiserver"
CLOUD_METADATA = "cloud-metadata"


def _networks(*written: str) -> tuple[Network, ...]:
    return tuple(map(parse_network, written))


def _addresses(*written: str) -> tuple[Address, ...]:
    return tuple(map(parse_address, written))


KINDS: Mapping[str, tuple[Network, ...]] = {
    # RFC 1918, RFC 6598 (shared by carriers), RFC 4193
    "private": _networks(
        "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"
    ),
    "link-local": _networks("169.254.0.0/16", "fe80::/10"),  # RFC 3927, RFC 4291
    "loopback": _networks("127.0.0.0/8", "::1/128"),  # RFC 1122, RFC 4291
    "multicast": _networks("224.0.0.0/4", "ff00::/8"),  # RFC 5771, RFC 4291
    "broadcast": _networks("255.255.255.255/32"),  # RFC 919
    "unspecified": _networks("0.0.0.0/8", "::/128"),  # RFC 1122, RFC 4291
}
"""Disjoint; every other address is PUBLIC, those for documentation too."""


def _ranges() -> tuple[tuple[Address, str], ...]:
    starts = {0: PUBLIC}
    for kind, networks in KINDS.items():
        for network in networks:
            starts[network.first] = kind
            starts.setdefault(network.last + 1, PUBLIC)
    starts.pop(1 << 128, None)
    return tuple((Address(start.to_bytes(16)), kind) for start, kind in sorted(starts.items()))


RANGES = _ranges()
"""All addresses as ranges in order: where each begins, and its kind."""

CLOUDS = _addresses(
    # AWS (EC2 user guide, "Retrieve instance metadata"), Google Cloud, Azure, Oracle and others
    "169.254.169.254",
    "fd00:ec2::254",  # AWS over IPv6 (the same page)
    "168.63.129.16",  # Azure (learn.microsoft.com, "What is IP address 168.63.129.16?")
    "100.100.100.200",  # Alibaba Cloud (ECS user guide, "Instance metadata")
)
"""Where clouds' metadata services answer; they are of a kind besides."""

NO_HOSTS = (
    *(network for kind, networks in KINDS.items() if kind != "private" for network in networks),
    *map(host_network, CLOUDS),
)
"""What is said there stays on the link or the node, goes to groups, or to the cloud itself."""

TYPES = (*KINDS, PUBLIC, CLOUD_METADATA, KUBE_APISERVER)


MOST_API_SERVERS = 256
"""How many API servers of one Kubernetes cluster count, the latest: connectors tell of them."""
_API_SERVICE = ("default", "kubernetes")
"""Namespace and name of the Service whose endpoints the API servers keep, each its own."""


@dataclass(frozen=True, slots=True, order=True)
class ApiServer:
    """An address at which a Kubernetes cluster's API server answered in [from_ns, to_ns)."""

    cluster: ClusterId
    address: Address
    from_ns: int
    to_ns: int


@lru_cache(maxsize=65_536)
def address_types(address: Address) -> tuple[str, ...]:
    """What the address says by itself, sorted."""
    _, kind = RANGES[bisect_right(RANGES, address, key=itemgetter(0)) - 1]
    return tuple(sorted((kind, CLOUD_METADATA) if address in CLOUDS else (kind,)))


def is_outside(item: Item | None) -> bool:
    """Whether an end's item is none of Kubernetes, so that its address says what it is."""
    return item is None or item.kind is ItemKind.NETWORK


def labels_of(item: Item | None, address: Address, *, api_server: bool) -> Labels:
    """All labels of a flow's end, `address.type` among them."""
    types = address_types(address) if is_outside(item) else ()
    if api_server:
        types = tuple(sorted((*types, KUBE_APISERVER)))
    own: Labels = item.labels if item else {}
    return dict(sorted({**own, ADDRESS_TYPE: types}.items())) if types else own


def api_addresses(item: Item) -> frozenset[Address]:
    """Where API servers answer, if it is their Service; without those that are pods."""
    if item.service is None or (item.namespace, item.name) != _API_SERVICE:
        return frozenset()
    return frozenset(one.address for one in item.service.backends if one.item is None)


def _joined(known: Iterable[ApiServer]) -> list[ApiServer]:
    """Lives at one address that follow each other as one; none that is void."""
    joined: list[ApiServer] = []
    for one in sorted(one for one in known if one.from_ns < one.to_ns):
        last = joined[-1] if joined else one
        same = (last.cluster, last.address) == (one.cluster, one.address)
        if joined and same and last.to_ns >= one.from_ns:
            joined[-1] = replace(last, to_ns=max(last.to_ns, one.to_ns))
        else:
            joined.append(one)
    return joined


def _latest(known: Iterable[ApiServer]) -> tuple[ApiServer, ...]:
    """The latest MOST_API_SERVERS of each Kubernetes cluster."""
    counts: Counter[ClusterId] = Counter()
    kept = []
    for one in sorted(known, key=attrgetter("to_ns"), reverse=True):
        counts[one.cluster] += 1
        if counts[one.cluster] <= MOST_API_SERVERS:
            kept.append(one)
    return tuple(kept)


class ApiServers:
    """Where and when API servers answered, each in the eyes of its own Kubernetes cluster."""

    def __init__(self, known: Iterable[ApiServer]) -> None:
        self.known: Sequence[ApiServer] = _latest(_joined(known))
        self._at: dict[tuple[str, bytes], list[ApiServer]] = {}
        for one in self.known:
            self._at.setdefault((one.cluster, one.address), []).append(one)

    def answered(self, cluster: str, address: bytes, at_ns: int) -> bool:
        """Whether one of the cluster answered there at that time."""
        lives = self._at.get((cluster, address), ())
        return any(one.from_ns <= at_ns < one.to_ns for one in lives)

    def among(
        self,
        clusters: NDArray[np.str_],
        addresses: NDArray[np.uint8],
        times_ns: NDArray[np.int64],
    ) -> NDArray[np.bool_]:
        """The same of n rows, addresses in shape (n, 16)."""
        found = np.zeros(len(times_ns), dtype=np.bool_)
        for one in self.known:
            there = (addresses == np.frombuffer(one.address, dtype=np.uint8)).all(axis=1)
            then = (one.from_ns <= times_ns) & (times_ns < one.to_ns)
            found |= there & then & (clusters == one.cluster)
        return found
