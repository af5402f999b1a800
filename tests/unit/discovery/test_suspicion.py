"""What one source does that its like never do, and what clean sources say of the same."""

import io
import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from bench.discovery.proposed import ALL, TREE
from ringfence.control.discover import Discovery, discover
from ringfence.discovery.reasons import Reason
from ringfence.flows.recorded import read_flows
from ringfence.inventory.recorded import read_inventory
from ringfence.model.ids import WorkspaceName

DAY, SLOT = 86_400, 300
BEGIN = 1_900_000_000
REPLICAS = 3
PORTS = {"front": 8080, "carts": 8080, "orders": 8080, "db": 5432, "mail": 25}
BUSY = [("front", "carts"), ("front", "orders"), ("orders", "carts"), ("carts", "db")]
SCANNED = range(9000, 9012)
Row = dict[str, Any]


class Day:
    """Two namespaces of an application, each workload of three pods, busy all day."""

    node, pod_networks = ["192.0.2.1", "10.1.100.1"], ["10.1.0.0/16"]
    """The node's own address and the gateway's, which an agent tells."""

    def __init__(self, *spaces: str, references: dict[str, list[str]] | None = None) -> None:
        self.spaces, self.references = spaces or ("shop",), references or {}
        self.rows: list[Row] = []
        for space in self.spaces:
            for consumer, provider in BUSY:
                for at in range(0, DAY, SLOT):
                    pod = at // SLOT % REPLICAS
                    self.saw(self.of(consumer, pod, space), self.of(provider, pod, space),
                             PORTS[provider], at)  # fmt: skip

    def of(self, name: str, pod: int, space: str = "") -> str:
        number = self.spaces.index(space or self.spaces[0])
        return f"10.1.{number}.{10 * [*PORTS].index(name) + pod + 1}"

    def saw(self, consumer: str, provider: str, port: int, *times: int, **counts: Any) -> None:
        told = {"opened": 1, "answered": 1, "refused": 0, "reverse_packets": 5}
        told |= {"consumer_process": ""} | counts
        for at in times:
            self.rows.append(
                {"first": (BEGIN + at) * 10**9, "last": (BEGIN + at + 1) * 10**9,
                 "consumer_address": consumer, "provider_address": provider, "protocol": "TCP",
                 "port": port, "dialled_address": provider, "dialled_port": port, **told}
            )  # fmt: skip

    def failed(self, consumer: str, provider: str, port: int, *times: int) -> None:
        self.saw(consumer, provider, port, *times, answered=0, reverse_packets=0)

    def scans(self, consumer: str, provider: str, since: int) -> None:
        for number, port in enumerate(SCANNED):
            self.failed(consumer, provider, port, since + 60 * number)

    def tells_no_openings(self) -> None:
        for row in self.rows:
            del row["opened"]

    def found(self) -> Discovery:
        sink = io.BytesIO()
        table = pa.Table.from_pylist(self.rows)
        for name in ("first", "last"):
            at = table.schema.get_field_index(name)
            table = table.set_column(at, name, table[name].cast(pa.timestamp("ns", "UTC")))
        pa.parquet.write_table(table, sink)
        sink.seek(0)
        timeline = read_inventory(json.dumps([*self._items()]), "inventory").timeline
        seen = read_flows(sink, "flows", timeline)
        return discover(seen, timeline, TREE, ALL, WorkspaceName(ALL))

    def _items(self) -> Any:
        yield {"kind": "node", "kubernetes_cluster": "lab", "name": "node1",
               "addresses": self.node, "pod_networks": self.pod_networks}  # fmt: skip
        for space in self.spaces:
            yield self._service("mail", space)
            for name, port in PORTS.items():
                for pod in range(REPLICAS):
                    yield {
                        "kind": "pod", "kubernetes_cluster": "lab", "namespace": space,
                        "name": f"{name}-{pod}", "node": "node1", "workload_name": name,
                        "owner": f"Deployment/{name}", "addresses": [self.of(name, pod, space)],
                        "containers": [{"name": "main", "protocol": "TCP", "port": port}],
                        "labels": {"kubernetes.label.app": [name]},
                        "references": self.references.get(name, []),
                    }  # fmt: skip

    def _service(self, name: str, space: str) -> dict[str, Any]:
        """A headless one, so that its backends are dialled straight."""
        port, backends = {"name": "main", "protocol": "TCP", "port": PORTS[name]}, [
            {"service_port": "main", "protocol": "TCP", "address": self.of(name, pod, space),
             "port": PORTS[name], "serving": True}
            for pod in range(REPLICAS)
        ]  # fmt: skip
        return {
            "kind": "service", "kubernetes_cluster": "lab", "namespace": space, "name": name,
            "service": {"type": "ClusterIP", "ports": [port], "backends": backends},
        }  # fmt: skip


