"""Edges that are told by their ports and by who can have their ends."""

import pytest

from ringfence.discovery.reasons import Reason
from tests.unit.discovery.days import DAY, REPLICAS, SLOT, Day, why


@pytest.mark.parametrize("told", [True, False])
def test_ports_that_somebody_opens_are_given_out_though_the_other_way_answers(told: bool) -> None:
    """Where no column tells of first packets nothing tells who sent them."""
    day = Day()
    day.saw(day.of("carts", 0), day.of("front", 0), 8080, 30_000)
    for number, port in enumerate(range(50_000, 50_012)):
        day.saw(day.of("front", 0), day.of("carts", 0), port, 40_000 + 600 * number)
    if not told:
        day.tells_no_openings()
    reason = why(day.found(), "front → carts TCP 50005")
    assert reason is (Reason.GIVEN_OUT if told else Reason.REVERSED)


@pytest.mark.parametrize("told", [True, False])
def test_a_long_way_back_is_reversed_where_nothing_tells_who_opened(told: bool) -> None:
    day = Day()
    day.saw(day.of("carts", 0), day.of("front", 0), 50_000, *range(30_000, 30_000 + 8 * SLOT, SLOT))
    if not told:
        day.tells_no_openings()
    assert (why(day.found(), "carts → front TCP 50000") is Reason.REVERSED) is not told


def test_a_port_that_is_opened_all_day_is_served() -> None:
    day = Day()
    for at in range(0, DAY, SLOT):
        day.saw(day.of("orders", at // SLOT % REPLICAS), day.of("db", 0), 50_051, at)
        day.saw(day.of("db", 0), day.of("orders", at // SLOT % REPLICAS), 8080, at)
    assert why(day.found(), "orders → db TCP 50051") is Reason.SEEN
    day.tells_no_openings()
    assert why(day.found(), "orders → db TCP 50051") is Reason.REVERSED


def test_what_was_opened_in_one_interval_is_not_reversed() -> None:
    day = Day()
    day.saw(day.of("front", 0), day.of("carts", 0), 50_051, *range(40_000, 40_006))
    day.saw(day.of("carts", 0), day.of("front", 0), 8080, *range(0, 8000, 1000))
    assert why(day.found(), "front → carts TCP 50051") is Reason.FEW


def test_nobody_in_a_pod_network_is_outside() -> None:
    day = Day()
    day.saw("10.1.200.9", day.of("carts", 0), 8080, *range(0, DAY, 3600))
    day.saw("10.2.200.9", day.of("orders", 0), 8080, *range(0, DAY, SLOT))
    found = day.found()
    assert why(found, "10.1.200.9 → carts TCP 8080") is Reason.DEAD
    assert why(found, "outside → orders TCP 8080") is Reason.SEEN


@pytest.mark.parametrize(("node", "networks"), [
    (["192.0.2.1"], ["10.1.0.0/16"]), (["192.0.2.1", "10.1.100.1", "fd00::1"], ["0.0.0.0/0"]),
])  # fmt: skip
def test_but_where_nobody_tells_the_gateway_it_may_be(node: list[str], networks: list[str]) -> None:
    day = Day()
    day.node, day.pod_networks = node, networks
    day.saw("10.1.0.254", day.of("carts", 0), 8080, *range(0, DAY, SLOT))
    assert why(day.found(), "outside → carts TCP 8080") is Reason.SEEN


def test_a_pod_that_nobody_knows_asks_for_metadata() -> None:
    day = Day()
    day.saw("10.1.200.9", "169.254.169.254", 80, *range(0, DAY, 3600))
    assert why(day.found(), "10.1.200.9 → 169.254.169.254 TCP 80") is Reason.METADATA


@pytest.mark.parametrize("pods", [1, 2])
def test_ports_are_given_out_without_another_port_where_several_come_so(pods: int) -> None:
    day = Day()
    for port in range(20_000, 20_016):
        day.saw(day.of("carts", port % pods), day.of("front", 0), port, (port - 20_000) * 5000)
    reason = why(day.found(), "carts → front TCP 20003")
    assert (reason is Reason.GIVEN_OUT) is (pods == 2)


@pytest.mark.parametrize("of_another", [1, 3])
def test_a_conversation_of_another_makes_no_ports_of_one_given_out(of_another: int) -> None:
    """Nine are one's own; with three more it has three quarters of the twelve that were met."""
    day = Day()
    for port in range(20_000, 20_009):
        day.saw(day.of("carts", 0), day.of("front", 0), port, *range(43_200, 60_000, 1800))
    for port in range(20_000, 20_000 + of_another):
        day.saw(day.of("carts", 1), day.of("front", 0), port, 30_000)
    reason = why(day.found(), "carts → front TCP 20005")
    assert (reason is Reason.GIVEN_OUT) is (of_another == 3)


def test_a_port_that_is_met_often_is_not_given_out_though_nobody_declares_it() -> None:
    day = Day()
    for port in range(20_000, 20_016):
        day.saw(day.of("carts", port % 2), day.of("front", 0), port, (port - 20_000) * 5000)
    day.saw(day.of("carts", 0), day.of("front", 0), 19_000, *range(0, DAY, 3600))
    found = day.found()
    assert why(found, "carts → front TCP 20003") is Reason.GIVEN_OUT
    assert why(found, "carts → front TCP 19000") is Reason.SEEN
