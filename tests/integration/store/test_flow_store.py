"""The flow store on a real embedded ClickHouse: hops, exactly-once, filters, hostile values."""

from operator import methodcaller
from typing import Any

import pyarrow as pa
import pytest

from ringfence.control.analysis import connections_of
from ringfence.flows.connections import Records, records
from ringfence.flows.disposition import dispose
from ringfence.flows.disposition import disposed as disposed_as
from ringfence.inventory.snapshot import NOWHERE
from ringfence.model.address import Address, format_address
from ringfence.model.errors import InputError
from ringfence.model.flow import Disposition, Observer
from ringfence.model.ids import ClusterId
from ringfence.model.protocol import ICMP, TCP, UDP
from ringfence.model.query import parse
from ringfence.policy.handle import MID_STREAM
from ringfence.store.flows.filter import OF_DROP, OF_HOP, Columns, Condition
from ringfence.store.flows.queries import HOPS, denied, listed
from ringfence.store.flows.store import BatchKey, FlowStore
from tests.integration.world import (
    CARTS,
    CARTS2,
    CARTS_IP,
    CLUSTER,
    DB,
    FRONT,
    GATEWAY1,
    NODE1,
    NODE2,
    OUTSIDE,
    SECOND,
    START,
    Agent,
    address,
    pod,
    timeline,
)

POD, NODE = Observer.POD, Observer.NODE
WINDOW = {"tenant": "default", "since": START - SECOND, "until": START + 60 * SECOND}
HISTORY = timeline()


async def insert(store: FlowStore, *agents: Agent) -> None:
    for number, agent in enumerate(agents):
        key = BatchKey("default", CLUSTER, agent.node, f"b{number}", START, START + 15 * SECOND)
        assert not await store.insert(key, *agent.rows(HISTORY))


def told(hops: pa.Table) -> set[tuple[str, str, int]]:
    return {
        (
            format_address(Address(hop["consumer"])),
            format_address(Address(hop["provider"])),
            hop["provider_port"],
        )
        for hop in hops.to_pylist()
    }


def pod_to_pod_same_node() -> tuple[Agent, ...]:
    one = Agent("node1")
    one.saw(POD, 7, FRONT, (CARTS, 8080))
    one.saw(POD, 8, FRONT, (CARTS, 8080))
    return (one,)


def pod_to_pod_across() -> tuple[Agent, ...]:
    one, two = Agent("node1"), Agent("node2")
    one.saw(POD, 7, FRONT, (DB, 27017))
    one.saw(NODE, 2, FRONT, (DB, 27017))
    two.saw(NODE, 2, FRONT, (DB, 27017))
    two.saw(POD, 9, FRONT, (DB, 27017))
    return one, two


def pod_to_service(backend: str) -> tuple[Agent, ...]:
    before = (FRONT, (CARTS_IP, 80))
    one, two = Agent("node1"), Agent("node2")
    one.saw(POD, 7, FRONT, (CARTS_IP, 80))
    if backend == CARTS:
        one.saw(POD, 8, FRONT, (CARTS, 8080), before)
        return (one,)
    one.saw(NODE, 2, FRONT, (backend, 8080), before)
    two.saw(NODE, 2, FRONT, (backend, 8080))
    two.saw(POD, 9, FRONT, (backend, 8080))
    return one, two


def node_port_same_node(source: str) -> tuple[Agent, ...]:
    one = Agent("node1")
    one.saw(NODE, 2, OUTSIDE, (NODE1, 31095))
    one.saw(POD, 7, source, (FRONT, 8079), (OUTSIDE, (NODE1, 31095)))
    return (one,)


def node_port_elsewhere() -> tuple[Agent, ...]:
    one, two = Agent("node1"), Agent("node2")
    two.saw(NODE, 2, OUTSIDE, (NODE2, 31095))
    two.saw(NODE, 2, NODE2, (FRONT, 8079), (OUTSIDE, (NODE2, 31095)))
    one.saw(NODE, 2, NODE2, (FRONT, 8079))
    one.saw(POD, 7, NODE2, (FRONT, 8079))
    return one, two


