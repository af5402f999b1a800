"""A Kubernetes cluster as its policies see it: namespaces, pods and nodes with their labels.

Kubernetes' labels are case-sensitive and those of the inventory are not, so selectors are answered
here, from the labels as the objects have them.
"""

from collections.abc import Collection, Container, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Generic, TypeVar

from pyroaring import BitMap

from ringfence.inventory.living import Alteration
from ringfence.inventory.snapshot import Snapshot, View
from ringfence.model.address import Address
from ringfence.model.ids import ClusterId, ItemKey, RevisionId, item_key
from ringfence.model.labels import exact
from ringfence.model.workload import ContainerPort, Item, ItemKind
from ringfence.policy.kubernetes.policies import Nodes, Pods, Requirement, Requires, Selector

K = TypeVar("K")
V_co = TypeVar("V_co", bound=View, covariant=True)
NAMESPACE_NAME = "kubernetes.io/metadata.name"
"""The label that the API server gives every namespace: its name."""
_CLUSTER = ClusterId("cluster")
KubernetesLabels = Mapping[str, str]
_Port = tuple[int, int]
"""Protocol and number."""


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod that has not finished; `node` is the name of the one that runs it, or empty."""

    namespace: str
    name: str
    labels: KubernetesLabels
    addresses: tuple[Address, ...] = ()
    node: str = ""
    host_network: bool = False
    ports: tuple[ContainerPort, ...] = ()
    required: Selector | None = None
    """Of a pod that stands for all that a selector selects: that selector."""

    @property
    def key(self) -> ItemKey:
        """The pod's key in the cluster's inventory."""
        return item_key(_CLUSTER, ItemKind.POD, f"{self.namespace}/{self.name}")


@dataclass(frozen=True, slots=True)
class Node:
    """A node."""

    name: str
    labels: KubernetesLabels
    addresses: tuple[Address, ...] = ()

    @property
    def key(self) -> ItemKey:
        """The node's key in the cluster's inventory."""
        return item_key(_CLUSTER, ItemKind.NODE, self.name)


@dataclass(frozen=True, slots=True)
class Labelled:
    """A pod or node at a position of the inventory.

    `required` is, of a pod that stands for all that a selector selects, that selector.
    """

    position: int
    labels: KubernetesLabels
    namespace: str = ""
    required: Selector | None = None


Fact = Pods | Nodes | str
"""What the rules of a policy may depend on: a selection, or who declares ports of a name."""


class Selection(Generic[V_co]):
    """Whom selectors select in one Kubernetes cluster, as positions of a snapshot.

    A namespace that is only named by a pod has no labels. `required` are the selectors of
    namespaces that stand for all that one selects.
    """

    def __init__(
        self,
        snapshot: V_co,
        pods: Collection[Labelled],
        nodes: Iterable[Labelled],
        namespaces: Mapping[str, KubernetesLabels],
        required: Mapping[str, Selector] | None = None,
    ) -> None:
        self.snapshot = snapshot
        named: dict[str, KubernetesLabels] = {pod.namespace: {} for pod in pods}
        named.update(namespaces)
        selectors = required or {}
        self.namespaces: dict[str, KubernetesLabels] = {
            name: labels if name in selectors else {**labels, NAMESPACE_NAME: name}
            for name, labels in named.items()
        }
        own = snapshot.subjects
        mine = [pod for pod in pods if pod.position in own]
        self._pods = _LabelBitmaps((pod.position, pod.labels, pod.required) for pod in mine)
        self._nodes = _LabelBitmaps((node.position, node.labels, None) for node in nodes)
        self._number = {name: at for at, name in enumerate(sorted(self.namespaces))}
        self._spaces = _LabelBitmaps(
            (at, self.namespaces[name], selectors.get(name)) for name, at in self._number.items()
        )
        self._inside = [BitMap() for _ in self._number]
        self._declared: dict[str, dict[_Port, BitMap]] = {}
        for pod in mine:
            self._inside[self._number[pod.namespace]].add(pod.position)
            self._declare(pod.position, snapshot.items[pod.position])
        self._in_namespaces = cache(self._select_namespaces)
        self._selected: dict[Pods | Nodes, BitMap] = {}

    @property
    def subjects(self) -> BitMap:
        """The positions of pods with an address of their own."""
        return self._pods.all

    def select(self, wanted: Pods | Nodes) -> BitMap:
        """The positions of the pods, those on the host's network apart, or of the nodes."""
        if wanted not in self._selected:
            self._selected[wanted] = self._select(wanted)
        return self._selected[wanted]

    def declaring(self, name: str) -> Mapping[_Port, BitMap]:
        """By protocol and number, the pods that have a port of that name there."""
        return self._declared.get(name, {})

    def _select(self, wanted: Pods | Nodes) -> BitMap:
        if isinstance(wanted, Nodes):
            return self._nodes.select(wanted.nodes)
        return self._in_namespaces(wanted.namespaces) & self._pods.select(wanted.pods)

    def _declare(self, at: int, pod: Item) -> None:
        for port in pod.containers:
            numbers = self._declared.setdefault(port.name, {})
            numbers.setdefault((port.protocol, port.port), BitMap()).add(at)

    def _select_namespaces(self, wanted: str | Selector) -> BitMap:
        if isinstance(wanted, str):
            wanted = (Requirement(NAMESPACE_NAME, Requires.EQUALS, (wanted,)),)
        if not wanted:
            return self._pods.all.copy()
        return BitMap.union(BitMap(), *(self._inside[at] for at in self._spaces.select(wanted)))


