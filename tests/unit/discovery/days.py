"""Days of a small application, busy and known, to which tests add what somebody did besides."""

import io
import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from bench.discovery.proposed import ALL, TREE
from ringfence.control.discover import AS_USUAL, Discovery, Wanted, discover
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

    def found(self, wanted: Wanted = AS_USUAL) -> Discovery:
        sink = io.BytesIO()
        table = pa.Table.from_pylist(self.rows)
        for name in ("first", "last"):
            at = table.schema.get_field_index(name)
            table = table.set_column(at, name, table[name].cast(pa.timestamp("ns", "UTC")))
        pa.parquet.write_table(table, sink)
        sink.seek(0)
        timeline = read_inventory(json.dumps([*self._items()]), "inventory").timeline
        seen = read_flows(sink, "flows", timeline)
        return discover(seen, timeline, TREE, ALL, WorkspaceName(ALL), wanted)

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
