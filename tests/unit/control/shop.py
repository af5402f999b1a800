"""A scope, a workspace and a handful of items, for the tests of what is decided about them."""

from ringfence.model.address import parse_address
from ringfence.model.ids import ClusterId, item_key
from ringfence.model.labels import make_labels
from ringfence.model.protocol import TCP
from ringfence.model.workload import Item, ItemKind

CLUSTER = "lab"
DOCUMENTS = """
apiVersion: ringfence.io/v1alpha1
kind: Scope
metadata: {name: all}
spec: {query: everything}
---
apiVersion: ringfence.io/v1alpha1
kind: Scope
metadata: {name: shop}
spec: {parent: all, query: 'kubernetes.namespace = "shop"'}
---
apiVersion: ringfence.io/v1alpha1
kind: Workspace
metadata: {name: shop}
spec:
  scope: shop
  catchAll: {inbound: DENY, outbound: ALLOW}
  policies:
  - id: front-to-db
    action: ALLOW
    consumer: {filter: 'name = "front"'}
    provider: {filter: 'name = "db"'}
    protocol: TCP
    ports: [3306]
"""


def item(kind: ItemKind, name: str, address: str, probe: int = 0) -> Item:
    """An item of the cluster; pods are in namespace shop on node n1."""
    pod = kind is ItemKind.POD
    labels = [("name", name), ("kind", kind), ("kubernetes.cluster", CLUSTER)]
    if pod:
        labels += [("kubernetes.namespace", "shop")]
    return Item(
        key=item_key(ClusterId(CLUSTER), kind, name),
        kind=kind,
        cluster=ClusterId(CLUSTER),
        namespace="shop" if pod else "",
        name=name,
        addresses=(parse_address(address),),
        labels=make_labels(labels),
        node="n1" if pod else "",
        probe_ports=((TCP, probe),) if probe else (),
        workload_name=name,
    )


NODE = item(ItemKind.NODE, "n1", "192.0.2.1")
FRONT = item(ItemKind.POD, "front", "10.0.0.1")
DB = item(ItemKind.POD, "db", "10.0.0.2")
