"""A day of an application: a graph of `appgraphs` as an inventory and what was seen of it."""

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ringfence.control.discover import past, peers_of
from ringfence.discovery.behaviour import SLOT_NS, behaviour
from ringfence.discovery.roles import Roles, roles
from ringfence.flows.connections import Records
from ringfence.inventory.seen_from import SeenFrom
from ringfence.inventory.snapshot import Snapshot
from ringfence.inventory.timeline import Timeline
from ringfence.model import labels
from ringfence.model.address import Address, parse_address
from ringfence.model.ids import ClusterId, RevisionId, item_key
from ringfence.model.labels import make_labels
from ringfence.model.policy import Cluster
from ringfence.model.protocol import TCP, parse_one_protocol
from ringfence.model.workload import Item, ItemKind

ROOT = Path(__file__).parents[3]
APPGRAPHS = (
    Path(os.environ.get("RINGFENCE_CORPORA", ROOT.parent / "shared" / "corpora")) / "appgraphs"
)
CLUSTER = ClusterId("lab")
START = 1_900_000_000 * 10**9 // SLOT_NS * SLOT_NS
SLOTS = 288
RARE = 5 / SLOTS
"""An edge of five conversations a day."""
_RANDOM_PART = "bcdfghjklmnpqrstvwxz2456789"


@dataclass
class Pod:
    item: Item
    workload: str
    begin: int
    end: int

    @property
    def at(self) -> Address:
        return self.item.addresses[0]