class ByHand(Day):
    """With a pod beside that nothing deployed."""

    alone = "10.1.99.1"

    def _items(self) -> Any:
        yield from super()._items()
        yield {"kind": "pod", "kubernetes_cluster": "lab", "namespace": self.spaces[0],
               "name": "started", "node": "node1", "workload_name": "started",
               "addresses": [self.alone]}  # fmt: skip


class Undeployed(ByHand):
    """Of no pod it is known who owns it, nor by what labels or Services it goes."""

    def _items(self) -> Any:
        for item in super()._items():
            if item["kind"] == "pod":
                yield item | {"owner": "", "workload_name": item["name"], "labels": {}}


class TwoByHand(ByHand):
    """With another, of which no more is known."""

    another = "10.1.99.2"

    def _items(self) -> Any:
        yield from super()._items()
        yield {"kind": "pod", "kubernetes_cluster": "lab", "namespace": self.spaces[0],
               "name": "other", "node": "node1", "addresses": [self.another]}  # fmt: skip


def why(found: Discovery, edge: str) -> Reason:
    """The deciding reason of the edge that is told by these words."""
    seen = found.observed
    (at,) = (one for one in range(len(seen)) if seen.format(one) == edge)
    return next(found.decisions.reasons(at))


def weight(found: Discovery, edge: str) -> float:
    seen = found.observed
    (at,) = (one for one in range(len(seen)) if seen.format(one) == edge)
    return float(found.decisions.suspicion.weight[at])


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


@pytest.mark.parametrize(("begins", "reason"), [(0, Reason.SCAN), (DAY // 2, Reason.SEEN)])
def test_who_was_started_by_hand_and_scans_all_day_has_no_other_use(
    begins: int, reason: Reason
) -> None:
    """However steadily some ends answer; what it did before it scanned is its own."""
    day = ByHand("shop")
    day.scans(day.alone, day.of("front", 0), begins)
    day.saw(day.alone, day.of("db", 0), PORTS["db"], *range(0, DAY, SLOT))
    assert why(day.found(), "started → db TCP 5432") is reason


@pytest.mark.parametrize("pods", [1, 2])
def test_ports_are_given_out_without_another_port_where_several_come_so(pods: int) -> None:
    day = Day()
    for port in range(20_000, 20_016):
        day.saw(day.of("carts", port % pods), day.of("front", 0), port, (port - 20_000) * 5000)
    reason = why(day.found(), "carts → front TCP 20003")
    assert (reason is Reason.GIVEN_OUT) is (pods == 2)


def test_a_port_that_is_met_often_is_not_given_out_though_nobody_declares_it() -> None:
    day = Day()
    for port in range(20_000, 20_016):
        day.saw(day.of("carts", port % 2), day.of("front", 0), port, (port - 20_000) * 5000)
    day.saw(day.of("carts", 0), day.of("front", 0), 19_000, *range(0, DAY, 3600))
    found = day.found()
    assert why(found, "carts → front TCP 20003") is Reason.GIVEN_OUT
    assert why(found, "carts → front TCP 19000") is Reason.SEEN