def pod_to_outside() -> tuple[Agent, ...]:
    one = Agent("node1")
    one.saw(POD, 7, FRONT, (OUTSIDE, 666))
    one.saw(NODE, 2, NODE1, (OUTSIDE, 666), (FRONT, (OUTSIDE, 666)))
    return (one,)


PATHS: list[Any] = [
    # path, hops, (consumer, dialled, provider) judged, receiving node
    (pod_to_pod_same_node(), {(FRONT, CARTS, 8080)}, (FRONT, CARTS, CARTS), None),
    (pod_to_pod_across(), {(FRONT, DB, 27017)}, (FRONT, DB, DB), None),
    (
        pod_to_service(CARTS),
        {(FRONT, CARTS_IP, 80), (FRONT, CARTS, 8080)},
        (FRONT, CARTS_IP, CARTS),
        None,
    ),
    (
        pod_to_service(CARTS2),
        {(FRONT, CARTS_IP, 80), (FRONT, CARTS2, 8080)},
        (FRONT, CARTS_IP, CARTS2),
        None,
    ),
    (  # externalTrafficPolicy Cluster, masqueraded to the gateway
        node_port_same_node(GATEWAY1),
        {(OUTSIDE, NODE1, 31095), (GATEWAY1, FRONT, 8079)},
        (OUTSIDE, NODE1, FRONT),
        "node1",
    ),
    (  # externalTrafficPolicy Local, the client's address kept
        node_port_same_node(OUTSIDE),
        {(OUTSIDE, NODE1, 31095), (OUTSIDE, FRONT, 8079)},
        (OUTSIDE, NODE1, FRONT),
        "node1",
    ),
    (
        node_port_elsewhere(),
        {(OUTSIDE, NODE2, 31095), (NODE2, FRONT, 8079)},
        (OUTSIDE, NODE2, FRONT),
        "node2",
    ),
    (
        pod_to_outside(),
        {(FRONT, OUTSIDE, 666), (NODE1, OUTSIDE, 666)},
        (FRONT, OUTSIDE, OUTSIDE),
        None,
    ),
]


def text(seen: Records, name: str) -> list[str]:
    return [format_address(Address(packed.tobytes())) for packed in seen.column(name)]


@pytest.mark.parametrize(("agents", "hops", "judged", "receiver"), PATHS)
async def test_each_path_leaves_its_records(
    store: FlowStore, agents: Any, hops: Any, judged: Any, receiver: str | None
) -> None:
    await insert(store, *agents)
    found = await store.query(HOPS, WINDOW)
    assert told(found) == hops
    assert len(set(found["connection"].to_pylist())) == 1
    assert set(found["forward_packets"].to_pylist()) == {5}, "observers are never added up"
    seen = records(found)
    ends = zip(
        *(text(seen, name) for name in ("first_consumer", "dialled", "provider")), strict=True
    )
    assert list(ends) == [judged]
    snapshot = HISTORY.at(START)
    (at,) = connections_of(seen, snapshot).node_item.tolist()
    assert (snapshot.items[at].name if at != NOWHERE else None) == receiver


async def test_windows_add_up_and_batches_come_once(store: FlowStore) -> None:
    rtt: dict[str, Any] = {"rtt_samples": 2, "rtt_sum_ns": 90, "rtt_min_ns": 40}
    agent, unmeasured = Agent("node1"), Agent("node1")
    agent.saw(POD, 7, FRONT, (CARTS, 8080), forward_retransmitted=3, reverse_rst=1, **rtt)
    unmeasured.saw(POD, 7, FRONT, (CARTS, 8080), forward_packets=0, opened=0)
    for window, seen in (("w1", agent), ("w2", agent), ("w3", unmeasured)):
        flows, drops = seen.rows(HISTORY)
        key = BatchKey("default", CLUSTER, "node1", window, START, START + 15 * SECOND)
        assert not await store.insert(key, flows, drops)
        assert await store.insert(key, flows, drops)
    (hop,) = (await store.query(HOPS, WINDOW)).to_pylist()
    assert (hop["forward_packets"], hop["opened"]) == (10, 2)
    assert (hop["forward_retransmitted"], hop["reverse_rst"], hop["reverse_syn"]) == (6, 2, 0)
    assert {name: hop[name] for name in rtt} == rtt | {"rtt_samples": 4, "rtt_sum_ns": 180}


