"""Many watches joined into one inventory: an item is made of several objects, in any order.

A pod's item needs its namespace's labels and its ReplicaSet's owner, a Service's its
EndpointSlices. Objects are kept as they come; what may have changed is rendered again, and only
what did change is told.
"""

from collections import ChainMap
from collections.abc import Iterator
from typing import Any, TypeVar

from ringfence.kube import schema
from ringfence.kube.objects import (
    controller,
    namespace_item,
    node_item,
    owner_of,
    pod_hosts,
    pod_item,
    policy_item,
)
from ringfence.kube.references import Place, places
from ringfence.kube.routes import Route, backends
from ringfence.kube.services import SERVICE_NAME_LABEL, service_item
from ringfence.kube.watch import (
    ENDPOINT_SLICES,
    HTTP_ROUTES,
    INGRESSES,
    JOBS,
    NAMESPACES,
    NODES,
    PODS,
    POLICIES,
    REPLICA_SETS,
    SERVICES,
    Event,
    Kind,
    Listed,
    Put,
    Removed,
)
from ringfence.model.ids import ClusterId, ItemKey, item_key
from ringfence.model.workload import Item, ItemKind

WATCHED: tuple[Kind[Any], ...] = (
    NAMESPACES,
    NODES,
    REPLICA_SETS,
    JOBS,
    PODS,
    SERVICES,
    ENDPOINT_SLICES,
    INGRESSES,
    HTTP_ROUTES,
    *POLICIES,
)
"""Everything that the inventory is made of; the ClusterRole grants list and watch on just this."""

_POLICIES = {kind.resource.name: kind for kind in POLICIES}
KeyT = TypeVar("KeyT")
ObjectT = TypeVar("ObjectT")


