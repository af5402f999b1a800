"""What intruders and scanners go on with, also often and for long."""

import pytest

from ringfence.discovery.reasons import Reason
from tests.unit.discovery.days import (
    DAY,
    PORTS,
    REPLICAS,
    SLOT,
    ByHand,
    Day,
    TwoByHand,
    Undeployed,
    weight,
    why,
)


@pytest.mark.parametrize("scans", [False, True])
def test_pods_started_by_hand_are_no_replicas_of_each_other(scans: bool) -> None:
    day = TwoByHand()
    for other in (day.alone, day.another):
        for name in ("mail", "front", "db"):
            day.saw(other, day.of(name, 0), PORTS[name], 40_000, 41_000, 42_000)
    if scans:
        day.scans(day.another, day.of("orders", 0), 30_000)
    reason = why(day.found(), "pods → mail TCP 25")
    assert reason is (Reason.SCAN if scans else Reason.SEEN)


@pytest.mark.parametrize("often", [1, 12, 60])
@pytest.mark.parametrize("others", [0, 5])
def test_of_an_intruder_s_own_somebody_is_asked_though_configuration_names_it(
    others: int, often: int
) -> None:
    day = intruding(others)
    day.saw(day.of("carts", 0), day.of("mail", 0), 25, *range(50_000, 50_000 + often))
    reason = why(day.found(), "carts → mail TCP 25")
    assert reason is (Reason.FAN_OUT if others else Reason.DECLARED)


@pytest.mark.parametrize(("pod", "at"), [(0, 20_000), (1, 60_000)])
def test_but_not_where_it_had_that_before_or_another_has_it(pod: int, at: int) -> None:
    day = intruding(5)
    day.saw(day.of("carts", 0), day.of("mail", 0), 25, 50_000)
    day.saw(day.of("carts", pod), day.of("mail", 0), 25, at)
    reason = why(day.found(), "carts → mail TCP 25")
    assert reason in {Reason.SEEN, Reason.DECLARED}


def intruding(ports: int) -> Day:
    """A day on which one of carts' pods begins to use so many ports that nobody else does."""
    day = Day(references={"carts": ["mail"]})
    for port in range(9000, 9000 + ports):
        day.saw(day.of("carts", 0), day.of("orders", 0), port, 40_000, 41_000)
    return day


