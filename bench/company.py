"""A made company to measure policy by: a cluster's pods, nodes and Services, a scope tree of depth
four (company, department, namespace, tier), policies with every kind of end, and connections.

Replicas of an application are alike; no two applications are.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ringfence.inventory.seen_from import SeenFrom
from ringfence.inventory.snapshot import NOWHERE, Snapshot
from ringfence.model.address import V4_MAPPED, Address, parse_network
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
    CidrEnd,
    End,
    FilterEnd,
    OwnNodeEnd,
    Policy,
    Rank,
    ScopeEnd,
    ServiceEnd,
    Workspace,
)
from ringfence.model.protocol import TCP, UDP, PortRange
from ringfence.model.query import parse
from ringfence.model.scope import Scope, ScopeTree
from ringfence.model.workload import Backend, Item, ItemKind, ServicePort, ServiceSpec, ServiceType
from ringfence.policy.connection import Connection, Connections
from ringfence.policy.order import Enforced, PolicySet

EAST = ClusterId("east")
NODES, NAMESPACES, DEPARTMENTS, REPLICAS = 20, 25, 5, 4
TIERS = ("web", "logic", "data")
PORTS = (80, 443, 5432, 6379, 8080, 9090, 9092, 27017)
FIRST_NODE, FIRST_POD, FIRST_FRONT = 192 << 24 | 168 << 16, 10 << 24 | 1 << 16, 10 << 24 | 200 << 16
TARGET_PORT, FIRST_NODE_PORT = 8080, 30_000


@dataclass(frozen=True)
class Company:
    items: list[Item]
    tree: ScopeTree
    enforced: list[Enforced]

    @cached_property
    def snapshot(self) -> Snapshot:
        return Snapshot((RevisionId(at), item) for at, item in enumerate(self.items, 1))

    def policy_set(self) -> PolicySet:
        return PolicySet(self.snapshot, self.tree, self.enforced)


def found(workloads: int, policies: int, seed: int = 1) -> Company:
    """A company of so many pods and policies."""
    apps = workloads // REPLICAS
    tree = ScopeTree(scopes())
    bound = workspaces(tree, apps, policies, random.Random(seed))
    return Company([*nodes(), *pods(workloads), *services(apps)], tree, list(bound))


def v4(number: int) -> Address:
    return Address(V4_MAPPED + number.to_bytes(4))


def nodes(count: int = NODES) -> Iterator[Item]:
    for at in range(count):
        name, held = f"node-{at}", (v4(FIRST_NODE + at),)
        labels = make_labels([("kind", "node"), ("kubernetes.cluster", EAST)])
        yield Item(item_key(EAST, "node", name), ItemKind.NODE, EAST, "", name, held, labels)


def pods(count: int) -> Iterator[Item]:
    for at in range(count):
        app, replica = divmod(at, REPLICAS)
        namespace, owner = f"ns-{app % NAMESPACES}", f"app-{app}"
        name = f"{owner}-{replica}"
        labels = make_labels(
            [
                ("kind", "pod"),
                ("name", name),
                ("kubernetes.cluster", EAST),
                ("kubernetes.namespace", namespace),
                ("kubernetes.label.app", owner),
                ("kubernetes.label.tier", TIERS[app % len(TIERS)]),
                ("department", f"dept-{app % NAMESPACES % DEPARTMENTS}"),
            ]
        )
        yield Item(
            item_key(EAST, "pod", name),
            ItemKind.POD,
            EAST,
            namespace,
            name,
            (v4(FIRST_POD + at),),
            labels,
            node=f"node-{at % NODES}",
            workload_name=owner,
        )


def services(apps: int) -> Iterator[Item]:
    for app in range(apps):
        name, namespace = f"app-{app}", f"ns-{app % NAMESPACES}"
        backends = tuple(
            Backend("http", TCP, v4(FIRST_POD + app * REPLICAS + at), TARGET_PORT, True, None)
            for at in range(REPLICAS)
        )
        port = ServicePort("http", TCP, 80, FIRST_NODE_PORT + app)
        yield Item(
            item_key(EAST, "service", name),
            ItemKind.SERVICE,
            EAST,
            namespace,
            name,
            (v4(FIRST_FRONT + app),),
            make_labels([("kind", "service"), ("kubernetes.namespace", namespace)]),
            service=ServiceSpec(ServiceType.NODE_PORT, (port,), backends),
        )


def scopes() -> Iterator[Scope]:
    company = ScopeName("company")
    yield Scope(company, None, parse("everything"))
    yield Scope(ScopeName("nodes"), company, parse('kind = "node"'))
    for department in range(DEPARTMENTS):
        name = ScopeName(f"dept-{department}")
        yield Scope(name, company, parse(f'department = "{name}"'))
    for at in range(NAMESPACES):
        name, above = ScopeName(f"ns-{at}"), ScopeName(f"dept-{at % DEPARTMENTS}")
        yield Scope(name, above, parse(f'kubernetes.namespace = "{name}"'))
        yield Scope(ScopeName(f"{name}-data"), name, parse('kubernetes.label.tier = "data"'))


def workspaces(
    tree: ScopeTree, apps: int, policies: int, chance: random.Random
) -> Iterator[Enforced]:
    names = [scope.name for scope in tree.preorder()]
    for at, name in enumerate(names):
        said = tuple(policy(one, apps, names, chance) for one in range(at, policies, len(names)))
        inbound = Action.DENY if name.endswith("-data") else Action.ALLOW
        catch_all = CatchAll(inbound, Action.ALLOW)
        yield Workspace(WorkspaceName(f"w-{name}"), name, True, catch_all, (), said), Version(1)


def policy(number: int, apps: int, names: list[ScopeName], chance: random.Random) -> Policy:
    def application() -> End:
        return FilterEnd(parse(f'kubernetes.label.app = "app-{chance.randrange(apps)}"'))

    def tier() -> End:
        within, tier = chance.randrange(NAMESPACES), chance.choice(TIERS)
        query = f'kubernetes.namespace = "ns-{within}" and kubernetes.label.tier = "{tier}"'
        return FilterEnd(parse(query))

    def scope() -> End:
        return ScopeEnd(chance.choice(names))

    def service() -> End:
        app = chance.randrange(apps)
        return ServiceEnd(f"ns-{app % NAMESPACES}", f"app-{app}")

    def block() -> End:
        first = f"{chance.randrange(1, 224)}.{chance.randrange(256)}"
        return CidrEnd((parse_network(f"{first}.0.0/16"),), (parse_network(f"{first}.7.0/24"),))

    anybody = (application, application, tier, scope, block)
    consumer = OwnNodeEnd() if number % 25 == 0 else chance.choice(anybody)()
    provider = chance.choice((*anybody, service, service))()
    protocol, port = (UDP if number % 11 == 0 else TCP), chance.choice(PORTS)
    if isinstance(provider, ServiceEnd):
        protocol, port = TCP, 80
    ports = (PortRange(port, port + 100 * (number % 7 == 0)),) if number % 5 else ()
    return Policy(
        PolicyId(f"p{number}"),
        consumer,
        provider,
        protocol if ports else None,
        ports,
        Action.ALLOW if number % 6 else Action.DENY,
        Rank.DEFAULT if number % 8 else Rank.ABSOLUTE,
        priority=1 + number % 3,
    )


Addresses = NDArray[np.int64]


@dataclass(frozen=True)
class Tuples:
    """Connections by IPv4 addresses as numbers; `node` is 0 where no node received."""

    consumer: Addresses
    provider: Addresses
    provider_port: NDArray[np.int64]
    dialled: Addresses
    dialled_port: NDArray[np.int64]
    node: Addresses

    def located(self, snapshot: Snapshot) -> Connections:
        """The connections with the items that hold their addresses."""
        seen_from = SeenFrom.one(EAST, len(self.node))
        consumer, provider, dialled = map(packed, (self.consumer, self.provider, self.dialled))
        node = np.full(len(self.node), NOWHERE, dtype=np.int32)
        received = self.node != 0
        node[received] = snapshot.locate(
            packed(self.node[received]), SeenFrom.one(EAST, int(received.sum()))
        )
        return Connections(
            protocol=np.full(len(self.node), TCP, dtype=np.uint8),
            consumer=consumer,
            consumer_item=snapshot.locate(consumer, seen_from),
            provider=provider,
            provider_port=self.provider_port.astype(np.uint16),
            provider_item=snapshot.locate(provider, seen_from),
            dialled=dialled,
            dialled_port=self.dialled_port.astype(np.uint16),
            node_item=node,
        )

    def listed(self, count: int) -> list[Connection]:
        """The first so many, one by one."""
        columns = self.consumer, self.provider, self.provider_port, self.dialled, self.dialled_port
        rows = zip(*(column[:count].tolist() for column in (*columns, self.node)), strict=True)
        return [
            Connection(TCP, v4(mine), v4(its), port, v4(at), dialled, v4(node) if node else None)
            for mine, its, port, at, dialled, node in rows
        ]


def packed(numbers: Addresses) -> NDArray[np.uint8]:
    rows = np.zeros((len(numbers), 16), dtype=np.uint8)
    rows[:, 10:12] = 0xFF
    rows[:, 12:] = numbers.astype(">u4")[:, None].view(np.uint8)
    return rows


def traffic(workloads: int, count: int, *, fresh: bool, seed: int = 2) -> Tuples:
    """Four tenths direct, four tenths through a Service, one through a node port from outside,
    one to an address outside.

    If `fresh`, consumers of the first three are outside too, and no address outside comes twice.
    """
    draw = np.random.default_rng(seed)
    way = draw.choice(4, count, p=(0.4, 0.4, 0.1, 0.1))
    outside = (20 << 24) + draw.permutation(max(count, 1 << 20))[:count] * 97
    consumer = np.where((way == 2) | (fresh & (way != 3)), outside, 0)
    consumer = np.where(consumer, consumer, FIRST_POD + draw.integers(0, workloads, count))
    pod = draw.integers(0, workloads, count)
    provider = np.where(way == 3, outside, FIRST_POD + pod)
    app, node = pod // REPLICAS, FIRST_NODE + draw.integers(0, NODES, count)
    translated, received = (way == 1) | (way == 2), way == 2
    port = np.where(translated, TARGET_PORT, draw.choice(PORTS, count))
    dialled = np.select([received, translated], [node, FIRST_FRONT + app], provider)
    dialled_port = np.select([received, translated], [FIRST_NODE_PORT + app, 80], port)
    return Tuples(consumer, provider, port, dialled, dialled_port, np.where(received, node, 0))