class Join:
    """The inventory of one Kubernetes cluster, kept current by `apply`.

    Nothing is told before every watched resource was listed once.
    """

    def __init__(self, cluster: ClusterId, annotations: tuple[str, ...]) -> None:
        self._cluster = cluster
        self._annotations = annotations
        self._objects: dict[str, dict[str, Any]] = {}
        self._namespaces: dict[str, schema.Bare] = {}
        self._services: dict[Place, schema.Service] = {}
        self._slices: dict[Place, dict[str, schema.EndpointSlice]] = {}
        self._routes: dict[Place, dict[str, Route]] = {}
        self._owned: dict[str, set[str]] = {}
        self._naming: dict[Place, set[str]] = {}
        """Pods whose environment may refer to a Service."""
        self._stale: set[tuple[ItemKind, str]] = set()
        self.items: dict[ItemKey, Item] = {}
        """What was told so far."""

    @property
    def complete(self) -> bool:
        """Whether every watched resource has been listed."""
        return len(self._objects) == len(WATCHED)

    def apply(self, kind: Kind[Any], event: Event[Any]) -> None:
        """Take up what a watch said."""
        held = self._objects.get(kind.resource.name, {})
        match event:
            case Listed(objects):
                self._objects.setdefault(kind.resource.name, held)
                present = {listed.metadata.uid for listed in objects}
                for uid in held.keys() - present:
                    self._change(kind, held.pop(uid), None)
                for listed in objects:
                    self._change(kind, held.get(listed.metadata.uid), listed)
                    held[listed.metadata.uid] = listed
            case Put(seen):
                self._change(kind, held.get(seen.metadata.uid), seen)
                held[seen.metadata.uid] = seen
            case Removed(seen):
                self._change(kind, held.pop(seen.metadata.uid, seen), None)

    def changes(self) -> list[tuple[ItemKey, Item | None]]:
        """What is new since the last call: items created or changed, and None for those gone."""
        if not self.complete:
            return []
        stale, self._stale = sorted(self._stale), set()
        told: list[tuple[ItemKey, Item | None]] = []
        for kind, uid in stale:
            key = item_key(self._cluster, kind, uid)
            item = self._render(kind, uid)
            if item is None:
                if self.items.pop(key, None) is not None:
                    told.append((key, None))
            elif self.items.get(key) != item:
                self.items[key] = item
                told.append((key, item))
        return told

    def _change(self, kind: Kind[Any], old: Any, new: Any) -> None:
        """Note which items an object's change from `old` to `new` (None: absent) may change."""
        meta: schema.Metadata = (new or old).metadata
        match kind.resource.name:
            case "pods":
                self._index_owned(old, new)
                self._index_naming(old, new)
                self._stale.add((ItemKind.POD, meta.uid))
            case "nodes":
                self._stale.add((ItemKind.NODE, meta.uid))
            case "services":
                self._index_service(old, new)
                self._stale.add((ItemKind.SERVICE, meta.uid))
            case "endpointslices":
                self._index_slices(old, new)
            case "ingresses" | "httproutes":
                self._index_routes(old, new)
            case "namespaces":
                self._index_namespace(old, new)
                self._stale.add((ItemKind.NAMESPACE, meta.uid))
            case name if name in _POLICIES:
                self._stale.add((ItemKind.KUBERNETES_POLICY, meta.uid))
            case _:  # ReplicaSets and Jobs: owners that have owners
                owners = [controller(one.metadata) if one else None for one in (old, new)]
                if owners[0] != owners[1]:
                    owned = self._owned.get(meta.uid, ())
                    self._stale.update((ItemKind.POD, uid) for uid in owned)

    def _index_owned(self, old: schema.Pod | None, new: schema.Pod | None) -> None:
        for pod in filter(None, (old, new)):
            owner = controller(pod.metadata)
            if owner is None:
                continue
            _mark(self._owned, owner.uid, pod.metadata.uid, present=pod is new)

    def _index_naming(self, old: schema.Pod | None, new: schema.Pod | None) -> None:
        for pod in filter(None, (old, new)):
            for place in places(pod_hosts(pod), pod.metadata.namespace):
                _mark(self._naming, place, pod.metadata.uid, present=pod is new)

    def _index_service(self, old: schema.Service | None, new: schema.Service | None) -> None:
        meta = _either(old, new).metadata
        place = (meta.namespace, meta.name)
        _set(self._services, place, new)
        if old is None or new is None:
            self._stale.update((ItemKind.POD, uid) for uid in self._naming.get(place, ()))

    def _index_namespace(self, old: schema.Bare | None, new: schema.Bare | None) -> None:
        name = _either(old, new).metadata.name
        _set(self._namespaces, name, new)
        if old is None or new is None or old.metadata.labels != new.metadata.labels:
            self._stale.update(self._within(name))

    def _index_routes(self, old: Route | None, new: Route | None) -> None:
        for one in (old, new):
            if one is None:
                continue
            for place, _ in backends(one):
                _put(self._routes, place, one.metadata.uid, one if one is new else None)
                self._stale_service(place)

    def _index_slices(
        self, old: schema.EndpointSlice | None, new: schema.EndpointSlice | None
    ) -> None:
        for one in filter(None, (old, new)):
            meta = one.metadata
            place = (meta.namespace, (meta.labels or {}).get(SERVICE_NAME_LABEL, ""))
            _put(self._slices, place, meta.uid, one if one is new else None)
            self._stale_service(place)

    def _stale_service(self, place: Place) -> None:
        service = self._services.get(place)
        if service is not None:
            self._stale.add((ItemKind.SERVICE, service.metadata.uid))

    def _within(self, namespace: str) -> Iterator[tuple[ItemKind, str]]:
        for kind, name in ((ItemKind.POD, "pods"), (ItemKind.SERVICE, "services")):
            for uid, held in self._objects.get(name, {}).items():
                if held.metadata.namespace == namespace:
                    yield kind, uid

    def _render(self, kind: ItemKind, uid: str) -> Item | None:
        if kind is ItemKind.KUBERNETES_POLICY:
            return self._render_policy(uid)
        held = self._objects[f"{kind}s"].get(uid)
        if held is None:
            return None
        namespace = self._namespaces.get(held.metadata.namespace)
        match kind:
            case ItemKind.POD:
                parents = ChainMap(self._objects["replicasets"], self._objects["jobs"])
                owner = owner_of(held, parents)
                return pod_item(
                    self._cluster, held, namespace, owner, self._annotations, self._services
                )
            case ItemKind.SERVICE:
                place = (held.metadata.namespace, held.metadata.name)
                slices, routes = self._slices.get(place, {}), self._routes.get(place, {})
                return service_item(
                    self._cluster,
                    held,
                    slices.values(),
                    namespace,
                    self._annotations,
                    routes.values(),
                )
            case ItemKind.NODE:
                return node_item(self._cluster, held, self._annotations)
            case _:
                return namespace_item(self._cluster, held, self._annotations)

    def _render_policy(self, uid: str) -> Item | None:
        for name, kind in _POLICIES.items():
            if uid in self._objects[name]:
                policy = self._objects[name][uid]
                version = policy.api_version or kind.resource.api_version
                return policy_item(self._cluster, version, kind.name, policy)
        return None


def _either(old: ObjectT | None, new: ObjectT | None) -> ObjectT:
    one = new if new is not None else old
    assert one is not None
    return one


def _put(
    held: dict[Place, dict[str, ObjectT]], place: Place, uid: str, new: ObjectT | None
) -> None:
    """Put among a place's objects, or take away where it is None."""
    objects = held.setdefault(place, {})
    _set(objects, uid, new)
    if not objects:
        del held[place]


def _mark(held: dict[KeyT, set[str]], key: KeyT, uid: str, *, present: bool) -> None:
    """Put into a key's set, or take out of it."""
    marked = held.setdefault(key, set())
    if present:
        marked.add(uid)
    else:
        marked.discard(uid)
        if not marked:
            del held[key]


def _set(held: dict[KeyT, ObjectT], key: KeyT, new: ObjectT | None) -> None:
    """Put, or take away where it is None."""
    if new is None:
        held.pop(key, None)
    else:
        held[key] = new
