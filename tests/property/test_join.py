"""The joined inventory depends on what objects there are, never on the order they came in."""

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from ringfence.connector.sync import WATCHED, Join
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
    Kind,
    Listed,
    Put,
    Removed,
)
from ringfence.model.ids import ClusterId, ItemKey
from ringfence.model.workload import Item

small = st.sampled_from(("a", "b"))


def made(kind: Kind[Any], name: str, variant: str) -> Any:
    """An object of the kind, related by name to those around it, in one of two variants."""
    meta: dict[str, Any] = {"name": name, "uid": f"{kind.resource.name}-{name}"}
    if kind not in (NODES, NAMESPACES, *POLICIES[1:]):
        meta["namespace"] = "a"
    meta["labels"] = {"variant": variant}
    raw: dict[str, Any] = {"metadata": meta}
    if kind is PODS:
        uid = f"{'replicasets' if variant == 'a' else 'jobs'}-{name}"
        meta["ownerReferences"] = [
            {"kind": "Parent", "name": f"p-{variant}", "uid": uid, "controller": True}
        ]
        named = [{"name": "ADDRESS", "value": f"{name}:80"}, {"name": "OTHER", "value": variant}]
        raw["spec"] = {"nodeName": variant, "containers": [{"env": named}]}
    if kind in (REPLICA_SETS, JOBS):
        meta["ownerReferences"] = [
            {"kind": "Top", "name": f"top-{variant}", "uid": "t", "controller": True}
        ]
    if kind is SERVICES:
        raw["spec"] = {"clusterIP": "10.0.0.1", "ports": [{"port": 80}]}
    if kind is INGRESSES:
        service = {"name": variant, "port": {"number": 80}}
        raw["spec"] = {"defaultBackend": {"service": service}}
    if kind is HTTP_ROUTES:
        raw["spec"] = {"rules": [{"backendRefs": [{"name": variant, "port": 80}]}]}
    if kind in POLICIES:
        raw["spec"] = {"variant": variant}
    if kind is ENDPOINT_SLICES:
        meta["labels"] = {"kubernetes.io/service-name": variant}
        raw["ports"] = [{"name": "", "port": 80}]
        raw["endpoints"] = [{"addresses": ["10.0.1.1" if name == "a" else "10.0.1.2"]}]
    return msgspec.convert(raw, type=kind.type)


steps = st.lists(
    st.tuples(
        st.sampled_from(WATCHED),
        small,
        small,
        st.sampled_from(("put", "put", "remove", "list")),
        st.booleans(),
    ),
    min_size=10,
    max_size=30,
)


@given(steps)
def test_the_same_objects_give_the_same_items(
    told: list[tuple[Kind[Any], str, str, str, bool]],
) -> None:
    join = Join(ClusterId("lab"), ())
    present: dict[str, dict[str, Any]] = {kind.resource.name: {} for kind in WATCHED}
    published: dict[ItemKey, Item] = {}
    for kind in WATCHED:
        join.apply(kind, Listed(()))
    for kind, name, variant, verb, pause in told:
        one, held = made(kind, name, variant), present[kind.resource.name]
        if verb == "put":
            held[name] = one
            join.apply(kind, Put(one))
        elif verb == "remove":
            held.pop(name, None)
            join.apply(kind, Removed(one))
        else:
            held.clear()
            held[name] = one
            join.apply(kind, Listed((one,)))
        if pause:
            publish(published, join)
    publish(published, join)

    fresh = Join(ClusterId("lab"), ())
    for kind in reversed(WATCHED):
        fresh.apply(kind, Listed(tuple(present[kind.resource.name].values())))
    fresh.changes()
    assert published == fresh.items == join.items


def publish(published: dict[ItemKey, Item], join: Join) -> None:
    for key, item in join.changes():
        if item is None:
            del published[key]
        else:
            assert published.get(key) != item, "nothing is told twice"
            published[key] = item


def test_nothing_is_told_before_everything_was_listed() -> None:
    join = Join(ClusterId("lab"), ())
    for kind in WATCHED[:-1]:
        join.apply(kind, Listed((made(kind, "a", "a"),)))
        assert join.changes() == []
    join.apply(WATCHED[-1], Listed(()))
    told = {item.name: item for _, item in join.changes() if item and item.kind == "pod"}
    assert told["a"].workload_name == "top-a"
