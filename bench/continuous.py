"""What continuous analysis costs a flow: disposing, judging and counting distinct tuples.

    .venv/bin/python -m bench.continuous

The time is of the processor, of one core. What the flow store takes to tell the tuples is not in
it: `bench/flow_store.py` measures that.
"""

import asyncio
import time

import numpy as np
import pyarrow as pa

from bench.company import EAST, found, traffic
from ringfence.control.analysis import History, judge
from ringfence.control.judged import JudgedBy
from ringfence.control.tallies import items_of, tally
from ringfence.flows.connections import Records
from ringfence.flows.disposition import dispose
from ringfence.inventory.resolutions import Resolutions
from ringfence.inventory.seen_from import SeenFrom
from ringfence.inventory.snapshot import NOWHERE
from ringfence.inventory.timeline import Timeline
from ringfence.model.protocol import TCP

FLOWS, PODS, POLICIES = 300_000, 1_000, 500
NOW_NS = 1_900_000_000 * 10**9


def main() -> None:
    company = found(PODS, POLICIES)
    timeline = Timeline()
    timeline.replace(NOW_NS - 10**12, EAST, company.items)
    seen = flows(timeline)
    judged_by = JudgedBy(company.tree, tuple(company.enforced))
    name = company.enforced[0][0].name
    begun = time.process_time()
    fate = dispose(seen, {}, NOW_NS)
    history = History(timeline, Resolutions())
    judged = asyncio.run(judge(seen, history, NOW_NS, judged_by, name))
    halfway = time.process_time()
    everything = np.ones(len(seen), np.bool_)
    told = tally(seen, fate, everything, judged.allowed, judged.deciding, items_of(timeline))
    ended = time.process_time()
    print(f"{PODS:,} pods, {POLICIES} policies, {len(seen):,} distinct tuples, {len(told)} causes")
    print(f"judged: {FLOWS / (halfway - begun):,.0f} flows/s a core")
    print(f"judged and counted: {FLOWS / (ended - begun):,.0f} flows/s a core (target 100,000)")


def flows(timeline: Timeline) -> Records:
    """Connections as the flow store would tell them, all in the inventory of now."""
    snapshot = timeline.latest()
    made = traffic(PODS, FLOWS, fresh=False).located(snapshot)
    revisions = np.append(snapshot.revisions, np.uint64(0))
    draw = np.random.default_rng(1)
    passed = draw.random(FLOWS) < 0.9

    def addresses(column: np.ndarray) -> pa.Array:
        packed = np.ascontiguousarray(column).tobytes()
        return pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(16), len(column), [None, pa.py_buffer(packed)]
        )

    def same(value: object, kind: pa.DataType) -> pa.Array:
        return pa.array([value] * FLOWS, kind)

    dialled_item = snapshot.locate(made.dialled, SeenFrom.one(EAST, FLOWS))
    table = pa.table(
        {
            "kubernetes_cluster": same(EAST, pa.string()),
            "node": same("", pa.string()),
            "consumer_node": same("", pa.string()),
            "provider_node": same("", pa.string()),
            "protocol": same(TCP, pa.uint8()),
            "first_consumer": addresses(made.consumer),
            "provider": addresses(made.provider),
            "dialled": addresses(made.dialled),
            "provider_port": pa.array(made.provider_port),
            "dialled_port": pa.array(made.dialled_port),
            "first_consumer_revision": pa.array(revisions[made.consumer_item]),
            "provider_revision": pa.array(revisions[made.provider_item]),
            "dialled_revision": pa.array(revisions[dialled_item]),
            "first_ns": same(NOW_NS - 10**9, pa.int64()),
            "last_ns": same(NOW_NS - 10**9, pa.int64()),
            "opened": same(1, pa.uint64()),
            "answered": pa.array(passed.astype(np.uint64)),
            "refused": same(0, pa.uint64()),
            "reverse_packets": pa.array(passed.astype(np.uint64)),
            "reached": same(1, pa.uint8()),
        }
    )
    translated = (made.dialled != made.provider).any(1)
    assert NOWHERE == -1  # which finds the last revision, 0
    return Records(table, (~passed).astype(np.uint64), translated)


if __name__ == "__main__":
    main()
