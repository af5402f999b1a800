"""Connections are judged by the inventory of their own time, of which only ends are looked at."""

import asyncio
import io
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from numpy.typing import NDArray

from ringfence.control.analysis import History, by_inventory, connections_of, judge
from ringfence.control.judged import JudgedBy
from ringfence.flows.connections import Records
from ringfence.flows.recorded import read_flows
from ringfence.inventory.recorded import Recorded, read_inventory
from ringfence.inventory.resolutions import Resolutions
from ringfence.inventory.snapshot import Snapshot
from ringfence.model.ids import Version
from ringfence.model.scope import ScopeTree
from ringfence.policy.document import parse_documents
from ringfence.policy.evaluate import evaluate
from ringfence.policy.moment import UNTOLD

NOON = 1_893_499_200  # 2030-01-01T12:00:00Z
PODS, HOURS = 12, 8
POLICIES = """
apiVersion: ringfence.io/v1alpha1
kind: Scope
metadata: {name: all}
spec: {query: everything}
---
apiVersion: ringfence.io/v1alpha1
kind: Workspace
metadata: {name: all}
spec:
  scope: all
  catchAll: {inbound: DENY, outbound: DENY}
  policies:
  - id: even
    action: ALLOW
    consumer: {filter: 'kubernetes.label.now = "even"'}
    provider: {service: shop/front}
    protocol: TCP
  - id: odd
    action: ALLOW
    consumer: {filter: 'kubernetes.label.now = "odd"'}
    provider: {filter: 'kubernetes.label.now = "odd"'}
    protocol: TCP
    ports: [80]
"""


def at(hour: float) -> str:
    return datetime.fromtimestamp(NOON + hour * 3600, UTC).isoformat()


def inventory() -> Recorded:
    """Pods whose label changes hour by hour, each at its own minute, and a Service of theirs."""
    lives = []
    for pod in range(PODS):
        moment = pod / PODS
        starts = [None, *(hour + moment for hour in range(1, HOURS))]
        for number, (since, until) in enumerate(zip(starts, [*starts[1:], None], strict=True)):
            word = ("even", "odd")[(pod + number) % 2]
            since_until = "".join(
                f", {name}: '{at(hour)}'"
                for name, hour in (("from", since), ("to", until))
                if hour is not None
            )
            lives.append(
                f"- {{kind: pod, kubernetes_cluster: lab, namespace: shop, name: pod-{pod},"
                f" addresses: [10.0.0.{pod}], labels: {{kubernetes.label.now: [{word}]}}"
                f"{since_until}}}"
            )
    backends = ", ".join(
        f"{{service_port: http, protocol: TCP, address: 10.0.0.{pod}, port: 80}}"
        for pod in range(3)
    )
    lives.append(
        "- {kind: service, kubernetes_cluster: lab, namespace: shop, name: front, addresses:"
        " [10.96.0.1], service: {type: ClusterIP, ports: [{name: http, protocol: TCP, port: 80}],"
        f" backends: [{backends}]}}}}"
    )
    return read_inventory("\n".join(lives), "inventory.yaml")


def conversations(held: Recorded) -> Records:
    """Of every pod with every other, some through the Service, all the time."""
    rng = np.random.default_rng(3)
    rows = []
    for _ in range(600):
        consumer, provider = rng.choice(PODS, 2, replace=False).tolist()
        through = provider < 3 and rng.random() < 0.5
        first = at(rng.random() * HOURS)
        to = f"10.0.0.{provider}"
        rows.append(
            {
                "first": first,
                "last": first,
                "consumer_address": f"10.0.0.{consumer}",
                "provider_address": to,
                "protocol": "TCP",
                "port": 80,
                "dialled_port": 80,
                "dialled_address": "10.96.0.1" if through else to,
            }
        )
    sink = io.BytesIO()
    pa.parquet.write_table(pa.Table.from_pylist(rows), sink)
    sink.seek(0)
    return read_flows(sink, "flows.parquet", held.timeline)


def test_the_ends_alone_give_the_verdicts_of_the_whole_inventory() -> None:
    held = inventory()
    seen = conversations(held)
    documents = parse_documents(POLICIES, "policies.yaml")
    (workspace,) = documents.workspaces
    judged_by = JudgedBy(ScopeTree(documents.scopes), ((workspace, Version(1)),))
    history = History(held.timeline, Resolutions())
    found = asyncio.run(judge(seen, history, held.until_ns, judged_by, workspace.name))
    for row, first_ns in enumerate(seen.column("first_ns").tolist()):
        snapshot = held.timeline.at(first_ns)
        connections = connections_of(seen.take(np.array([row])), snapshot)
        whole = evaluate(judged_by.ringfence(snapshot, UNTOLD), connections)
        assert found.allowed[row] == whole.allowed[0], row
    assert 100 < found.allowed.sum() < 500


def test_earlier_inventories_have_no_pods_but_those_at_an_end() -> None:
    held = inventory()
    seen = conversations(held)

    async def parts() -> list[tuple[NDArray[np.intp], Snapshot]]:
        return [part async for part in by_inventory(seen, held.timeline, held.until_ns)]

    (_, present), *earlier = asyncio.run(parts())
    assert len(present.subjects) == PODS
    assert len(earlier) > HOURS
    for rows, snapshot in earlier:
        columns = [seen.column(f"{end}_revision") for end in ("first_consumer", "provider")]
        ends = set(np.concatenate([column[rows] for column in columns]).tolist())
        assert {int(snapshot.revisions[at]) for at in snapshot.subjects} <= ends
        assert len(snapshot.services) == 1
