"""A generated day of 1,000 pods: their inventory, and what the agents of 20 nodes would report.

200 Deployments of five pods have a Service each; every pod talks to four of these through their
ClusterIPs, to DNS and to one address outside, and half of the pods are probed by their kubelet. A
pair of pods talks in some windows: how often is drawn once for each pair, from a distribution with
a long tail, so that most rows repeat the same few conversations. A conversation through a Service
leaves the rows that agents see of it: at the consumer's interface, translated at its node, and,
where the backend is on another node, at that node and at the backend's interface.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ringfence.model.address import parse_address
from ringfence.model.flow import Observer
from ringfence.model.ids import ClusterId, item_key
from ringfence.model.labels import make_labels
from ringfence.model.protocol import TCP, UDP
from ringfence.model.workload import Item, ItemKind, ServicePort, ServiceSpec, ServiceType
from ringfence.wire import batch

CLUSTER = ClusterId("bench")
SECOND = 10**9
START = 1_899_936_000 * SECOND  # a midnight
WINDOW_NS = 15 * SECOND
DAY = 5760
"""Windows in a day."""
FILE_WINDOWS = 60
NODES, PODS, REPLICAS, UPSTREAMS = 20, 1000, 5, 4
APPS = PODS // REPLICAS
DNS = APPS  # the last Service; pods of the first Deployment answer it
ROWS_A_DAY = 10_000_000
PROBED = 500
"""Pods that their kubelet probes, seen in every window."""
UPLINK = 2
NONE = parse_address("::")
NO_TUNNEL = (0, NONE, NONE, 0, 0)


def node_name(node: int) -> str:
    return f"node{node:02}"


def pod_address(pod: int) -> bytes:
    return parse_address(f"10.1.{pod % NODES}.{2 + pod // NODES}")


def inventory() -> list[Item]:
    """The nodes, pods and Services, with the labels that a small shop would have."""
    items = []
    for node in range(NODES):
        name = node_name(node)
        held = (parse_address(f"192.0.2.{10 + node}"), parse_address(f"10.1.{node}.1"))
        items.append(_item(ItemKind.NODE, name, held, {"name": name}))
    for pod in range(PODS):
        app = pod // REPLICAS
        name = f"app-{app:03}-{pod:04}-x7x9k"
        labels = {
            "name": name, "kubernetes.namespace": f"team-{app % 25:02}",
            "kubernetes.label.app": f"app-{app:03}", "kubernetes.label.version": "v1",
        }  # fmt: skip
        node = node_name(pod % NODES)
        items.append(_item(ItemKind.POD, name, (pod_address(pod),), labels, node))
    for service in range(APPS + 1):
        name = f"app-{service:03}"
        labels = {"name": name, "kubernetes.namespace": f"team-{service % 25:02}"}
        spec = ServiceSpec(ServiceType.CLUSTER_IP, (ServicePort("http", TCP, 80),))
        items.append(_item(ItemKind.SERVICE, name, (_cluster_ip(service),), labels, spec=spec))
    return items


def _cluster_ip(service: int) -> bytes:
    return parse_address(f"10.96.{service // 250}.{1 + service % 250}")


def _item(
    kind: ItemKind,
    name: str,
    addresses: tuple[bytes, ...],
    labels: dict[str, str],
    node: str = "",
    spec: ServiceSpec | None = None,
) -> Item:
    return Item(
        item_key(CLUSTER, kind, name), kind, CLUSTER, labels.get("kubernetes.namespace", ""), name,
        addresses, make_labels(({"kind": kind, "kubernetes.cluster": CLUSTER} | labels).items()),
        node, service=spec,
    )  # fmt: skip


@dataclass(frozen=True)
class Pattern:
    """All that can ever be reported. `tells` pairs conversations with the rows that tell of them:
    a consumer's own interface tells of all backends of a Service in one row."""

    rows: pa.Table
    node: NDArray[np.int64]  # that reports a row, ascending
    chance: NDArray[np.float64]  # of each conversation in a window
    tells: NDArray[np.int64]  # shape (n, 2)


