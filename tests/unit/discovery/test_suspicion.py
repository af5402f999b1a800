"""What suspicion does to edges: of whom it is, and what speaks for them."""

from typing import Any

import pytest

from ringfence.discovery.reasons import Reason
from tests.unit.discovery.days import DAY, PORTS, REPLICAS, SLOT, Day, weight, why


def test_several_who_try_what_answers_once_have_use_for_it() -> None:
    day = Day()
    day.saw(day.of("orders", 0), day.of("db", 0), 5432, 30_000)
    assert why(day.found(), "orders → db TCP 5432") is Reason.FEW
    day.failed(day.of("orders", 1), day.of("db", 0), 5432, 40_000)
    assert why(day.found(), "orders → db TCP 5432") is Reason.SPREAD


@pytest.mark.parametrize("dialled", [False, True])
def test_what_another_only_dials_makes_nobody_less_of_an_intruder(dialled: bool) -> None:
    day, novel = Day(), {"mail": 25, "orders": 8080, "front": 22}
    for name, port in novel.items():
        day.saw(day.of("carts", 0), day.of(name, 0), port, 80_000, 81_000)
        if dialled:
            day.failed(day.of("carts", 1), day.of(name, 0), port, 80_500)
    for name, port in novel.items():
        assert why(day.found(), f"carts → {name} TCP {port}") is Reason.INTRUDER


@pytest.mark.parametrize("dialled", [False, True])
def test_nor_does_another_host_outside(dialled: bool) -> None:
    day, novel = Day(), {"db": 5432, "mail": 25}
    for name, port in novel.items():
        day.saw("198.51.100.7", day.of(name, 0), port, 20_000, 30_000)
        if dialled:
            day.failed("203.0.113.99", day.of(name, 0), port, 21_000)
    for name, port in novel.items():
        assert why(day.found(), f"outside → {name} TCP {port}") is Reason.INTRUDER


def test_two_at_one_time_are_one_interval() -> None:
    day = Day()
    for pod in (0, 1):
        day.saw(day.of("front", pod), day.of("db", 0), 5432, 30_000)
    assert why(day.found(), "front → db TCP 5432") is Reason.SPREAD


def test_clean_sources_judge_what_they_and_a_scanner_have() -> None:
    day = Day()
    day.saw(day.of("front", 1), day.of("db", 0), 5432, 30_000)
    day.saw(day.of("front", 0), day.of("db", 0), 5432, 50_000)
    assert why(day.found(), "front → db TCP 5432") is Reason.SEEN
    day.scans(day.of("front", 0), day.of("mail", 0), 40_000)
    assert why(day.found(), "front → db TCP 5432") is Reason.FEW
    assert why(day.found(), "front → carts TCP 8080") is Reason.SEEN
    day.saw(day.of("front", 0), day.of("db", 0), 5432, 20_000)
    assert why(day.found(), "front → db TCP 5432") is Reason.SEEN


@pytest.mark.parametrize("odd", [False, True])
def test_nor_does_who_has_anything_suspicious_support(odd: bool) -> None:
    """It need be no intruder."""
    day = Day()
    day.saw(day.of("front", 1), day.of("db", 0), 5432, 30_000)
    day.saw(day.of("front", 0), day.of("db", 0), 5432, 50_000)
    if odd:
        day.saw(day.of("front", 0), day.of("mail", 0), 22, *range(40_000, 45_000, 1000))
    found = day.found()
    assert not odd or why(found, "front → mail TCP 22") is Reason.ALONE
    assert why(found, "front → db TCP 5432") is (Reason.FEW if odd else Reason.SEEN)


def test_what_a_scanner_did_before_it_scanned_is_its_own() -> None:
    day = Day()
    day.saw(day.of("orders", 0), day.of("db", 0), 5432, 50_000, 60_000)
    day.scans(day.of("orders", 0), day.of("mail", 0), 40_000)
    assert why(day.found(), "orders → db TCP 5432") is Reason.SCAN
    day.saw(day.of("orders", 0), day.of("db", 0), 5432, 20_000)
    assert why(day.found(), "orders → db TCP 5432") is Reason.FAN_OUT


