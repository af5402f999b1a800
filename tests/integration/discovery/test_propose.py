"""From hops to a proposal, and the proposal judged by the connections that it came from."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import pytest

from ringfence.control.analysis import History, judge
from ringfence.control.discover import Discovery, discover, noise
from ringfence.control.judged import JudgedBy
from ringfence.discovery.reasons import Reason
from ringfence.discovery.sources import SCAN_TARGETS
from ringfence.flows.connections import records
from ringfence.inventory.resolutions import Resolutions
from ringfence.model.flow import Observer
from ringfence.model.ids import ScopeName, Version, WorkspaceName
from ringfence.model.policy import (
    Action,
    CidrEnd,
    ClusterEnd,
    End,
    OutsideEnd,
    OwnNodeEnd,
    ServiceEnd,
)
from ringfence.model.quarantine import QUARANTINE, Quarantine
from ringfence.model.query import Everything
from ringfence.model.scope import ScopeTree
from ringfence.policy.design import split
from ringfence.policy.document import Documents, format_documents, parse_documents
from ringfence.store.flows import FlowStore, FlowStoreConfig
from ringfence.store.flows.queries import HOPS
from tests.integration.world import (
    CARTS,
    CARTS2,
    CARTS_IP,
    CLUSTER,
    DB,
    FRONT,
    GATEWAY1,
    NODE1,
    OUTSIDE,
    SECOND,
    START,
    Agent,
    timeline,
)

POD, NODE = Observer.POD, Observer.NODE
WINDOW = {"tenant": "default", "since": START - SECOND, "until": START + 60 * SECOND}
HISTORY = timeline()
SHOP = ScopeName("sock-shop")
TREE = ScopeTree(split(CLUSTER, ["sock-shop"]))


def seen() -> tuple[Agent, Agent]:
    """The shop at work, and carts-1 scanning its neighbours."""
    one, two = Agent("node1"), Agent("node2")
    one.saw(POD, 7, FRONT, (CARTS_IP, 80))
    one.saw(POD, 8, FRONT, (CARTS, 8080), (FRONT, (CARTS_IP, 80)))
    one.saw(NODE, 2, FRONT, (CARTS2, 8080), (FRONT, (CARTS_IP, 80)))
    two.saw(POD, 9, FRONT, (CARTS2, 8080))
    two.saw(POD, 9, CARTS2, (DB, 27017), opened=7)
    one.saw(POD, 7, FRONT, (OUTSIDE, 666))
    one.saw(NODE, 2, NODE1, (OUTSIDE, 666), (FRONT, (OUTSIDE, 666)))
    one.saw(NODE, 2, OUTSIDE, (NODE1, 31095))
    one.saw(POD, 7, GATEWAY1, (FRONT, 8079), (OUTSIDE, (NODE1, 31095)))
    one.saw(POD, 7, GATEWAY1, (FRONT, 8079))
    one.saw(POD, 8, GATEWAY1, (CARTS, 9100))
    one.saw(POD, 7, FRONT, (DB, 9), answered=0, refused=1, reverse_packets=1)
    for port in range(1, SCAN_TARGETS + 1):
        one.saw(POD, 8, CARTS, (DB, port), answered=0, reverse_packets=0)
    return one, two


@pytest.fixture(scope="module")
def hops(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    store = FlowStore(FlowStoreConfig(tmp_path_factory.mktemp("flows")))

    async def fill() -> object:
        await store.start()
        for agent in seen():
            await store.insert([agent.report(agent.node).key], *agent.rows(HISTORY))
        return await store.query(HOPS, WINDOW)

    yield asyncio.run(fill())
    asyncio.run(store.stop())


def proposed(hops: object, scope: ScopeName = SHOP) -> Discovery:
    return discover(records(hops), HISTORY, TREE, scope, WorkspaceName(scope))


def told(end: End) -> str:
    match end:
        case ClusterEnd(name):
            return name
        case ServiceEnd(_, name):
            return f"service {name}"
        case CidrEnd(networks):
            return " ".join(str(network) for network in networks)
        case OwnNodeEnd():
            return "own node"
        case OutsideEnd():
            return "outside"
        case _:
            return repr(end)


def test_the_applications_proposal(hops: object) -> None:
    workspace = proposed(hops).workspace
    policies = {
        str(policy.id): (
            told(policy.consumer),
            told(policy.provider),
            [str(port) for port in policy.ports],
        )
        for policy in workspace.policies
    }
    assert policies == {
        "outside-to-front-end": ("outside", "service front-end", ["80"]),
        "carts-to-user-db": ("carts", "user-db", ["27017"]),
        "front-end-to-203.0.113.9": ("front-end", "203.0.113.9/32", ["666"]),
        "front-end-to-carts": ("front-end", "service carts", ["80"]),
        "own-node-to-carts": ("own node", "carts", ["9100"]),
        "probes-to-front-end": ("own node", "front-end", ["8079"]),
    }
    assert {cluster.name: str(cluster.query) for cluster in workspace.clusters} == {
        name: f'kubernetes.namespace = "sock-shop" and kubernetes.label.name = "{name}"'
        for name in ("carts", "front-end", "user-db")
    }
    assert workspace.catch_all.inbound is workspace.catch_all.outbound is Action.DENY
    (told_of,) = (one.evidence for one in workspace.policies if one.id == "carts-to-user-db")
    assert told_of is not None
    assert (told_of.conversations, told_of.sources, told_of.intervals) == (7, 1, 1)


def test_the_nodes_proposal(hops: object) -> None:
    workspace = proposed(hops, ScopeName("nodes")).workspace
    assert [str(policy.id) for policy in workspace.policies] == ["outside-to-front-end"]
    assert workspace.catch_all.inbound is Action.DENY
    assert workspace.catch_all.outbound is Action.ALLOW


def test_noise_is_told_with_its_reason(hops: object) -> None:
    told = {reason: (count, example) for reason, count, example in noise(proposed(hops))}
    assert told[Reason.SCAN][0] == SCAN_TARGETS
    assert told[Reason.REFUSED] == (1, "front-end → user-db TCP 9")
    assert set(told) == {Reason.SCAN, Reason.REFUSED, Reason.PROBE}


async def test_the_proposal_reads_back_and_allows_what_it_came_from(hops: object) -> None:
    shop, nodes = (proposed(hops, scope).workspace for scope in (SHOP, ScopeName("nodes")))
    text = format_documents(Documents(workspaces=(shop, nodes)))
    assert parse_documents(text, "proposal.yaml").workspaces == (nodes, shop)
    connections = records(hops)
    judged_by = JudgedBy(TREE, ((shop, Version(1)), (nodes, Version(1))))
    judged = await judge(
        connections, History(HISTORY, Resolutions()), START + 60 * SECOND, judged_by, shop.name
    )
    assert judged.in_view.all()
    answered = connections.column("answered") > 0
    assert (judged.allowed == answered).all(), "the scan and the refused one are not allowed"


async def test_a_changed_inventory_is_judged_as_it_was(hops: object) -> None:
    """The pod is gone by the end of the window; what it did before is judged as its doing."""
    history = timeline()
    (gone,) = (item for item in history.latest().items if item.name == "user-db-1")
    history.gone(START + 30 * SECOND, gone.key)
    history.observe(START + 31 * SECOND, replace(gone, name="other-1", labels={}))
    shop = proposed(hops).workspace
    judged = await judge(
        records(hops),
        History(history, Resolutions()),
        START + 60 * SECOND,
        JudgedBy(TREE, ((shop, Version(1)),)),
        shop.name,
    )
    assert (judged.allowed == (records(hops).column("answered") > 0)).all()


async def test_a_quarantine_counts_for_what_began_in_it(hops: object) -> None:
    shop, seen = proposed(hops).workspace, records(hops)
    began = seen.column("first_ns")
    judged_by, history = JudgedBy(TREE, ((shop, Version(1)),)), History(HISTORY, Resolutions())
    free = await judge(seen, history, START + 60 * SECOND, judged_by, shop.name)
    for since_ns in sorted({START - 1, *began.tolist(), int(began.max()) + 1}):
        everybody = Quarantine(CLUSTER, "all", Everything(), (), "", "", since_ns)
        apart = replace(judged_by, quarantines=(everybody,))
        judged = await judge(seen, history, START + 60 * SECOND, apart, shop.name)
        assert (judged.allowed == (free.allowed & (began < since_ns))).all()
        decided = [one.workspace for row in judged.deciding for one in row.values()]
        assert decided.count(QUARANTINE) >= (began >= since_ns).sum()
