"""What connectors and agents claim, held to what they may speak of.

A client speaks for its own Kubernetes cluster or node alone: whoever takes one over must not
change what policies mean elsewhere.
"""

import ipaddress
from collections.abc import Iterable, Iterator
from dataclasses import replace

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ringfence.control.agents import NodeKey
from ringfence.control.times import Window
from ringfence.flows.dns import LONGEST_NAME
from ringfence.inventory.timeline import Timeline
from ringfence.model import labels
from ringfence.model.address import Address, format_address
from ringfence.model.errors import InputError
from ringfence.model.ids import ClusterId, ItemKey
from ringfence.model.manifest import Metadata, parse_manifest
from ringfence.model.workload import Item, ItemKind
from ringfence.policy.kubernetes.manifests import is_policy

MOST_NODE_ADDRESSES = 1024
"""How many addresses a node may have."""
_ADDRESS_BYTES = 16


_MOST_AHEAD_NS = 24 * 3600 * 10**9
"""How far behind its window's end a row may be: clocks are set, but not by days."""


def own_times(flows: pa.Table, window: Window, kept_ns: int) -> None:
    """Hold the rows of a batch (`wire.batch.FLOWS`) to its window; raises InputError.

    What was counted while no agent ran may be long before its window, but not before what is kept.
    """
    for name in ("first_ns", "last_ns"):
        at_ns = np.asarray(flows[name])
        early, late = at_ns < window.end_ns - kept_ns, at_ns > window.end_ns + _MOST_AHEAD_NS
        if (early | late).any():
            raise InputError("a batch has rows far away from its window; is a clock wrong?")


_LONGEST = {"provider_dns_name": LONGEST_NAME} | {
    f"{end}_{what}": longest
    for end in ("consumer", "provider")
    # The kernel's TASK_COMM_LEN with room to spare, and Kubernetes' longest name of anything.
    for what, longest in (("process", 64), ("container", 253))
}
"""Bytes of each column of names."""


def short_names(flows: pa.Table) -> None:
    """Hold the rows of a batch to names that DNS, the kernel or Kubernetes could have told.

    Raises InputError.
    """
    for name, longest in _LONGEST.items():
        if (pc.max(pc.binary_length(flows[name])).as_py() or 0) > longest:
            raise InputError(f"a batch has a {name} of more than {longest} bytes")
    for end in ("consumer", "provider"):
        # Which is what sets a container's name off from its process's, where they are stored.
        if pc.any(pc.match_substring(flows[f"{end}_container"], "/")).as_py():
            raise InputError(f"a batch has a {end}_container with a slash, which no name has")


def own_key(cluster: ClusterId, key: str) -> ItemKey:
    """The key of an item of the connector's cluster; raises InputError."""
    if not key.startswith(f"{cluster}/"):
        raise InputError(f"item {key!r} lies outside {cluster!r}")
    return ItemKey(key)


def own_item(cluster: ClusterId, data: bytes) -> Item:
    """An item of the connector's cluster, from JSON; raises InputError.

    Labels that follow from the item are not taken from the client, nor are those of a source
    other than Kubernetes.
    """
    try:
        item = msgspec.json.decode(data, type=Item)
    except msgspec.MsgspecError as error:
        raise InputError(f"not an inventory item: {error}") from error
    own_key(cluster, item.key)
    if item.kind is ItemKind.NETWORK or item.network is not None:
        raise InputError(f"item {item.key!r}: networks are what people say, not a connector")
    if item.kind is ItemKind.KUBERNETES_POLICY:
        item = _own_policy(item)
    if item.cluster != cluster:
        raise InputError(f"item {item.key!r} lies outside {cluster!r}")
    for backend in item.service.backends if item.service else ():
        if backend.item is not None:
            own_key(cluster, backend.item)
    claimed = {
        key: values
        for key, values in item.labels.items()
        if key.startswith(labels.KUBERNETES_PREFIX) and key not in _DERIVED
    }
    return replace(item, labels=claimed | labels.make_labels(_derived(item)))


def _own_policy(item: Item) -> Item:
    """The policy, with a manifest that says in its own place what it says."""
    if item.addresses or item.service:
        raise InputError(f"item {item.key!r}: a policy has no addresses")
    told = parse_manifest(item.manifest)
    if not is_policy(told.api_version, told.kind):
        raise InputError(f"item {item.key!r}: {told.kind!r} is no kind of policy")
    told.metadata = Metadata(item.name, item.namespace)
    return replace(item, manifest=str(told))


_DERIVED = frozenset({labels.CLUSTER, labels.NAMESPACE, labels.NODE})
"""Of Kubernetes' labels those that follow from the item."""


def _derived(item: Item) -> Iterator[tuple[str, str]]:
    namespace = item.name if item.kind is ItemKind.NAMESPACE else item.namespace
    yield labels.CLUSTER, item.cluster
    yield labels.KIND, item.kind
    yield labels.NAME, item.name
    for key, value in ((labels.NAMESPACE, namespace), (labels.NODE, item.node)):
        if value:
            yield key, value
    for address in item.addresses:
        yield labels.ADDRESS, format_address(address)


def own_addresses(
    timeline: Timeline, node: NodeKey, reported: Iterable[bytes]
) -> tuple[tuple[Address, ...], str]:
    """The addresses that may be the node's, and what was refused and why (empty for nothing).

    An address that another item holds would make that item's traffic the node's.
    """
    addresses = {Address(one) for one in reported if len(one) == _ADDRESS_BYTES}
    own, refused = [], []
    for address in sorted(addresses):
        held = timeline.holders(address)
        if timeline.is_pods(node[0], address):  # other clusters may have equal pod networks
            held = [item for item in held if item.cluster == node[0]]
        others = [item for item in held if not _stands_for(item, node)]
        if others:
            holder = f"{others[0].kind} {others[0].display}"
            refused.append(f"{format_address(address)} belongs to {holder}")
        elif _is_unicast(address):
            own.append(address)
    if len(own) > MOST_NODE_ADDRESSES:
        refused.append(f"{len(own)} addresses are more than the {MOST_NODE_ADDRESSES} of a node")
    return tuple(own[:MOST_NODE_ADDRESSES]), "; ".join(refused)


def _is_unicast(address: Address) -> bool:
    read = ipaddress.ip_address(format_address(address))
    return not (read.is_unspecified or read.is_loopback or read.is_multicast)


def _stands_for(item: Item, node: NodeKey) -> bool:
    """Whether it is the node itself, or a pod in its network."""
    if item.kind is ItemKind.NODE:
        return (item.cluster, item.name) == node
    return item.host_network and (item.cluster, item.node) == node