def test_what_it_had_just_before_is_part_of_the_scan() -> None:
    day = Day()
    day.saw(day.of("orders", 0), day.of("db", 0), 5432, 40_000 - SLOT // 2, 60_000)
    day.scans(day.of("orders", 0), day.of("mail", 0), 40_000)
    assert why(day.found(), "orders → db TCP 5432") is Reason.SCAN


def test_what_it_had_before_is_not_an_intruder_s_either() -> None:
    day, novel = Day(), {"db": 5432, "mail": 25}
    day.scans(day.of("orders", 0), day.of("mail", 0), 40_000)
    for name, port in novel.items():
        day.saw(day.of("orders", 0), day.of(name, 0), port, 20_000, 50_000, 60_000)
    for name, port in novel.items():
        assert why(day.found(), f"orders → {name} TCP {port}") is Reason.FAN_OUT


def test_of_one_host_outside_is_asked_once_at_most() -> None:
    day = Day()
    day.saw("198.51.100.7", day.of("db", 0), 5432, 20_000, 30_000)
    assert why(day.found(), "outside → db TCP 5432") is Reason.STRANGER
    day.saw("198.51.100.7", day.of("orders", 0), 8080, 25_000, 35_000)
    for provider in ("db TCP 5432", "orders TCP 8080"):
        assert why(day.found(), f"outside → {provider}") is Reason.INTRUDER


def test_two_intruders_outside_do_not_speak_for_each_other() -> None:
    day = Day()
    for host, others in (("198.51.100.7", ("orders", "mail")), ("203.0.113.9", ("carts", "front"))):
        day.saw(host, day.of("db", 0), 5432, 20_000)
        for name in others:
            day.saw(host, day.of(name, 0), PORTS[name], 30_000, 40_000)
    assert why(day.found(), "outside → db TCP 5432") is Reason.INTRUDER


@pytest.mark.parametrize("scans", [False, True])
def test_a_scanner_in_another_namespace_makes_no_twin(scans: bool) -> None:
    day = Day("shop", "stage")
    day.saw(day.of("carts", 0, "shop"), day.of("mail", 0, "shop"), 25, 50_000)
    day.saw(day.of("carts", 0, "stage"), day.of("mail", 0, "stage"), 25, 30_000)
    if scans:
        day.scans(day.of("carts", 0, "shop"), day.of("orders", 0, "shop"), 40_000)
    reason = why(day.found(), "stage-carts → stage-mail TCP 25")
    assert reason is (Reason.UNUSUAL if scans else Reason.TWIN)


@pytest.mark.parametrize(("told", "reason"), [
    ("mail", Reason.DECLARED), ("mail:25", Reason.DECLARED), ("mail:80", Reason.FEW),
    ("mail:25/x", Reason.FEW), ("mail:²", Reason.FEW), ("mail:٢٥", Reason.FEW),
    ("mail:0", Reason.FEW), ("mail:" + 5000 * "2", Reason.FEW),
])  # fmt: skip
def test_a_reference_with_a_port_speaks_for_that_alone(told: str, reason: Reason) -> None:
    day = Day(references={"carts": [told]})
    day.saw(day.of("carts", 0), day.of("mail", 0), 25, 50_000)
    assert why(day.found(), "carts → mail TCP 25") is reason


@pytest.mark.parametrize("cluster", ["lab", "other"])
def test_a_reference_speaks_for_the_service_of_its_own_cluster(cluster: str) -> None:
    class Mailing(Day):
        def _service(self, name: str, space: str) -> dict[str, Any]:
            return super()._service(name, space) | {"kubernetes_cluster": cluster}

    day = Mailing(references={"carts": ["mail"]})
    day.saw(day.of("carts", 0), day.of("mail", 0), 25, 50_000)
    reason = why(day.found(), "carts → mail TCP 25")
    assert reason is (Reason.DECLARED if cluster == "lab" else Reason.FEW)


def test_an_address_beside_a_known_one_outside_fits() -> None:
    day = Day()
    day.saw(day.of("carts", 0), "203.0.113.10", 443, *range(0, DAY, 3600))
    day.saw(day.of("carts", 0), "203.0.113.11", 443, 30_000, 40_000)
    day.saw(day.of("carts", 0), "198.51.100.11", 443, 30_000, 40_000)
    day.saw(day.of("carts", 0), "203.0.113.11", 25, 30_000, 40_000)
    found = day.found()
    assert 0 < weight(found, "carts → 203.0.113.11 TCP 443") < 1
    assert weight(found, "carts → 198.51.100.11 TCP 443") > 1
    assert weight(found, "carts → 203.0.113.11 TCP 25") > 1


@pytest.mark.parametrize("begins", [30_000, 80_000])
def test_many_addresses_beside_a_known_one_do_not(begins: int) -> None:
    day = Day()
    for pod in range(REPLICAS):
        day.saw(day.of("carts", pod), "203.0.113.10", 443, *range(0, DAY, 3600))
    for last in range(60, 65):
        day.saw(day.of("carts", 0), f"203.0.113.{last}", 443, begins, begins + 2000)
    found = day.found()
    for last in range(60, 65):
        assert why(found, f"carts → 203.0.113.{last} TCP 443") is Reason.INTRUDER


@pytest.mark.parametrize(("odd", "least"), [({"consumer_process": "sh"}, 2), ({"at": 80_000}, 1)])
def test_nor_does_one_by_another_process_or_late(odd: dict[str, Any], least: float) -> None:
    day, at = Day(), odd.pop("at", 30_000)
    day.saw(day.of("carts", 0), "203.0.113.10", 443, *range(0, DAY, 3600), consumer_process="app")
    day.saw(
        day.of("carts", 0), "203.0.113.66", 443, at, at + 600, **{"consumer_process": "app"} | odd
    )
    assert weight(day.found(), "carts → 203.0.113.66 TCP 443") > least


def test_what_fits_adds_nothing_to_a_source_s_weight() -> None:
    day, seldom = Day(), range(90, 95)
    for port in range(80, 95):
        for consumer in ("front", "orders", *(() if port in seldom else ("carts",))):
            for at in range(REPLICAS):
                day.saw(day.of(consumer, at), day.of("mail", 0), port, *range(at, DAY, 7200))
    for port in seldom:
        day.saw(day.of("carts", 0), day.of("mail", 0), port, 30_000)
    found = day.found()
    for port in seldom:
        assert 0.3 < weight(found, f"carts → mail TCP {port}") < 0.7
        assert why(found, f"carts → mail TCP {port}") is Reason.FEW


def like_others(*lacking: int) -> Day:
    """A day on which carts uses all ports of mail's that others do, but not these."""
    day = Day()
    for port in range(80, 95):
        for consumer in ("front", "orders", *(() if port in lacking else ("carts",))):
            for at in range(REPLICAS):
                day.saw(day.of(consumer, at), day.of("mail", 0), port, *range(at, DAY, 7200))
    return day


@pytest.mark.parametrize("port", [22, 5432])
@pytest.mark.parametrize(("fails", "reason"), [(False, Reason.FITS), (True, Reason.FEW)])
def test_one_conversation_is_allowed_where_it_fits_and_its_source_did_nothing_else(
    fails: bool, reason: Reason, port: int
) -> None:
    """Where it failed somebody else may be answered."""
    day = like_others(90)
    day.rows = [row for row in day.rows if row["port"] != 5432 or row["consumer_address"]
                != day.of("carts", 0)]  # fmt: skip
    day.saw(day.of("carts", 0), day.of("mail", 0), 90, 30_000)
    if fails:
        day.failed(day.of("carts", 0), day.of("db", 0), port, 31_000)
    assert why(day.found(), "carts → mail TCP 90") is reason


@pytest.mark.parametrize(("many", "reason"), [(1, Reason.FITS), (2, Reason.FEW), (9, Reason.FEW)])
def test_but_not_several_in_one_interval(many: int, reason: Reason) -> None:
    day = like_others(90)
    day.saw(day.of("carts", 0), day.of("mail", 0), 90, *range(30_000, 30_000 + many))
    assert why(day.found(), "carts → mail TCP 90") is reason


@pytest.mark.parametrize(("ports", "reason"), [
    ([90, 91], Reason.FITS), ([90, 91, 92], Reason.FEW),
])  # fmt: skip
def test_nor_many_of_one_workload_though_each_of_its_pods_has_few(
    ports: list[int], reason: Reason
) -> None:
    day = like_others(*ports)
    for at, port in enumerate(ports):
        day.saw(day.of("carts", at), day.of("mail", 0), port, 30_000 + 1000 * at)
    found = day.found()
    assert {why(found, f"carts → mail TCP {port}") for port in ports} == {reason}


@pytest.mark.parametrize(("name", "reason"), [("mail", Reason.FITS), ("orders", Reason.FEW)])
def test_nor_where_its_source_did_what_fits_no_better_than_a_random_one(
    name: str, reason: Reason
) -> None:
    day = like_others(90, 91)
    port = {"mail": 91, "orders": 22}[name]
    for to, at in (("mail", 90), (name, port)):
        day.saw(day.of("carts", 0), day.of(to, 0), at, 30_000)
    found = day.found()
    assert (weight(found, f"carts → {name} TCP {port}") >= 1) is (reason is Reason.FEW)
    assert why(found, "carts → mail TCP 90") is reason


def test_a_host_outside_keeps_nobody_company() -> None:
    """What it goes on to do may be much the same as what a workload does."""
    day, host = Day(), "203.0.113.7"
    for at in range(0, DAY, SLOT):
        for consumer in (host, day.of("mail", at // SLOT % REPLICAS)):
            day.saw(consumer, day.of("front", 0), 8080, at)
            day.saw(consumer, day.of("carts", 0), 8080, at)
        day.saw(day.of("mail", at // SLOT % REPLICAS), day.of("orders", 0), 9999, at)
    day.saw(host, day.of("orders", 0), 9999, 30_000, 30_900)
    found = day.found()
    assert weight(found, "outside → orders TCP 9999") == 2.5
    assert why(found, "outside → orders TCP 9999") is Reason.STRANGER


def test_one_conversation_is_late_as_often_as_any() -> None:
    def late(*times: int) -> float:
        day = Day()
        day.saw(day.of("orders", 0), day.of("db", 0), 5432, *times)
        return weight(day.found(), "orders → db TCP 5432")

    assert late(30_000) == late(80_000)
    assert late(30_000, 31_000) == pytest.approx(late(80_000, 81_000) - 0.5)


@pytest.mark.parametrize("odd", [False, True])
def test_two_of_whom_something_is_suspicious_do_not_support_each_other(odd: bool) -> None:
    day = Day()
    for pod, (name, port) in enumerate((("front", 22), ("mail", 25))):
        day.saw(day.of("db", pod), day.of("orders", 0), 8080, 30_000 + pod * 1000, 40_000)
        if odd:
            day.saw(day.of("db", pod), day.of(name, 0), port, *range(50_000, 75_000, 5000))
    reason = why(day.found(), "db → orders TCP 8080")
    assert reason is (Reason.FAN_OUT if odd else Reason.SEEN)


@pytest.mark.parametrize(("at", "reason"), [(50_000, Reason.SEEN), (80_000, Reason.UNUSUAL)])
def test_a_quarter_as_likely_as_a_random_one_is_asked_about(at: int, reason: Reason) -> None:
    day = Day()
    day.saw(day.of("db", 0), day.of("front", 0), 22, at, at + 1000)
    found = day.found()
    assert 1.4 < weight(found, "db → front TCP 22") < 2
    assert why(found, "db → front TCP 22") is reason