async def test_an_insertion_cut_short_is_finished_not_doubled(store: FlowStore) -> None:
    flows, drops = pod_to_pod_same_node()[0].rows(HISTORY)
    token = {"insert_deduplication_token": "default cut"}
    await store._run(methodcaller("insert_arrow", "flows", flows, settings=token))
    key = BatchKey("default", CLUSTER, "node1", "cut", START, START + 15 * SECOND)
    assert not await store.insert(key, flows, drops)
    (count,) = (await store.query("SELECT count() AS n FROM flows", {}))["n"].to_pylist()
    assert count == len(flows)


async def test_an_address_given_to_another_pod_is_another_end(store: FlowStore) -> None:
    history = timeline()
    (old,) = (item for item in history.latest().items if item.addresses == (address(DB),))
    history.gone(START + 20 * SECOND, old.key)
    successor = pod("other-1", DB, "node2")
    history.observe(START + 21 * SECOND, successor)
    for number, at in enumerate((START, START + 30 * SECOND)):
        agent = Agent("node1")
        agent.saw(POD, 7, FRONT, (DB, 27017), first_ns=at, last_ns=at)
        agent.saw(POD, 7, FRONT, (CARTS_IP, 80), first_ns=at, last_ns=at)
        before = (FRONT, (CARTS_IP, 80))
        agent.saw(NODE, 2, FRONT, (DB, 8080), before, first_ns=at, last_ns=at)
        key = BatchKey("default", CLUSTER, "node1", f"reuse{number}", at, at)
        await store.insert(key, *agent.rows(history))
    seen = records(await store.query(HOPS, WINDOW))
    met = zip(seen.column("provider_port"), seen.column("provider_item"), strict=True)
    assert set(met) == {(port, item.key) for port in (27017, 8080) for item in (old, successor)}
    assert len(seen) == 4


async def test_other_tenants_see_nothing(store: FlowStore) -> None:
    await insert(store, *pod_to_pod_same_node())
    assert len(await store.query(HOPS, WINDOW | {"tenant": "other"})) == 0


FILTERS = [
    ("everything", True),
    ('consumer.kubernetes.label.name = "front-end"', True),
    ('provider.kubernetes.label.name = "front-end"', False),
    ('kubernetes.label.name = "front-end"', True),
    ('provider.kubernetes.label.name = "carts"', True),
    ('provider.kind = "service"', True),
    ('consumer.address = "10.1.1.2" and provider.address subnet "10.1.0.0/16"', True),
    ('address subnet "10.9.0.0/16"', False),
    ("port = 80", True),
    ("port in (8080, 1)", True),
    ("port > 9000", False),
    ('protocol = "TCP" and method = "syn"', True),
    ('not protocol = "UDP" and bytes >= 900 and packets < 10', True),
    ('method in ("degree")', False),
    ("""kubernetes.label.name = "x') OR 1=1 --" """, False),
    ("""method = "syn') OR (1=1" """, False),
]


def revisions(part: Any) -> list[int]:
    return [int(one) for one in HISTORY.select_revisions(part, START, START + 60 * SECOND)]


@pytest.mark.parametrize(("written", "found"), FILTERS)
async def test_filters(store: FlowStore, written: str, found: bool) -> None:
    await insert(store, *pod_to_service(CARTS))

    condition = Condition(parse(written), revisions, OF_HOP)
    rows = await store.query(
        listed(condition.sql, "last_ns"), WINDOW | condition.parameters | {"limit": 10}
    )
    assert len(rows) == (2 if found else 0), "a connection comes with all its hops, or not at all"


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("everything", True),
        ('consumer.kubernetes.label.name = "front-end" and address = "10.1.2.4"', True),
        ('provider.kubernetes.label.name = "front-end"', False),
        ('protocol = "TCP" and port = 3306', True),
        ("port = 80", False),
        ("packets = 3", False),
        ("packets > 5", True),  # all reports together
    ],
)
async def test_filters_of_drops(store: FlowStore, written: str, found: bool) -> None:
    one, two = Agent("node2"), Agent("node2")
    for agent in (one, two):
        agent.dropped(FRONT, (DB, 3306))
    await insert(store, one, two)
    condition = Condition(parse(written), revisions, OF_DROP)
    rows = await store.query(denied(condition.sql), WINDOW | condition.parameters | {"limit": 10})
    assert rows["packets"].to_pylist() == [6] * found


