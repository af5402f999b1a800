"""What became of connections, told alike by analysis, the list of flows and their filter."""

from typing import Any

import pytest

from ringfence.flows.connections import records
from ringfence.flows.disposition import dispose
from ringfence.flows.disposition import disposed as disposed_as
from ringfence.model.flow import Disposition
from ringfence.model.ids import ClusterId
from ringfence.model.protocol import ICMP, TCP, UDP
from ringfence.model.query import parse
from ringfence.policy.handle import MID_STREAM, NEW_POD
from ringfence.store.flows import FlowStore
from ringfence.store.flows.filter import OF_HOP, Condition
from ringfence.store.flows.queries import HOPS, denied, listed
from tests.integration.store.observed import POD, WINDOW, insert, pod_to_service, revisions, text
from tests.integration.world import (
    CARTS,
    CARTS2,
    CARTS_IP,
    CLUSTER,
    DB,
    FRONT,
    NODE1,
    SECOND,
    START,
    Agent,
)

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


@pytest.mark.parametrize("rule", [MID_STREAM, NEW_POD])
async def test_a_drop_that_no_policy_judged_is_told_and_is_no_connection(
    store: FlowStore, rule: str
) -> None:
    one = Agent("node1")
    one.dropped(FRONT, (CARTS, 8080), rule=rule)
    await insert(store, one)
    assert len(await store.query(HOPS, WINDOW)) == 0
    (row,) = (await store.query(denied("true"), WINDOW | {"limit": 10})).to_pylist()
    assert (row["packets"], row["rule"]) == (3, rule)


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


async def test_what_our_rules_reject_is_dropped_and_not_answered(store: FlowStore) -> None:
    one, two = Agent("node1"), Agent("node2")
    for agent, interface in ((one, 7), (two, 9)):
        agent.saw(POD, interface, FRONT, (DB, 27017), **SILENT | {"refused": 1})
    two.dropped(FRONT, (DB, 27017))
    await insert(store, one, two)
    found = dispose(records(await store.query(HOPS, WINDOW)), THROUGH, NOW)
    assert (found.passed.tolist(), found.dropped.tolist()) == ([False], [True])


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