class Cluster(Selection[Snapshot]):
    """One moment of a Kubernetes cluster that is no other's, with an inventory of its own."""

    def __init__(
        self,
        namespaces: Mapping[str, KubernetesLabels],
        pods: Iterable[Pod],
        nodes: Iterable[Node] = (),
        required: Mapping[str, Selector] | None = None,
    ) -> None:
        self.pods = {pod.key: pod for pod in pods}
        self.nodes = {node.key: node for node in nodes}
        items = [*map(_pod_item, self.pods.values()), *map(_node_item, self.nodes.values())]
        snapshot = Snapshot((RevisionId(at), item) for at, item in enumerate(items, 1))
        super().__init__(
            snapshot,
            [
                Labelled(snapshot.position(key), pod.labels, pod.namespace, pod.required)
                for key, pod in self.pods.items()
            ],
            [Labelled(snapshot.position(key), node.labels) for key, node in self.nodes.items()],
            namespaces,
            required,
        )

    def position(self, key: ItemKey) -> int:
        """The position of a pod or node, NOWHERE if it is not there."""
        return self.snapshot.position(key)


_SELECTED = (ItemKind.POD, ItemKind.NODE, ItemKind.NAMESPACE)


class LiveCluster(Selection[V_co]):
    """A Kubernetes cluster in an inventory that may hold several, and hosts beside them."""

    def __init__(self, snapshot: V_co, cluster: ClusterId) -> None:
        self.name = cluster
        held: dict[ItemKind, list[Labelled]] = {kind: [] for kind in ItemKind}
        namespaces: dict[str, KubernetesLabels] = {}
        for at, item in enumerate(snapshot.items):
            if item.cluster != cluster:
                continue
            labels = _exact(item)
            held[item.kind].append(Labelled(at, labels, item.namespace))
            if item.kind is ItemKind.NAMESPACE:
                namespaces[item.name] = labels
        super().__init__(snapshot, held[ItemKind.POD], held[ItemKind.NODE], namespaces)

    def follow(self, alterations: Iterable[Alteration]) -> set[Fact]:
        """The inventory, whose items keep their positions, has changed so; what is another now.

        Of selections that were asked for: whom they choose, or more of those than labels. Of names
        of ports: who declares them.
        """
        around, ports = set[str](), set[str]()
        others = BitMap()
        for one in alterations:
            if one.sides[0].cluster != self.name or one.kind not in _SELECTED:
                continue
            for item in one.sides:
                around.add(item.name if item.kind is ItemKind.NAMESPACE else item.namespace)
            if not one.of_labels_only:
                others.add(one.at)
                ports |= {port.name for item in one.sides for port in item.containers}
            if one.before:
                self._leave(one.at, one.before)
            if one.after:
                self._enter(one.at, one.after)
        self._in_namespaces.cache_clear()
        asked = [one for one in self._selected if around and _may_be_in(one, around)]
        before = {one: self._selected.pop(one) for one in asked}
        return {
            *ports,
            *(
                wanted
                for wanted, chosen in before.items()
                if chosen != (now := self.select(wanted)) or not now.isdisjoint(others)
            ),
        }

    def forget(self, fact: Fact) -> None:
        """Nobody depends on it any more."""
        self._selected.pop(fact, None)  # type: ignore[arg-type]

    def _leave(self, at: int, item: Item) -> None:
        if item.kind is ItemKind.NAMESPACE:
            self._name(item.name, {})
        elif item.kind is ItemKind.NODE:
            self._nodes.remove(at, _exact(item))
        elif item.kind is ItemKind.POD and not item.host_network:
            self._pods.remove(at, _exact(item))
            self._inside[self._number[item.namespace]].remove(at)
            for port in set(item.containers):
                _remove(self._declared[port.name], (port.protocol, port.port), at)

    def _enter(self, at: int, item: Item) -> None:
        if item.kind is ItemKind.NAMESPACE:
            self._name(item.name, _exact(item))
        elif item.kind is ItemKind.NODE:
            self._nodes.add(at, _exact(item))
        elif item.kind is ItemKind.POD and not item.host_network:
            if item.namespace not in self._number:
                self._name(item.namespace, {})
            self._pods.add(at, _exact(item))
            self._inside[self._number[item.namespace]].add(at)
            self._declare(at, item)

    def _name(self, namespace: str, labels: KubernetesLabels) -> None:
        """A namespace has these labels from now on; one that is gone, none but its name."""
        if namespace in self._number:
            self._spaces.remove(self._number[namespace], self.namespaces[namespace])
        else:
            self._number[namespace] = len(self._inside)
            self._inside.append(BitMap())
        self.namespaces[namespace] = {**labels, NAMESPACE_NAME: namespace}
        self._spaces.add(self._number[namespace], self.namespaces[namespace])


