"""To whom workloads of a folder are exposed that the folder does not show.

Each selector of a policy stands for the pods that it may select one day; the whole cluster for a
pod of which nothing is known. Told of a selector is what differs from the whole cluster.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ringfence.model.policy import Direction
from ringfence.policy.kubernetes.cluster import (
    NAMESPACE_NAME,
    Cluster,
    KubernetesLabels,
    Pod,
    known_labels,
)
from ringfence.policy.kubernetes.policies import (
    KubernetesPolicy,
    Pods,
    Requirement,
    Requires,
    Selector,
)

ENTIRE_CLUSTER = "entire-cluster"
_ANYWHERE = "any namespace"
"""No real namespace has a blank in its name."""


@dataclass(frozen=True, slots=True)
class Exposure:
    """What `workload` may open to `peer` (outbound) or `peer` to it (inbound)."""

    workload: str
    peer: str
    connections: str


@dataclass(frozen=True, slots=True)
class Representative:
    """A pod that some selector selects; `display` is the selector in words."""

    display: str
    pod: Pod


@dataclass(frozen=True)
class Representatives:
    """One for each selector of some policies, with the namespaces that they are in."""

    pods: Sequence[Representative] = ()
    namespaces: Mapping[str, KubernetesLabels] = field(default_factory=dict)
    required: Mapping[str, Selector] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ExposureReport:
    """All exposures, and the (workload, direction) pairs that no policy governs."""

    exposures: Mapping[Direction, Sequence[Exposure]]
    unprotected: Sequence[tuple[str, Direction]]


def representatives(policies: Iterable[KubernetesPolicy], cluster: Cluster) -> Representatives:
    """Anybody, then one for each peer of the policies' rules, in the order of their words.

    Left out are pods told by labels that a pod of `cluster` has: that one is there to be told of.
    """
    peers = {
        peer
        for policy in policies
        for rule in policy.rules
        for peer in rule.peers or ()
        if isinstance(peer, Pods) and (peer.namespaces or peer.pods)
    }
    # Of two selectors that mean the same, the one of labels is told.
    distinct: dict[Pods, Pods] = {}
    for peer in sorted(peers, key=display):
        distinct.setdefault(Pods(_exact(peer.namespaces), _exact(peer.pods)), peer)
    found = [Representative(ENTIRE_CLUSTER, Pod(_ANYWHERE, "anybody", {}, required=()))]
    required: dict[str, Selector] = {_ANYWHERE: ()}
    for exact, peer in distinct.items():
        labelled = peer.pods and all(one.operator is Requires.EQUALS for one in peer.pods)
        if peer.namespaces and labelled and cluster.select(peer):
            continue
        text, namespace = display(peer), f"namespace {len(found)}"
        as_written = () if isinstance(peer.namespaces, str) else peer.namespaces
        required[namespace] = (*as_written, *_exact(peer.namespaces))
        pods = (*peer.pods, *exact.pods)
        pod = Pod(namespace, text, known_labels(peer.pods), required=pods)
        found.append(Representative(text, pod))
    namespaces = {name: known_labels(selector) for name, selector in required.items()}
    return Representatives(found, namespaces, required)


def _exact(selector: str | Selector) -> Selector:
    """The selector, alike for all that mean the same: one value is that of a label."""
    if isinstance(selector, str):
        return (Requirement(NAMESPACE_NAME, Requires.EQUALS, (selector,)),)
    exact = (
        Requirement(one.key, Requires.EQUALS, one.values)
        if one.operator is Requires.IN and len(one.values) == 1
        else Requirement(one.key, one.operator, tuple(sorted(one.values)))
        for one in selector
    )
    return tuple(sorted(exact))


def display(peer: Pods) -> str:
    """The peer in words: `shop/[pod with {app=web}]`."""
    name = _single_namespace(peer.namespaces)
    if name is None:
        selector = peer.namespaces
        name = f"[namespace with {_words(selector)}]" if selector else "[all namespaces]"
    return f"{name}/" + (f"[pod with {_words(peer.pods)}]" if peer.pods else "[all pods]")


def _single_namespace(wanted: str | Selector) -> str | None:
    if isinstance(wanted, str):
        return wanted
    if len(wanted) == 1 and wanted[0].key == NAMESPACE_NAME:
        return known_labels(wanted).get(NAMESPACE_NAME)
    return None


def _words(selector: str | Selector) -> str:
    parts = [
        f"{one.key}={one.values[0]}"
        if one.operator is Requires.EQUALS
        else f"{{Key:{one.key},Operator:{one.operator},Values:[{' '.join(one.values)}],}}"
        for one in selector
        if not isinstance(one, str)
    ]
    return "{" + ",".join(parts) + "}"