@pytest.mark.parametrize(
    ("columns", "written"),
    [
        (OF_HOP, 'port contains "8"'),
        (OF_HOP, "disposition > 1"),
        (OF_HOP, 'not disposition = "gone"'),
        (OF_HOP, "method > 1"),
        (OF_HOP, 'connection = "12"'),
        (OF_DROP, 'connection = "0123456789abcdef"'),
        (OF_DROP, "bytes > 1"),
        (OF_DROP, 'port = 1 or method = "syn"'),
        (OF_DROP, 'disposition = "dropped"'),
    ],
)
def test_filters_that_mean_nothing_are_refused(columns: Columns, written: str) -> None:
    with pytest.raises(InputError):
        Condition(parse(written), lambda _: [], columns, {} if columns is OF_HOP else None)


THROUGH = {(CLUSTER, "node1"): START + 15 * SECOND, (CLUSTER, "node2"): START + 15 * SECOND}
NOW = START + 20 * SECOND


async def disposed(
    store: FlowStore, through: dict[tuple[ClusterId, str], int], now_ns: int
) -> Disposition:
    """The disposition, which analysis, the list of flows and their filter must agree upon."""
    hops = await store.query(HOPS, WINDOW)
    (judged,) = dispose(records(hops), through, now_ns).first()
    connections = disposed_as(hops, through, now_ns)
    (listed_as,) = {one for one, which in connections.items() if len(which)}
    assert listed_as == judged
    for one in Disposition:
        written = parse(f'disposition = "{one}"')
        condition = Condition(written, revisions, OF_HOP, connections)
        found = await store.query(
            listed(condition.sql, "last_ns"), WINDOW | condition.parameters | {"limit": 10}
        )
        assert bool(len(found)) == (one == judged)
    return listed_as


SILENT: dict[str, Any] = {"answered": 0, "reverse_packets": 0}


@pytest.mark.parametrize(
    ("seen_at_provider", "counts", "dropped", "through", "now_ns", "expected"),
    [
        (True, {}, False, THROUGH, NOW, Disposition.PASSED),
        (True, SILENT | {"refused": 1}, False, THROUGH, NOW, Disposition.PASSED),
        (True, SILENT, True, THROUGH, NOW, Disposition.DROPPED),
        (True, SILENT, False, THROUGH, NOW, Disposition.UNANSWERED),
        (False, SILENT, False, THROUGH, NOW, Disposition.DROPPED),
        (True, SILENT | {"protocol": 17}, False, THROUGH, NOW, Disposition.PASSED),
        (False, SILENT, False, {(CLUSTER, "node2"): START}, NOW, Disposition.PENDING),
        (False, SILENT, False, {}, NOW, Disposition.UNANSWERED),
        (
            True,
            SILENT,
            False,
            {(CLUSTER, "node2"): START},
            NOW + 400 * SECOND,
            Disposition.UNANSWERED,
        ),
    ],
)
async def test_dispositions(
    store: FlowStore,
    seen_at_provider: bool,
    counts: Any,
    dropped: bool,
    through: Any,
    now_ns: int,
    expected: Disposition,
) -> None:
    one, two = Agent("node1"), Agent("node2")
    one.saw(POD, 7, FRONT, (DB, 27017), **counts)
    if seen_at_provider:
        two.saw(POD, 9, FRONT, (DB, 27017), **counts)
    if dropped:
        two.dropped(FRONT, (DB, 27017))
    await insert(store, one, two)
    assert await disposed(store, through, now_ns) is expected


@pytest.mark.parametrize(
    ("consumer", "before"),
    [(FRONT, (FRONT, (CARTS_IP, 80))), (NODE1, (NODE1, (CARTS_IP, 80))), (NODE1, None)],
)
@pytest.mark.parametrize("protocol", [TCP, UDP])
async def test_one_interface_alone_proves_arrival_at_a_pod(
    store: FlowStore, consumer: str, before: Any, protocol: int
) -> None:
    """To a pod on the consumer's own node: the consumer's interface sees no translated packet."""
    one = Agent("node1")
    if consumer == FRONT:
        one.saw(POD, 7, FRONT, (CARTS_IP, 80), protocol=protocol, **SILENT)
    one.saw(POD, 8, consumer, (CARTS, 8080), before, protocol=protocol, **SILENT)
    await insert(store, one)
    expected = Disposition.UNANSWERED if protocol == TCP else Disposition.PASSED
    assert await disposed(store, THROUGH, NOW) is expected