def _exact(item: Item) -> KubernetesLabels:
    return exact(item.labels, item.exact_labels)


def _may_be_in(wanted: Pods | Nodes, namespaces: Container[str]) -> bool:
    """Whether it selects in one of the namespaces, as far as it names one."""
    named = wanted.namespaces if isinstance(wanted, Pods) else ()
    return not isinstance(named, str) or named in namespaces


_Meaning = tuple[str, Requires, frozenset[str]]


class _LabelBitmaps:
    """Label selectors answered by bitmaps over the keys and values that there are.

    What stands for all that a selector selects meets that selector's own requirements, and others
    only on keys of which it knows the value.
    """

    def __init__(self, labelled: Iterable[tuple[int, KubernetesLabels, Selector | None]]) -> None:
        self.all = BitMap()
        self._keys: dict[str, BitMap] = {}
        self._values: dict[tuple[str, str], BitMap] = {}
        self._required: dict[_Meaning, BitMap] = {}
        self._standing = BitMap()
        for at, labels, required in labelled:
            if required is not None:
                self._standing.add(at)
            for one in required or ():
                self._required.setdefault(_meaning(one), BitMap()).add(at)
            self.add(at, labels)

    def add(self, at: int, labels: KubernetesLabels) -> None:
        self.all.add(at)
        for key, value in labels.items():
            self._keys.setdefault(key, BitMap()).add(at)
            self._values.setdefault((key, value), BitMap()).add(at)

    def remove(self, at: int, labels: KubernetesLabels) -> None:
        self.all.remove(at)
        for key, value in labels.items():
            _remove(self._keys, key, at)
            _remove(self._values, (key, value), at)

    def select(self, wanted: Selector) -> BitMap:
        found = self.all.copy()
        for requirement in wanted:
            vague = self._standing - self._keys.get(requirement.key, BitMap())
            holding = self._holding(requirement) - vague
            found = found & (holding | self._required.get(_meaning(requirement), BitMap()))
        return found

    def _holding(self, one: Requirement) -> BitMap:
        match one.operator:
            case Requires.EXISTS:
                return self._keys.get(one.key, BitMap())
            case Requires.DOES_NOT_EXIST:
                return self.all - self._keys.get(one.key, BitMap())
        among = BitMap.union(
            BitMap(), *(self._values.get((one.key, value), BitMap()) for value in one.values)
        )
        return self.all - among if one.operator is Requires.NOT_IN else among


def _remove(held: dict[K, BitMap], key: K, at: int) -> None:
    held[key].remove(at)
    if not held[key]:
        del held[key]


def _meaning(one: Requirement) -> _Meaning:
    return one.key, one.operator, frozenset(one.values)


def known_labels(selector: Selector) -> KubernetesLabels:
    """The labels that everything that the selector selects has."""
    return {one.key: one.values[0] for one in selector if one.operator is Requires.EQUALS}


def _pod_item(pod: Pod) -> Item:
    return Item(
        pod.key,
        ItemKind.POD,
        _CLUSTER,
        pod.namespace,
        pod.name,
        pod.addresses,
        {},
        node=pod.node,
        host_network=pod.host_network,
        containers=pod.ports,
    )


def _node_item(node: Node) -> Item:
    return Item(node.key, ItemKind.NODE, _CLUSTER, "", node.name, node.addresses, {})