class _Rows:
    """Collects rows, each once, and which conversation they tell of."""

    def __init__(self) -> None:
        self.conversations = 0
        self.tells: list[tuple[int, int]] = []
        self.known: dict[tuple[object, ...], int] = {}

    def saw(
        self,
        at: tuple[int, int],
        consumer: bytes,
        to: tuple[bytes, int],
        before: tuple[bytes, tuple[bytes, int]] = (NONE, (NONE, 0)),
        protocol: int = TCP,
    ) -> None:
        """A row of the present conversation, seen at an interface of a node."""
        node, interface = at
        observer = Observer.NODE if interface == UPLINK else Observer.POD
        method = "syn" if protocol == TCP else "socket"
        row = (
            node, observer, interface, protocol, consumer, to[0], 0, to[1],
            before[0], before[1][0], before[1][1], *NO_TUNNEL, method,
        )  # fmt: skip
        self.tells.append((self.conversations, self.known.setdefault(row, len(self.known))))

    def table(self) -> tuple[pa.Table, NDArray[np.int64], NDArray[np.int64]]:
        """The rows by node, those nodes, and what each row's number has become."""
        node, *columns = zip(*self.known, strict=True)
        order = np.argsort(node, kind="stable")
        kept = pa.schema(list(batch.FLOWS)[: len(columns)])
        rows = pa.table([pa.array(column) for column in columns], names=kept.names).cast(kept)
        return rows.take(pa.array(order)), np.array(node)[order], np.argsort(order)


def pattern(rng: np.random.Generator) -> Pattern:
    """Who talks to whom, and how often."""
    rows = _Rows()
    for pod in range(PODS):
        here, own, interface = pod % NODES, pod_address(pod), 100 + pod
        for service in [*rng.choice(APPS, UPSTREAMS, replace=False).tolist(), DNS]:
            protocol, port, target = (UDP, 53, 53) if service == DNS else (TCP, 80, 8080)
            front = (_cluster_ip(service), port)
            for other in range(service % APPS * REPLICAS, (service % APPS + 1) * REPLICAS):
                there, to = other % NODES, (pod_address(other), target)
                rows.saw((here, interface), own, front, protocol=protocol)
                at = (here, 100 + other if there == here else UPLINK)
                rows.saw(at, own, to, (own, front), protocol)
                if there != here:
                    rows.saw((there, UPLINK), own, to, protocol=protocol)
                    rows.saw((there, 100 + other), own, to, protocol=protocol)
                rows.conversations += 1
        outside = (parse_address(f"203.0.113.{pod % 40}"), 443)
        rows.saw((here, interface), own, outside)
        rows.saw((here, UPLINK), parse_address(f"192.0.2.{10 + here}"), outside, (own, outside))
        rows.conversations += 1
    drawn = rows.conversations
    for pod in range(PROBED):
        gateway = parse_address(f"10.1.{pod % NODES}.1")
        rows.saw((pod % NODES, 100 + pod), gateway, (pod_address(pod), 8080))
        rows.conversations += 1
    table, node, becomes = rows.table()
    tells = np.array(rows.tells, dtype=np.int64)
    tells[:, 1] = becomes[tells[:, 1]]
    chance = np.ones(rows.conversations)
    chance[:drawn] = _chances(rng, tells[tells[:, 0] < drawn], ROWS_A_DAY / DAY - PROBED)
    return Pattern(table, node, chance, tells)


def _chances(
    rng: np.random.Generator, tells: NDArray[np.int64], rows_a_window: float
) -> NDArray[np.float64]:
    """How likely each conversation is in a window, for so many rows to be told of all."""
    weight = rng.lognormal(sigma=2.0, size=tells[:, 0].max() + 1)
    scale, chance = 1e-4, np.zeros(len(weight))
    while True:
        silent = np.zeros(tells[:, 1].max() + 1)
        np.add.at(silent, tells[:, 1], np.log1p(-chance[tells[:, 0]]))
        if (1 - np.exp(silent)).sum() >= rows_a_window:
            return chance
        scale *= 1.02
        chance = np.minimum(weight * scale, 0.95)