@pytest.mark.parametrize(
    ("consumer", "provider"), [(FRONT, (CARTS, 8080)), (FRONT, (NODE1, 10250))]
)
async def test_the_consumers_interface_alone_proves_no_arrival(
    store: FlowStore, consumer: str, provider: Any
) -> None:
    one = Agent("node1")
    one.saw(POD, 7, consumer, provider, **SILENT)
    await insert(store, one)
    assert await disposed(store, THROUGH, NOW) is Disposition.DROPPED


async def test_a_drop_midstream_is_told_and_is_no_connection(store: FlowStore) -> None:
    one = Agent("node1")
    one.dropped(FRONT, (CARTS, 8080), rule=MID_STREAM)
    await insert(store, one)
    assert len(await store.query(HOPS, WINDOW)) == 0
    (row,) = (await store.query(denied("true"), WINDOW | {"limit": 10})).to_pylist()
    assert (row["packets"], row["rule"]) == (3, "mid-stream")


async def test_a_drop_that_nothing_else_saw_is_a_connection(store: FlowStore) -> None:
    one = Agent("node1")
    one.dropped(FRONT, (CARTS_IP, 80), direction="outbound")
    await insert(store, one)
    seen = records(await store.query(HOPS, WINDOW))
    assert (text(seen, "first_consumer"), text(seen, "dialled")) == ([FRONT], [CARTS_IP])
    assert seen.dropped.tolist() == [3]
    assert dispose(seen, THROUGH, NOW).first() == [Disposition.DROPPED]
    (row,) = (await store.query(denied("true"), WINDOW | {"limit": 10})).to_pylist()
    assert (row["direction"], row["packets"], row["rule"]) == ("outbound", 3, "shop/deny")


async def test_drops_behind_a_service_belong_to_its_connection(store: FlowStore) -> None:
    one, two = pod_to_service(CARTS2)
    two.dropped(FRONT, (CARTS2, 8080))
    await insert(store, one, two)
    seen = records(await store.query(HOPS, WINDOW))
    assert (text(seen, "dialled"), seen.dropped.tolist()) == ([CARTS_IP], [3])
    disposition = dispose(seen, THROUGH, NOW)
    assert disposition.passed.all(), "what was answered counts beside what was dropped"
    assert disposition.dropped.all()
    assert await disposed(store, THROUGH, NOW) is Disposition.DROPPED, "drops come first"


async def test_an_icmp_error_has_a_disposition_and_is_no_connection(store: FlowStore) -> None:
    one = Agent("node1")
    one.saw(POD, 7, FRONT, (DB, 3 << 8), protocol=ICMP, **SILENT)
    await insert(store, one)
    hops = await store.query(HOPS, WINDOW)
    assert len(records(hops)) == 0
    assert sum(map(len, disposed_as(hops, THROUGH, NOW).values())) == 1


async def test_a_connection_told_in_both_modes_is_one_with_the_sum_of_both(
    store: FlowStore,
) -> None:
    before = (FRONT, (CARTS_IP, 80))
    one = Agent("node1")
    later: dict[str, Any] = {
        "first_ns": START + 20 * SECOND,
        "last_ns": START + 21 * SECOND,
        "opened": 0,
    }
    for port, more in ((0, {}), (40000, later), (40001, later), (0, later)):
        one.saw(POD, 7, FRONT, (CARTS_IP, 80), consumer_port=port, **more)
        one.saw(POD, 8, FRONT, (CARTS, 8080), before, consumer_port=port, **more)
    await insert(store, one)
    hops = await store.query(HOPS, WINDOW)
    assert len(set(hops["connection"].to_pylist())) == 1
    for hop in hops.to_pylist():
        assert sorted(hop["consumer_ports"]) == [40000, 40001]
        assert (hop["forward_packets"], hop["opened"]) == (4 * 5, 1)
    assert len(hops) == 2
    assert len(records(hops)) == 1
