"""Two nodes of a cluster with the part of a shop that the five examples speak of."""

from collections.abc import Iterable

from ringfence.inventory.snapshot import Snapshot
from ringfence.model.address import Address, parse_address
from ringfence.model.ids import (
    ClusterId,
    PolicyId,
    RevisionId,
    ScopeName,
    Version,
    WorkspaceName,
    item_key,
)
from ringfence.model.labels import make_labels
from ringfence.model.policy import (
    Action,
    CatchAll,
    End,
    FilterEnd,
    Policy,
    Workspace,
)
from ringfence.model.protocol import TCP, PortRange
from ringfence.model.query import parse
from ringfence.model.scope import Scope, ScopeTree
from ringfence.model.workload import (
    Backend,
    Item,
    ItemKind,
    ServicePort,
    ServiceSpec,
    ServiceType,
)
from ringfence.policy.order import PolicySet

CLUSTER = ClusterId("c1")
NAMESPACE = "sock-shop"
DENY_ALL = CatchAll(inbound=Action.DENY, outbound=Action.DENY)


def address(text: str) -> Address:
    return parse_address(text)


def node(name: str, *addresses: str) -> Item:
    labels = make_labels([("kind", "node"), ("name", name), ("kubernetes.cluster", CLUSTER)])
    key = item_key(CLUSTER, ItemKind.NODE, name)
    return Item(key, ItemKind.NODE, CLUSTER, "", name, tuple(map(address, addresses)), labels)


def pod(name: str, app: str, node_name: str, *addresses: str) -> Item:
    labels = make_labels(
        [
            ("kind", "pod"),
            ("name", name),
            ("kubernetes.cluster", CLUSTER),
            ("kubernetes.namespace", NAMESPACE),
            ("kubernetes.label.app", app),
        ]
    )
    key = item_key(CLUSTER, ItemKind.POD, name)
    held = tuple(map(address, addresses))
    return Item(key, ItemKind.POD, CLUSTER, NAMESPACE, name, held, labels, node=node_name)


def service(name: str, cluster_ip: str, port: int, backends: Iterable[tuple[Item, int]],
            node_port: int = 0) -> Item:  # fmt: skip
    spec = ServiceSpec(
        type=ServiceType.NODE_PORT if node_port else ServiceType.CLUSTER_IP,
        ports=(ServicePort("http", TCP, port, node_port),),
        backends=tuple(
            Backend("http", TCP, item.addresses[0], target, True, item.key)
            for item, target in backends
        ),
    )
    labels = make_labels([("kind", "service"), ("kubernetes.namespace", NAMESPACE)])
    key = item_key(CLUSTER, ItemKind.SERVICE, name)
    return Item(key, ItemKind.SERVICE, CLUSTER, NAMESPACE, name, (address(cluster_ip),), labels,
                service=spec)  # fmt: skip


NODE1 = node("node1", "172.30.0.11", "10.244.1.1")
NODE2 = node("node2", "172.30.0.12", "10.244.2.1")
FRONT_END = pod("front-end", "front-end", "node1", "10.244.1.10")
CARTS = pod("carts", "carts", "node2", "10.244.2.20")
PAYMENT = pod("payment", "payment", "node1", "10.244.1.30")
USER_DB = pod("user-db", "user-db", "node2", "10.244.2.40")
ITEMS = (
    NODE1,
    NODE2,
    FRONT_END,
    CARTS,
    PAYMENT,
    USER_DB,
    service("carts", "10.100.135.136", 80, [(CARTS, 8081)]),
    service("front-end", "10.100.7.7", 80, [(FRONT_END, 8079)], node_port=31095),
)


def app(name: str) -> FilterEnd:
    return FilterEnd(parse(f'kubernetes.label.app = "{name}"'))


def allow(name: str, consumer: End, provider: End, port: int, protocol: int = TCP) -> Policy:
    ports = (PortRange(port, port),)
    return Policy(PolicyId(name), consumer, provider, protocol, ports, Action.ALLOW)


def policy_set(
    *policies: Policy,
    items: Iterable[Item] = ITEMS,
    catch_all: CatchAll = DENY_ALL,
) -> PolicySet:
    """The policies as version 3 of a workspace over the whole cluster, nodes included."""
    scope = ScopeName("cluster")
    tree = ScopeTree([Scope(scope, None, parse(f'kubernetes.cluster = "{CLUSTER}"'))])
    workspace = Workspace(WorkspaceName("sock-shop"), scope, True, catch_all, (), policies)
    revisions = ((RevisionId(at + 1), item) for at, item in enumerate(items))
    return PolicySet(Snapshot(revisions), tree, [(workspace, Version(3))])
