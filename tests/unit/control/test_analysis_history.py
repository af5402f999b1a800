"""Connections are judged by the inventory of their own time, of which only ends are looked at."""

import asyncio
import io
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from numpy.typing import NDArray

from ringfence.control.analysis import History, by_inventory, connections_of, judge
from ringfence.control.judged import JudgedBy
from ringfence.flows.connections import Records
from ringfence.flows.merged import Merging
from ringfence.flows.recorded import read_flows, told_apart
from ringfence.inventory.recorded import Recorded, read_inventory
from ringfence.inventory.resolutions import Resolutions
from ringfence.inventory.snapshot import Snapshot
from ringfence.inventory.timeline import Timeline
from ringfence.model.address import parse_address
from ringfence.model.ids import Version
from ringfence.model.scope import ScopeTree
from ringfence.policy.document import parse_documents
from ringfence.policy.evaluate import evaluate
from ringfence.policy.moment import UNTOLD
from ringfence.policy.nodes import Surroundings

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


OUTSIDE = (
    POLICIES[: POLICIES.index("  - id: even")]
    + """
  - id: world
    action: ALLOW
    consumer: {host: outside}
    provider: {filter: everything}
    protocol: TCP
    ports: [80]
"""
)


def pod(number: int, held: int, life: str = "") -> str:
    return (
        f"- {{kind: pod, kubernetes_cluster: lab, namespace: shop, name: pod-{number},"
        f" addresses: [10.0.0.{held}], labels: {{kubernetes.label.now: [a]}}{life}}}"
    )


def flow(held: Timeline, *times: tuple[float, float]) -> Records:
    """From pod-1's address to pod-2, once in each time."""
    to = {"provider_address": "10.0.0.2", "dialled_address": "10.0.0.2", "dialled_port": 80}
    ends = {"consumer_address": "10.0.0.1", "protocol": "TCP", "port": 80, **to}
    rows = [{"first": at(first), "last": at(last), **ends} for first, last in times]
    sink = io.BytesIO()
    pa.parquet.write_table(pa.Table.from_pylist(rows), sink)
    sink.seek(0)
    return read_flows(sink, "flows.parquet", held)


def allowed(held: Timeline, seen: Records) -> list[bool]:
    """Whether what the world alone may do was allowed, as told two hours later."""
    documents = parse_documents(OUTSIDE, "policies.yaml")
    (workspace,) = documents.workspaces
    judged_by = JudgedBy(ScopeTree(documents.scopes), ((workspace, Version(1)),))
    until_ns, history = (NOON + 2 * 3600) * 10**9, History(held, Resolutions())
    found = asyncio.run(judge(seen, history, until_ns, judged_by, workspace.name))
    assert found.in_view.all()
    return [bool(one) for one in found.allowed]


def test_a_pod_whose_labels_were_told_late_is_not_outside() -> None:
    held = read_inventory("\n".join([pod(1, 1), pod(2, 2)]), "inventory.yaml").timeline
    seen = flow(held, (1, 1))
    one = next(item for item in held.latest().items if item.name == "pod-1")
    labels = {**one.labels, next(key for key in one.labels if "now" in key): ("b",)}
    assert held.observe((NOON + 3599) * 10**9, replace(one, labels=labels))
    assert allowed(held, seen) == [False]


def test_a_pod_whose_address_moved_on_meanwhile_is_not_outside() -> None:
    lives = [
        pod(1, 1, f", to: '{at(1.001)}'"),
        pod(9, 1, f", from: '{at(1.002)}'"),
        pod(2, 2, f", to: '{at(1.5)}'"),
    ]
    held = read_inventory("\n".join(lives), "inventory.yaml").timeline
    seen = flow(held, (1, 1.003))
    addresses, first_ns, last_ns = map(seen.column, ("first_consumer", "first_ns", "last_ns"))
    whose = held.resolve(addresses, first_ns, last_ns, seen.seen_from)
    assert whose.tolist() == [0], "live data have neither"
    place = seen.table.schema.get_field_index("first_consumer_revision")
    table = seen.table.set_column(place, seen.table.schema.field(place), pa.array(whose))
    assert allowed(held, Records(table, seen.dropped, seen.translated)) == [False]


def test_a_pod_that_came_in_the_midst_is_not_outside() -> None:
    life = f", from: '{at(1.001)}', to: '{at(1.5)}'"
    lives = [pod(1, 1, life), pod(3, 3, f", from: '{at(1.9)}'"), pod(2, 2)]
    held = read_inventory("\n".join(lives), "inventory.yaml").timeline
    slots = Merging(told_apart)
    slots.add(flow(held, (1, 1.004), (1.004, 1.008), (1.1, 1.2)))
    assert allowed(held, slots.all()) == [False]


def test_what_a_fail_safe_passes_is_allowed_by_it() -> None:
    """The kernel passes what nodes say to kubelets, and lets pods dial the control plane."""
    items = [
        f"- {{kind: node, kubernetes_cluster: lab, name: n{number}, addresses: [10.1.0.{number}]}}"
        for number in (1, 2)
    ]
    held = read_inventory("\n".join([pod(1, 1), *items]), "inventory.yaml").timeline
    rows = [
        {
            "first": at(1), "last": at(1), "protocol": "TCP", "port": port, "dialled_port": port,
            "consumer_address": consumer, "provider_address": to, "dialled_address": to,
        }
        for consumer, to, port in (
            ("10.1.0.2", "10.1.0.1", 10250),
            ("10.0.0.1", "10.1.0.1", 7443),
            ("10.0.0.1", "10.1.0.1", 10250),
        )
    ]  # fmt: skip
    sink = io.BytesIO()
    pa.parquet.write_table(pa.Table.from_pylist(rows), sink)
    sink.seek(0)
    seen = read_flows(sink, "flows.parquet", held)
    (workspace,) = parse_documents(POLICIES, "policies.yaml").workspaces
    tree = ScopeTree(parse_documents(POLICIES, "policies.yaml").scopes)
    judged_by = JudgedBy(tree, ((replace(workspace, policies=()), Version(1)),))
    around = Surroundings(((parse_address("10.1.0.1"), 7443),))
    history = History(held, Resolutions(), surroundings=around)
    found = asyncio.run(judge(seen, history, (NOON + 7200) * 10**9, judged_by, workspace.name))
    assert found.allowed.tolist() == [True, True, False]
    told = [
        {role.value: (str(one.action), one.stage.value, one.rule) for role, one in ends.items()}
        for ends in found.deciding
    ]
    kubelet = ("ALLOW", "fail-safe", "kubelet")
    control_plane = ("ALLOW", "fail-safe", "control-plane")
    denied = ("DENY", "catch-all", "")
    assert told == [
        {"consumer": kubelet, "provider": kubelet},
        {"consumer": control_plane, "provider": control_plane},
        {"consumer": denied, "provider": denied},
    ]
