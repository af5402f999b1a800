"""Which of several observers' rows go out: each hop once, from who stands best."""

import pyarrow as pa

from ringfence.control.exports import conversations, told_here
from ringfence.model.address import Address, format_address
from ringfence.model.flow import Observer
from ringfence.model.protocol import UDP
from tests.integration.world import (
    CARTS,
    CARTS2,
    CARTS_IP,
    FRONT,
    NODE1,
    NODE2,
    OUTSIDE,
    Agent,
    timeline,
)

HISTORY = timeline()
POD, NODE = Observer.POD, Observer.NODE
BOTH = ("node1", "node2")


def told(agent: Agent, agents: tuple[str, ...] = BOTH) -> list[tuple[str, str, int, int]]:
    rows = agent.rows(HISTORY)[0]
    out = conversations(rows.take(told_here(rows, agents)), HISTORY).to_pylist()
    return [
        (
            format_address(Address(row["consumer"])),
            format_address(Address(row["provider"])),
            row["provider_port"],
            row["forward_packets"],
        )
        for row in out
    ]


def through_a_service() -> tuple[Agent, Agent]:
    """front-end on node1 calls carts-2 on node2 by its ClusterIP; each agent sees two of it."""
    first, second = Agent("node1"), Agent("node2")
    before = (FRONT, (CARTS_IP, 80))
    first.saw(POD, 1, FRONT, (CARTS_IP, 80), forward_packets=1)
    first.saw(NODE, 2, FRONT, (CARTS2, 8080), before, forward_packets=2)
    second.saw(NODE, 2, FRONT, (CARTS2, 8080), forward_packets=3)
    second.saw(POD, 3, FRONT, (CARTS2, 8080), forward_packets=4)
    return first, second


def test_each_hop_is_told_by_its_consumers_node() -> None:
    first, second = through_a_service()
    assert told(first) == [(FRONT, CARTS_IP, 80, 1), (FRONT, CARTS2, 8080, 2)]
    assert told(second) == []


def test_without_an_agent_there_the_providers_node_tells() -> None:
    _, second = through_a_service()
    assert told(second, ("node2",)) == [(FRONT, CARTS2, 8080, 4)]


def test_what_comes_from_outside_is_told_by_the_node_it_comes_to() -> None:
    first, second = Agent("node1"), Agent("node2")
    first.saw(NODE, 2, OUTSIDE, (NODE1, 31095))
    first.saw(NODE, 2, NODE1, (CARTS2, 8080), (OUTSIDE, (NODE1, 31095)))
    second.saw(NODE, 2, NODE1, (CARTS2, 8080))
    second.saw(POD, 3, OUTSIDE, (CARTS2, 8080))
    first.saw(NODE, 2, OUTSIDE, (CARTS2, 8080))
    assert [row[:3] for row in told(first)] == [(OUTSIDE, NODE1, 31095), (NODE1, CARTS2, 8080)]
    assert [row[:3] for row in told(second)] == [(OUTSIDE, CARTS2, 8080)]


def test_what_only_others_see_is_told_by_them() -> None:
    first = Agent("node1")
    first.saw(NODE, 2, OUTSIDE, ("198.51.100.7", 443))
    assert len(told(first)) == 1


def test_of_interfaces_placed_alike_the_one_with_more_packets_tells() -> None:
    first = Agent("node1")
    for interface, packets in ((7, 5), (8, 9), (9, 9), (6, 1)):
        first.saw(NODE, interface, FRONT, (CARTS, 8080), forward_packets=packets)
    assert told(first) == [(FRONT, CARTS, 8080, 9)]


def test_a_tunnel_is_not_told_beside_what_it_carries() -> None:
    first = Agent("node1")
    tunnel = (NODE1, (NODE2, 4789))
    first.saw(POD, 1, FRONT, (CARTS2, 8080), forward_packets=1)
    first.saw(NODE, 2, FRONT, (CARTS2, 8080), None, tunnel, forward_packets=2)
    first.saw(NODE, 2, *tunnel, protocol=UDP, carries=1)
    first.saw(NODE, 2, NODE2, (NODE1, 4789), protocol=UDP)
    assert [row[:3] for row in told(first)] == [(FRONT, CARTS2, 8080)]
    assert [row[:3] for row in told(first, ())] == [(FRONT, CARTS2, 8080), (NODE2, NODE1, 4789)], (
        "a tunnel that carries nothing is told"
    )


def test_names_are_those_of_the_rows_revisions() -> None:
    rows: pa.Table = through_a_service()[0].rows(HISTORY)[0]
    plain, translated = conversations(rows, HISTORY).to_pylist()
    assert not plain["translated"]
    assert (plain["provider_kind"], plain["provider_name"]) == ("service", "carts")
    assert translated["translated"]
    assert (translated["provider_name"], translated["provider_owner"]) == ("carts-2", "carts")
    assert (translated["dialled_name"], translated["consumer_namespace"]) == ("carts", "sock-shop")
    assert (translated["consumer_node"], translated["provider_node"]) == ("node1", "node2")
