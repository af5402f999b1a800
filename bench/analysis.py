"""Analysis of arriving flows against its target, and of files, of a day of 1,000 pods.

The conversations are those of `bench/flow_day.py`, each as often as it comes; the policies allow
each Deployment its upstreams' Services. The whole command reads files and writes every record.

    .venv/bin/python -m bench.analysis [rows]
"""

import asyncio
import io
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from bench import flow_day
from bench.figures import Figure, load
from ringfence.control.analysis import History, judge
from ringfence.control.judged import JudgedBy
from ringfence.flows.recorded import read_flows
from ringfence.inventory.resolutions import Resolutions
from ringfence.inventory.timeline import Timeline
from ringfence.inventory.written import write_inventory
from ringfence.model.address import Address, format_address
from ringfence.model.ids import PolicyId, ScopeName, Version, WorkspaceName
from ringfence.model.policy import Action, CatchAll, FilterEnd, Policy, ServiceEnd, Workspace
from ringfence.model.protocol import TCP
from ringfence.model.query import Compare, Everything, Operator
from ringfence.model.scope import Scope, ScopeTree
from ringfence.model.workload import ItemKind
from ringfence.policy.document import Documents, format_documents

LEAST_RATE = 100_000
ALL = ScopeName("all")
APP = "kubernetes.label.app"


def history() -> Timeline:
    timeline = Timeline()
    timeline.replace(flow_day.START, flow_day.CLUSTER, flow_day.inventory())
    return timeline


def policies(timeline: Timeline) -> Workspace:
    """One for every Service, from the pods of the three Deployments after its own."""
    services = [item for item in timeline.latest().items if item.kind is ItemKind.SERVICE]
    names = sorted(
        {label for item in timeline.latest().items for label in item.labels.get(APP, ())}
    )
    made = [
        Policy(
            PolicyId(f"to-{service.name}"),
            FilterEnd(Compare(APP, Operator.IN, tuple(np.roll(names, -at)[:50].tolist()))),
            ServiceEnd(service.namespace, service.name),
            TCP,
            (),
            Action.ALLOW,
        )
        for at, service in enumerate(services)
    ]
    return Workspace(
        WorkspaceName(ALL), ALL, True, CatchAll(Action.DENY, Action.DENY), (), tuple(made)
    )


def exported(timeline: Timeline, count: int, distinct: int) -> io.BytesIO:
    """Conversations between pods, some through a Service, as a Parquet file."""
    rng = np.random.default_rng(1)
    items = timeline.latest().items
    pods = [format_address(Address(i.addresses[0])) for i in items if i.kind is ItemKind.POD]
    fronts = [format_address(Address(i.addresses[0])) for i in items if i.kind is ItemKind.SERVICE]
    pairs = rng.integers(0, [[len(pods)], [len(pods)], [len(fronts)]], (3, distinct))
    which = np.arange(count) if distinct == count else rng.zipf(1.3, count) % distinct
    consumer, provider, front = pairs[:, which]
    first = flow_day.START + rng.integers(1, 86_400, count) * flow_day.SECOND
    ports = np.full(count, 80, np.uint16)
    columns = {
        "first": pa.array(first, pa.timestamp("ns", "UTC")),
        "last": pa.array(first + flow_day.SECOND, pa.timestamp("ns", "UTC")),
        "consumer_address": pa.array(pods).take(pa.array(consumer)),
        "provider_address": pa.array(pods).take(pa.array(provider)),
        "protocol": pa.repeat("TCP", count),
        "port": ports,
        "dialled_address": pa.array(fronts).take(pa.array(front)),
        "dialled_port": ports,
    }
    sink = io.BytesIO()
    pa.parquet.write_table(pa.table(columns), sink, compression="zstd")
    sink.seek(0)
    return sink


def command(file: io.BytesIO, timeline: Timeline, until_ns: int, workspace: Workspace) -> float:
    """The processor's time that `ringfence analyze` takes for a file, with all that it writes."""
    lives = timeline.lives(Everything(), flow_day.START, until_ns)
    scope = Scope(ALL, None, Everything())
    with tempfile.TemporaryDirectory(prefix="ringfence-analysis-") as temporary:
        inventory, policies, flows = (
            Path(temporary) / name for name in ("inventory.yaml", "policies.yaml", "flows.parquet")
        )
        inventory.write_bytes(write_inventory(lives, flow_day.START, until_ns))
        policies.write_text(format_documents(Documents((scope,), (workspace,))))
        flows.write_bytes(file.getvalue())
        asked = ["--policies", policies, "--inventory", inventory, "--flows", flows, "-o", "json"]
        before = os.times()
        with (Path(temporary) / "answer.json").open("wb") as answer:
            ringfence = Path(sys.executable).with_name("ringfence")
            subprocess.run([ringfence, "analyze", *asked], check=True, stdout=answer)
        after = os.times()
    system = after.children_system - before.children_system
    return after.children_user - before.children_user + system


def figures(count: int = 1_000_000) -> Iterator[Figure]:
    timeline = history()
    workspace = policies(timeline)
    judged_by = JudgedBy(ScopeTree([Scope(ALL, None, Everything())]), ((workspace, Version(1)),))
    until = flow_day.START + 86_401 * flow_day.SECOND
    past = History(timeline, Resolutions())
    for distinct in (20_000, count):
        file = exported(timeline, count, distinct)
        began = time.process_time()
        seen = read_flows(file, "flows.parquet", timeline)
        read = time.process_time()
        judged = asyncio.run(judge(seen, past, until, judged_by, workspace.name))
        rate = count / (time.process_time() - read)
        told = f"{rate:,.0f} a second of CPU time, {judged.allowed.sum():,} allowed ({load()})"
        yield Figure(
            f"{count:,} connections judged, {distinct:,} distinct",
            f">= {LEAST_RATE:,}",
            told,
            rate >= LEAST_RATE,
        )
        told = f"{count / (read - began):,.0f} a second of CPU time"
        yield Figure("conversations read from Parquet", "", told)
        rate = count / command(file, timeline, until, workspace)
        told = f"{rate:,.0f} a second of CPU time ({load()})"
        yield Figure("the whole command, -o json", f">= {LEAST_RATE:,}", told, rate >= LEAST_RATE)


def main() -> None:
    for what, target, measured, _ in figures(*map(int, sys.argv[1:])):
        print(f"{what}: {measured}{f' (target {target})' if target else ''}")


if __name__ == "__main__":
    main()