@pytest.mark.parametrize("often", [20, 60])
@pytest.mark.parametrize("others", [0, 3])
def test_what_an_intruder_does_often_in_a_short_time_is_no_need(others: int, often: int) -> None:
    day = ByHand()
    for port in range(9000, 9000 + others):
        day.saw(day.alone, day.of("orders", 0), port, 40_000)
    day.saw(day.alone, day.of("mail", 0), 25, *(40_000 + 200 * at // often for at in range(often)))
    reason = why(day.found(), "started → mail TCP 25")
    assert reason is (Reason.INTRUDER if others else Reason.STRANGER)


@pytest.mark.parametrize(("looked", "begins", "every", "reason"), [
    (0, 0, SLOT, Reason.SEEN), (80_000, 0, SLOT, Reason.SEEN),
    (70_000, 71_000, SLOT, Reason.FAN_OUT), (0, 71_000, SLOT, Reason.FAN_OUT),
    (0, 0, 3 * SLOT, Reason.STRANGER),
])  # fmt: skip
def test_what_nobody_deployed_does_often_is_asked_about_but_where_it_goes_on_all_day(
    looked: int, begins: int, every: int, reason: Reason
) -> None:
    day = ByHand()
    for port in range(9000, 9008 if looked else 9000):
        day.saw(day.alone, day.of("orders", 0), port, looked, looked + 5000)
    day.saw(day.alone, day.of("mail", 0), 25, *range(begins, DAY, every))
    assert why(day.found(), "started → mail TCP 25") is reason


@pytest.mark.parametrize("deployed", [False, True])
def test_but_not_where_nobody_tells_who_deployed_anything(deployed: bool) -> None:
    day = ByHand() if deployed else Undeployed()
    day.saw(day.alone, day.of("mail", 0), 25, *range(0, DAY, 9 * SLOT))
    found = day.found()
    (edge,) = (
        one
        for one in range(len(found.observed))
        if found.observed.format(one).startswith("started → mail")
    )
    assert bool(found.decisions.suspicion.weight[edge] > 0) is deployed


@pytest.mark.parametrize("ports", [0, 12])
def test_nor_do_two_of_them_tell_so_by_talking_to_each_other(ports: int) -> None:
    """However many edges of the cluster are then theirs."""
    day = TwoByHand()
    for port in range(9000, 9000 + ports):
        day.saw(day.alone, day.another, port, *range(0, DAY, 9 * SLOT))
    day.saw(day.alone, day.of("mail", 0), 25, *range(0, DAY, 9 * SLOT))
    assert weight(day.found(), "started → mail TCP 25") > 0


@pytest.mark.parametrize(("consumer", "pods", "begins", "reason"), [
    ("carts", 1, 40_000, Reason.ALONE),
    ("carts", 1, 0, Reason.SEEN),
    ("carts", REPLICAS, 40_000, Reason.SEEN),
    ("mail", 1, 40_000, Reason.SEEN),
])  # fmt: skip
def test_what_one_began_long_after_it_was_there_is_asked_about_however_often(
    consumer: str, pods: int, begins: int, reason: Reason
) -> None:
    """Of mail nothing was seen before: all of it is new."""
    day = Day()
    for pod in range(pods):
        day.saw(day.of(consumer, pod), day.of("orders", 0), 8080, *range(begins, DAY, 900))
    assert why(day.found(), f"{consumer} → orders TCP 8080") is reason


@pytest.mark.parametrize("since", [0, 40_000])
def test_who_was_met_on_core_services_alone_was_there(since: int) -> None:
    day = Day()
    for pod in range(REPLICAS):
        times = range(since, DAY, SLOT)
        day.saw(day.of("mail", pod), "198.51.100.1", 123, *times, protocol="UDP")
    day.saw(day.of("mail", 0), day.of("orders", 0), 8080, *range(40_000, DAY, 900))
    found = day.found()
    assert why(found, "mail → 198.51.100.1 UDP 123") is Reason.NTP
    assert (weight(found, "mail → orders TCP 8080") > 0) is (since == 0)


@pytest.mark.parametrize("pods", [1, REPLICAS])
def test_what_began_so_makes_nothing_usual_unless_several_began_it(pods: int) -> None:
    day, times = Day(), range(40_000, DAY, 900)
    for row in day.rows:
        row["consumer_process"] = "app"
    for pod in range(pods):
        day.saw(day.of("carts", pod), day.of("mail", 0), 25, *times, consumer_process="sh")
    for port, process in ((26, "app"), (27, "sh")):
        day.saw(day.of("carts", 0), day.of("mail", 0), port, *times, consumer_process=process)
    app, sh = (weight(day.found(), f"carts → mail TCP {port}") for port in (26, 27))
    assert sh == pytest.approx(app + 1.5 if pods == 1 else app)


@pytest.mark.parametrize("told", [False, True])
def test_what_answers_a_slow_scanner_is_asked_about(told: bool) -> None:
    day = Day(references={"carts": ["mail"] if told else []})
    day.scans(day.of("carts", 0), day.of("orders", 0), 3_000)
    day.saw(day.of("carts", 0), day.of("mail", 0), 25, *range(4_000, DAY, 6_000))
    reason = why(day.found(), "carts → mail TCP 25")
    assert reason is (Reason.SEEN if told else Reason.FAN_OUT)


@pytest.mark.parametrize(("until", "reason"), [(39_500, Reason.SEEN), (70_000, Reason.FEW)])
def test_what_it_goes_on_with_once_it_scans_supports_nobody_who_has_it(
    until: int, reason: Reason
) -> None:
    day = Day()
    day.saw(day.of("front", 1), day.of("db", 0), 5432, 30_000)
    day.saw(day.of("front", 0), day.of("db", 0), 5432, 39_000, until)
    day.scans(day.of("front", 0), day.of("mail", 0), 40_000)
    assert why(day.found(), "front → db TCP 5432") is reason


@pytest.mark.parametrize(("begins", "reason"), [(0, Reason.SCAN), (DAY // 2, Reason.SEEN)])
def test_who_was_started_by_hand_and_scans_all_day_has_no_other_use(
    begins: int, reason: Reason
) -> None:
    """However steadily some ends answer; what it did before it scanned is its own."""
    day = ByHand("shop")
    day.scans(day.alone, day.of("front", 0), begins)
    day.saw(day.alone, day.of("db", 0), PORTS["db"], *range(0, DAY, SLOT))
    assert why(day.found(), "started → db TCP 5432") is reason
