"""What exporting costs the control plane: CPU time for each row, of picking and of each form.

20,000 rows of one agent among 1,000 pods on two nodes. No receiver takes part.
Run: `.venv/bin/python bench/export_cost.py`.
"""

import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import pyarrow as pa

from ringfence.control.exports import conversations, told_here
from ringfence.control.labelling import Report, label
from ringfence.export import ipfix, jsonl, otlp
from ringfence.export.delivery import STEP
from ringfence.inventory.timeline import Timeline
from ringfence.model.address import V4_MAPPED
from ringfence.store.flows.store import BatchKey
from ringfence.wire import batch
from tests.integration.world import CLUSTER, NODE1, NODE2, SECOND, START, node, pod

ROWS, PODS, ROUNDS = 20_000, 1_000, 7
NODES = ("node1", "node2")
Form = Callable[[pa.RecordBatch], object]


def timeline() -> Timeline:
    pods = [
        pod(f"app{at % 40}-{at}", f"10.1.{at // 250}.{at % 250}", NODES[at % 2])
        for at in range(PODS)
    ]
    made = Timeline()
    items = [node("node1", NODE1), node("node2", NODE2), *pods]
    made.replace(START - 60 * SECOND, CLUSTER, items)
    return made


def rows(history: Timeline) -> pa.Table:
    """One agent's rows as they are stored: each conversation at two interfaces."""
    random = np.random.default_rng(1)

    def ends() -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
        at = random.integers(0, PODS, ROWS // 2)
        address = np.zeros((ROWS // 2, 16), dtype=np.uint8)
        address[:] = np.frombuffer(V4_MAPPED + bytes([10, 1, 0, 0]), dtype=np.uint8)
        address[:, 14], address[:, 15] = at // 250, at % 250
        return np.repeat(address, 2, axis=0)

    counts = {
        field.name: random.integers(1, 60_000, ROWS).astype(field.type.to_pandas_dtype())
        for field in batch.FLOWS
        if pa.types.is_integer(field.type)
    }
    counts |= {
        field.name: pa.array([""] * ROWS) for field in batch.FLOWS if field.type == pa.string()
    }
    columns = counts | {
        "consumer": ends(),
        "provider": ends(),
        "original_consumer": np.zeros((ROWS, 16), dtype=np.uint8),
        "original_provider": np.zeros((ROWS, 16), dtype=np.uint8),
        "original_provider_port": np.zeros(ROWS, dtype=np.uint16),
        "tunnel_protocol": np.zeros(ROWS, dtype=np.uint8),
        "tunnel_consumer": np.zeros((ROWS, 16), dtype=np.uint8),
        "tunnel_provider": np.zeros((ROWS, 16), dtype=np.uint8),
        "tunnel_port": np.zeros(ROWS, dtype=np.uint16),
        "carries": np.zeros(ROWS, dtype=np.uint32),
        "consumer_port": np.zeros(ROWS, dtype=np.uint16),
        "provider_port": np.repeat(random.integers(1, 100, ROWS // 2), 2).astype(np.uint16),
        "protocol": np.full(ROWS, 6, dtype=np.uint8),
        "observer": np.tile(np.array([1, 2], dtype=np.uint8), ROWS // 2),
        "method": pa.array(["syn"] * ROWS),
        "first_ns": START + random.integers(0, SECOND, ROWS),
        "last_ns": START + random.integers(SECOND, 15 * SECOND, ROWS),
    }
    key = BatchKey("default", CLUSTER, "node1", "", START, START + 15 * SECOND)
    report = Report(key, batch.table(batch.FLOWS, columns), batch.DROPS.empty_table())
    return label([report], history)[0]


def cost(name: str, count: int, work: Callable[[], object]) -> None:
    """The median of several rounds, after one that does not count."""
    spent = []
    for _ in range(ROUNDS + 1):
        began = time.process_time()
        work()
        spent.append(time.process_time() - began)
    print(f"{name:<32} {statistics.median(spent[1:]) / count * 1e6:6.2f} µs")


def main() -> None:
    history = timeline()
    stored = rows(history)
    told = told_here(stored, NODES)
    records = conversations(stored.take(told), history)
    parts = [records.slice(start, STEP) for start in range(0, len(records), STEP)]
    cost("pick and name, a stored row", ROWS, lambda: _prepare(stored, history))
    forms: dict[str, Form] = {
        "JSON (lines, Kafka)": jsonl.text,
        "IPFIX": lambda part: list(ipfix.split(part)),
        "OTLP": otlp.encode,
    }
    for name, form in forms.items():
        cost(f"{name}, a conversation", len(records), partial(_encode, form, parts))


def _encode(form: Form, parts: list[pa.RecordBatch]) -> None:
    for part in parts:
        form(part)


def _prepare(stored: pa.Table, history: Timeline) -> pa.RecordBatch:
    return conversations(stored.take(told_here(stored, NODES)), history)


if __name__ == "__main__":
    main()
