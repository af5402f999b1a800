"""What a quarantine means: absolute policies at its own workloads, ahead of every other one.

It is a workspace of one workload, of which nobody makes versions: what is allowed, then DENY in
both directions. So it is judged, explained, translated and enforced as every policy is.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from pyroaring import BitMap

from ringfence.inventory.snapshot import Snapshot, View
from ringfence.model import labels
from ringfence.model.address import Address, parse_network
from ringfence.model.errors import InputError
from ringfence.model.ids import ClusterId, PolicyId, ScopeName
from ringfence.model.policy import (
    Action,
    CatchAll,
    CidrEnd,
    End,
    FilterEnd,
    OwnNodeEnd,
    Policy,
    Rank,
    ServiceEnd,
    Workspace,
)
from ringfence.model.protocol import TCP, UDP, PortRange
from ringfence.model.quarantine import QUARANTINE, Quarantine
from ringfence.model.query import And, Compare, Operator, Or, Query
from ringfence.model.workload import Item, ItemKind
from ringfence.policy.ends import DNS_SERVICE

DNS, PROBES = "dns", "probes"
_LABEL = "[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?"
_SERVICE = re.compile(f"({_LABEL})/({_LABEL})")
"""Namespace and name are labels of DNS (RFC 1123), so no CIDR block can be taken for them."""
_MOST_LETTERS = 50_000
"""Of the names that are remembered: a longer filter could not be read again."""
_NOTHING = CatchAll(Action.DENY, Action.DENY)


def as_workspace(quarantine: Quarantine) -> Workspace:
    """The quarantine as a workspace, whose scope is named as the workload."""
    here = FilterEnd(quarantine.query)
    policies = tuple(policy for word in quarantine.allow for policy in _allowed(word, here))
    scope = ScopeName(quarantine.name)
    return Workspace(QUARANTINE, scope, True, _NOTHING, (), policies)


def check_allowed(words: Iterable[str]) -> tuple[str, ...]:
    """What may be allowed, each once; raises InputError for a word that means nothing.

    `dns`: out to the DNS Service of the Kubernetes cluster. `probes`: in from the pod's own node,
    by TCP. `namespace/name`: out to a Service. An address or a CIDR block: both ways.
    """
    checked = tuple(dict.fromkeys(words))
    for word in checked:
        tuple(_allowed(word, OwnNodeEnd()))
    return checked


def _allowed(word: str, here: End) -> Iterator[Policy]:
    def allow(
        name: str,
        consumer: End,
        provider: End,
        protocol: int | None = None,
        ports: tuple[PortRange, ...] = (),
    ) -> Policy:
        absolute = Action.ALLOW, Rank.ABSOLUTE
        return Policy(PolicyId(name), consumer, provider, protocol, ports, *absolute)

    if word == DNS:
        for name, protocol in (("dns-udp", UDP), ("dns-tcp", TCP)):
            yield allow(name, here, DNS_SERVICE, protocol, (PortRange(53, 53),))
    elif word == PROBES:
        yield allow(PROBES, OwnNodeEnd(), here, TCP)
    elif (network := _network(word)) is not None:
        yield allow(f"to {word}", here, network)
        yield allow(f"from {word}", network, here)
    else:
        named = _SERVICE.fullmatch(word)
        if named is None:
            raise InputError(
                f"{word!r} is nothing that a quarantine can allow: write {DNS}, {PROBES}, "
                "namespace/name of a Service, an address or a CIDR block"
            )
        yield allow(f"to {word}", here, ServiceEnd(*named.groups()))


def _network(word: str) -> CidrEnd | None:
    try:
        return CidrEnd((parse_network(word),))
    except InputError:
        return None


def find_workload(
    snapshot: Snapshot, workload: str, cluster: ClusterId | None
) -> tuple[ClusterId, Query]:
    """The Kubernetes cluster of a workload, and the filter that it and its replicas match.

    `namespace/name` means the pods of that name and those whose topmost owner has it, also ones
    that come later; a bare name a node or host. Raises InputError where there is none in
    `cluster`, or, for None, where several clusters have one.
    """
    namespace, _, name = workload.rpartition("/")
    kinds = (ItemKind.POD,) if namespace else (ItemKind.NODE, ItemKind.HOST)
    found = [
        item
        for item in snapshot.items
        if name
        and item.kind in kinds
        and item.namespace == namespace
        and name in _names(item)
        and cluster in (None, item.cluster)
    ]
    if not found:
        raise InputError(
            f"{workload!r} is no pod, owner of pods, node or host that the inventory knows; "
            "write namespace/name, or the name of a node or host"
        )
    clusters = sorted({item.cluster for item in found})
    if len(clusters) > 1:
        named = ", ".join(one or "none" for one in clusters)
        raise InputError(f"{workload!r} is in several Kubernetes clusters ({named}): say in which")
    if all(item.host_network for item in found):
        nodes = ", ".join(sorted({item.node for item in found}))
        raise InputError(f"{workload!r} has the network of its node: quarantine node {nodes}")
    return clusters[0], _query(found[0].kind, clusters[0], namespace, name)


def _names(item: Item) -> tuple[str, ...]:
    return (item.name, item.workload_name) if item.kind is ItemKind.POD else (item.name,)


def _query(
    kind: ItemKind, cluster: ClusterId, namespace: str, name: str, pods: Sequence[str] = ()
) -> Query:
    """What the workload matches, and pods of the namespace with those names."""

    def equal(key: str, value: str) -> Query:
        return Compare(key, Operator.EQ, (value,))

    here = [equal(labels.KIND, kind), *([equal(labels.CLUSTER, cluster)] if cluster else [])]
    named = equal(labels.NAME, name)
    if kind is not ItemKind.POD:
        return And((*here, named))
    also = [Compare(labels.NAME, Operator.IN, tuple(pods))] if pods else []
    owned = Or((named, equal(labels.OWNER_NAME, name), *also))
    return And((*here, equal(labels.NAMESPACE, namespace), owned))


def remember(snapshot: Snapshot, quarantine: Quarantine) -> Quarantine:
    """The quarantine with a filter that names the pods it holds now.

    Its owner lets go of a pod whose labels somebody changes: the pod is to stay held. Those that
    are no more are forgotten.
    """
    namespace, _, name = quarantine.workload.rpartition("/")
    if not namespace:
        return quarantine
    pods, letters = list[str](), 0
    for pod in sorted({snapshot.items[at].name for at in quarantined(snapshot, quarantine)}):
        letters += len(json.dumps(pod)) + len(", ")
        if pod != name and letters <= _MOST_LETTERS:
            pods.append(pod)
    query = _query(ItemKind.POD, quarantine.kubernetes_cluster, namespace, name, pods)
    return replace(quarantine, query=query)


def quarantined(snapshot: View, quarantine: Quarantine) -> BitMap:
    """The positions of the workloads that the quarantine holds."""
    return snapshot.chosen(quarantine.query)


def holders_of(
    snapshot: Snapshot, quarantine: Quarantine, wanted: Callable[[Item], bool]
) -> list[str]:
    """Names of those quarantined workloads of which `wanted` holds, sorted."""
    held = (snapshot.items[at] for at in quarantined(snapshot, quarantine))
    return sorted(item.display for item in held if wanted(item))


def has_any(item: Item, addresses: Iterable[Address]) -> bool:
    """Whether the item holds one of the addresses."""
    return not set(item.addresses).isdisjoint(addresses)
