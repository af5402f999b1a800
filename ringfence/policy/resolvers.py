"""Whose answers tell what names mean: whoever answers chooses the addresses behind a name."""

from collections.abc import Iterator

from ringfence.inventory.snapshot import Snapshot
from ringfence.model.address import Address
from ringfence.model.ids import ClusterId
from ringfence.model.workload import ItemKind
from ringfence.policy.ends import DNS_SERVICE


def resolvers(snapshot: Snapshot, cluster: ClusterId) -> frozenset[Address]:
    """The addresses of a Kubernetes cluster's DNS Service, of its backends, and of its nodes.

    For the hosts outside, whose cluster is empty, those of hosts. No other workload is meant:
    who runs two pods could have one ask the other.
    """
    return frozenset(_resolvers(snapshot, cluster))


def _resolvers(snapshot: Snapshot, cluster: ClusterId) -> Iterator[Address]:
    for item in snapshot.items:
        if item.cluster != cluster:
            continue
        if item.kind in (ItemKind.NODE, ItemKind.HOST):
            yield from item.addresses
        elif item.service and (item.namespace, item.name) == (
            DNS_SERVICE.namespace,
            DNS_SERVICE.name,
        ):
            yield from item.addresses
            yield from (backend.address for backend in item.service.backends)