@dataclass
class World:
    """One application in one namespace, seen for SLOTS slots."""

    graph: dict[str, Any]
    seed: int = 1
    withheld: bool = False
    direct: float = 0.2
    """The share of providers that are dialled without a Service."""
    replicas: int = 3
    rare: float = 0.1
    """The share of edges that are RARE."""
    pods: list[Pod] = field(default_factory=list)
    rows: list[tuple[Any, ...]] = field(default_factory=list)
    dialler: dict[str, str] = field(default_factory=dict)
    """The process that each workload dials by, where agents tell."""
    history: Timeline = field(default_factory=Timeline)

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.seed)
        self._addresses = 0
        inside = [one for one in self.graph["workloads"] if one["kind"] != "External"]
        for workload in inside:
            self._deploy(workload)
        for edge in self.graph["edges"]:
            self._talk(edge)
        for pod in self.pods:
            self.history.observe(START + pod.begin * SLOT_NS, pod.item)
            if pod.end < SLOTS:
                self.history.gone(START + pod.end * SLOT_NS, pod.item.key)

    @property
    def records(self) -> Records:
        names = (
            "first",
            "provider",
            "dialled",
            "dialled_port",
            "protocol",
            "port",
            "first_ns",
            "n",
        )
        columns = dict(zip(names, zip(*self.rows, strict=True), strict=True))
        packed = {
            name: pa.array(columns[name], type=pa.binary(16))
            for name in ("first", "provider", "dialled")
        }
        first_ns = np.array(columns["first_ns"], dtype=np.int64)
        revisions = {
            end: self.history.resolve(
                np.frombuffer(b"".join(columns[end]), dtype=np.uint8).reshape(-1, 16),
                first_ns,
                first_ns,
                SeenFrom.one(CLUSTER, len(first_ns)),
            )
            for end in ("first", "provider")
        }
        table = pa.table(
            {
                "first_consumer": packed["first"],
                "first_consumer_revision": revisions["first"],
                "provider": packed["provider"],
                "provider_revision": revisions["provider"],
                "dialled": packed["dialled"],
                "dialled_port": pa.array(columns["dialled_port"], type=pa.uint16()),
                "protocol": pa.array(columns["protocol"], type=pa.uint8()),
                "provider_port": pa.array(columns["port"], type=pa.uint16()),
                "first_ns": first_ns,
                "last_ns": first_ns + 10**9,
                **{
                    name: pa.array(columns["n"], type=pa.uint64())
                    for name in ("opened", "answered", "forward_packets", "reverse_packets")
                },
                **{
                    name: pa.array(np.zeros(len(first_ns)), type=pa.uint64())
                    for name in ("refused", "forward_bytes", "reverse_bytes")
                },
            }
        )
        if self.dialler:
            process = {pod.at: self.dialler.get(pod.workload) for pod in self.pods}
            told = pa.array([process.get(one) for one in columns["first"]], type=pa.string())
            table = table.append_column("consumer_process", told)
        pairs = zip(columns["dialled"], columns["provider"], strict=True)
        translated = np.array([dialled != provider for dialled, provider in pairs])
        return Records(table, np.zeros(len(table), dtype=np.uint64), translated)

    @property
    def snapshot(self) -> Snapshot:
        """Everything that lived on that day."""
        return self.history.as_known().between(START, START + SLOTS * SLOT_NS)

    def roles(self, approved: Sequence[Cluster] = (), *, judged: bool = True) -> Roles:
        seen = behaviour(self.records, self.item_of, self.snapshot)
        return roles(self.snapshot, self.snapshot.workloads, seen, approved, judged=judged)

    def judged(self) -> Roles:
        """The roles by what is no noise."""
        return peers_of(past(self.records, self.history.as_known()), self.records).roles

    def dial(self, consumer: Pod, provider: Pod, port: int, *slots: int) -> None:
        """A conversation past any Service in each of some slots of time."""
        self.rows += [
            (consumer.at, provider.at, provider.at, port, TCP, port, START + slot * SLOT_NS + 1, 1)
            for slot in slots
        ]

    def of(self, workload: str) -> list[Pod]:
        """Its pods."""
        return [pod for pod in self.pods if pod.workload == workload]

    def item_of(self, revision: int) -> Item | None:
        return self.history.revision(RevisionId(revision))[0] if revision else None

    def truth(self) -> dict[str, Any]:
        """What each pod is one of, by the item's key: workloads with equal edges are one."""
        edges: dict[str, set[Any]] = {one["id"]: set() for one in self.graph["workloads"]}
        for edge in self.graph["edges"]:
            what = (edge["protocol"], edge["port"])
            edges[edge["consumer"]].add(("to", edge["provider"], *what))
            edges[edge["provider"]].add(("from", edge["consumer"], *what))
        same = {name: tuple(sorted(found)) for name, found in edges.items()}
        return {
            pod.item.key: same[pod.workload] if self.withheld else pod.workload for pod in self.pods
        }

    def address(self) -> Address:
        self._addresses += 1
        high, low = divmod(self._addresses, 250)
        return parse_address(f"10.1.{high}.{low + 1}")

    def _deploy(self, workload: dict[str, Any]) -> None:
        """Replicas, all replaced by a new version at some time of the day, and one that comes.

        Of a CronJob a run of one slot every so many slots.
        """
        if workload["kind"] == "CronJob":
            begins = range(0, SLOTS, workload["every"])
            self.pods += [self._pod(workload, "", "1.0", at, at + 1) for at in begins]
            return
        rolled = int(self.random.integers(SLOTS // 4, SLOTS * 3 // 4))
        versions = [(0, rolled, "1.0"), (rolled, SLOTS, "1.1")]
        if self.random.random() < 0.5:
            versions = [(0, SLOTS, "1.0")]
        count = self.replicas if workload["kind"] == "Deployment" else 1
        for begin, end, version in versions:
            hashed = self._random_part(9)
            for _ in range(count):
                self.pods.append(self._pod(workload, hashed, version, begin, end))
        if count > 1:
            self.pods.append(self._pod(workload, hashed, version, SLOTS // 2, SLOTS // 2 + 24))

    def _pod(self, workload: dict[str, Any], hashed: str, version: str, *life: int) -> Pod:
        name, space = f"{workload['id']}-{hashed}-{self._random_part(5)}", workload["namespace"]
        own = workload["labels"] | {"pod-template-hash": hashed}
        own |= {} if "version" in own else {"version": version}
        address = self.address()
        pairs = [
            (labels.KIND, "pod"),
            (labels.NAMESPACE, space),
            (labels.CLUSTER, CLUSTER),
            *((labels.LABEL_PREFIX + key, value) for key, value in own.items()),
            (labels.OWNER_KIND, workload["kind"]),
            (labels.OWNER_NAME, workload["id"]),
        ]
        owner = workload["id"]
        if self.withheld:
            pairs, name = pairs[:3], self._random_part(12)
            owner = name
        written = ".".join(str(octet) for octet in address[12:])
        pairs += [(labels.NAME, name), (labels.ADDRESS, written)]
        item = Item(
            item_key(CLUSTER, ItemKind.POD, name), ItemKind.POD, CLUSTER, space, name, (address,),
            make_labels(pairs), workload_name=owner,
        )  # fmt: skip
        begin, end = life
        return Pod(item, workload["id"], begin, end)

    def _random_part(self, length: int) -> str:
        return "".join(self.random.choice(list(_RANDOM_PART), length))

    def _talk(self, edge: dict[str, Any]) -> None:
        rate = RARE if self.random.random() < self.rare else 10 ** self.random.uniform(-0.3, 0.7)
        front = self._front(edge["provider"], edge["port"])
        protocol = parse_one_protocol(edge["protocol"])
        for slot in range(SLOTS):
            day = 1 + 0.7 * np.sin(2 * np.pi * slot / SLOTS)
            callers = self._alive(edge["consumer"], slot)
            called = self._alive(edge["provider"], slot)
            for _ in range(self.random.poisson(rate * day) if callers else 0):
                consumer = callers[self.random.integers(len(callers))]
                provider = called[self.random.integers(len(called))]
                dialled = front or (provider, edge["port"])
                self.rows.append(
                    (consumer, provider, *dialled, protocol, edge["port"],
                     START + slot * SLOT_NS + 1, 1)
                )  # fmt: skip

    def _front(self, workload: str, port: int) -> tuple[Address, int] | None:
        """The Service's address and port; outside, and of some inside, there is none."""
        number = self._names.index(workload)
        inside = any(pod.workload == workload for pod in self.pods)
        if not inside or np.random.default_rng([self.seed, number]).random() < self.direct:
            return None
        return parse_address(f"10.96.0.{number + 1}"), port

    @property
    def _names(self) -> list[str]:
        return [one["id"] for one in self.graph["workloads"]]

    def _alive(self, workload: str, slot: int) -> list[Address]:
        pods = [pod for pod in self.pods if pod.workload == workload]
        outside = parse_address(f"203.0.113.{self._names.index(workload) + 1}")
        return [pod.at for pod in pods if pod.begin <= slot < pod.end] if pods else [outside]


def graphs() -> list[dict[str, Any]]:
    """Every application of the corpus; none where it is not there."""
    return [json.loads(path.read_text()) for path in sorted(APPGRAPHS.glob("*.json"))]


def rand_index(truth: Iterable[Any], found: Iterable[Any]) -> float:
    """Adjusted for chance (Hubert and Arabie 1985)."""
    one, other = (_numbered(labelling) for labelling in (truth, found))
    table = np.zeros((one.max() + 1, other.max() + 1))
    np.add.at(table, (one, other), 1)
    pairs, rows, columns, every = (
        float((count * (count - 1) / 2).sum())
        for count in (table, table.sum(1), table.sum(0), np.array([table.sum()]))
    )
    expected, most = rows * columns / every, (rows + columns) / 2
    return 1.0 if most == expected else (pairs - expected) / (most - expected)


def _numbered(labelling: Iterable[Any]) -> np.ndarray[Any, Any]:
    seen: dict[Any, int] = {}
    return np.array([seen.setdefault(one, len(seen)) for one in labelling])