def reports(windows: int, seed: int = 4) -> Iterator[pa.Table]:
    """Window by window, node by node, what its agent reports, with the schema `batch.FLOWS`."""
    rng = np.random.default_rng(seed)
    shape = pattern(rng)
    for window in range(windows):
        happens = rng.random(len(shape.chance)) < shape.chance
        told = shape.tells[happens[shape.tells[:, 0]]]
        chosen, row = np.unique(told[:, 1], return_inverse=True)
        columns = _counts(rng, told[:, 0], row, len(chosen), START + window * WINDOW_NS)
        same = shape.rows.take(pa.array(chosen))
        columns["provider_dns_name"] = pa.repeat("", len(chosen))
        columns |= {name: same[name].combine_chunks() for name in same.schema.names}
        for end in ("consumer", "provider"):
            columns |= _processes(end, batch.addresses(same[end]), shape.node[chosen])
        rows = batch.table(batch.FLOWS, columns)
        bounds = np.searchsorted(shape.node[chosen], np.arange(NODES + 1))
        for node in range(NODES):
            yield rows.slice(bounds[node], bounds[node + 1] - bounds[node])


def _processes(
    end: str, addresses: NDArray[np.uint8], node: NDArray[np.int64]
) -> dict[str, NDArray[np.generic] | pa.Array]:
    """One process in each pod, which its node's agent knows."""
    local = (addresses[:, 13] == 1) & (addresses[:, 14] == node)
    number = np.where(local, addresses[:, 15].astype(np.int64), 0)
    names = pa.array(["", *(f"app-{one % APPS}" for one in range(1, 256))])
    return {
        f"{end}_process": names.take(pa.array(number)),
        f"{end}_pid": np.where(local, 1000 + 30 * number, 0),
        f"{end}_container": names.take(pa.array(number)),
    }


def _counts(
    rng: np.random.Generator,
    conversation: NDArray[np.int64],
    row: NDArray[np.int64],
    rows: int,
    start: int,
) -> dict[str, NDArray[np.generic]]:
    """What the rows of a window count, for each the sum over its conversations."""
    _, which = np.unique(conversation, return_inverse=True)
    count = int(which.max()) + 1
    opened = 1 + rng.poisson(1.5, count)
    packets = opened * 5 + rng.poisson(4, count)

    def summed(values: NDArray[np.generic]) -> NDArray[np.int64]:
        return np.bincount(row, weights=values[which], minlength=rows).astype(np.int64)

    length = (rng.random(rows) * 0.5 * WINDOW_NS).astype(np.int64)
    first = start + (rng.random(rows) * 0.5 * WINDOW_NS).astype(np.int64)
    flags, none = np.full(rows, 0x1B), np.zeros(rows, dtype=np.int64)
    connections, rtt = summed(opened), (200_000 * rng.lognormal(0, 0.5, rows)).astype(np.int64)
    ways = {
        f"{way}_{name}": connections if name in {"syn", "fin"} else none
        for way in ("forward", "reverse")
        for name in ("syn", "fin", "rst", "retransmitted")
    }
    return ways | {
        "forward_packets": summed(packets),
        "forward_bytes": summed(packets * 60 + opened * rng.lognormal(6, 1.5, count)),
        "forward_flags": flags,
        "reverse_packets": summed(packets),
        "reverse_bytes": summed(packets * 60 + opened * rng.lognormal(8, 1.5, count)),
        "reverse_flags": flags,
        "opened": connections,
        "answered": connections,
        "refused": none,
        "rtt_samples": connections,
        "rtt_sum_ns": connections * rtt,
        "rtt_min_ns": rtt,
        "first_ns": first,
        "last_ns": first + length,
    }


def write(directory: Path, number: int) -> None:
    """Write `number` windows into files of FILE_WINDOWS each: a record batch for each report."""
    told = reports(number)
    for first in range(0, number, FILE_WINDOWS):
        path = directory / f"{first:05}.arrows"
        count = min(FILE_WINDOWS, number - first) * NODES
        with pa.ipc.new_stream(path, batch.FLOWS) as writer:
            for rows in islice(told, count):
                writer.write_batch(rows.combine_chunks().to_batches()[0])


if __name__ == "__main__":
    write(Path(sys.argv[1]), int(sys.argv[2]))
