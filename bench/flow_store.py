"""The flow store against its targets: taking in a day of 1,000 pods, its disk, memory and map.

The reports of `bench/flow_day.py` go through `FlowIngest`, as after gRPC has decoded them: label
lookup and store included, IN_FLIGHT at a time. A conversation is one row of a report: what one
agent saw of it at one interface in one window. Run: `.venv/bin/python bench/flow_store.py [hours]`.
"""

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import flow_day
import pyarrow as pa

from ringfence.control.exports import Exports
from ringfence.control.identity import ClientIdentity
from ringfence.control.ingest import FlowIngest
from ringfence.control.inventory import Inventory
from ringfence.control.metrics import Metrics
from ringfence.control.services import Window
from ringfence.model.client import ClientKind
from ringfence.model.ids import DEFAULT_TENANT
from ringfence.store.flows import FlowStore, FlowStoreConfig
from ringfence.store.flows.queries import HOPS, hourly
from ringfence.store.relational.database import Database
from ringfence.wire import batch

IN_FLIGHT = 1000
NO_DROPS = batch.DROPS.empty_table()
UNTIL = flow_day.START + flow_day.DAY * flow_day.WINDOW_NS

MAP = hourly(
    f"""
SELECT first_consumer_item, if(first_consumer_item = '', first_consumer, NULL) AS consumer_outside,
    provider_item, if(provider_item = '', provider, NULL) AS provider_outside, protocol,
    provider_port, sum(forward_bytes) AS forward_bytes, sum(reverse_bytes) AS reverse_bytes,
    sum(opened) AS opened, sum(answered) AS answered, sum(refused) AS refused,
    sum(dropped) AS dropped, max(last_ns) AS last_ns
FROM (
    SELECT *, (consumer, provider, provider_port)
            != (first_consumer, dialled, dialled_port) AS translated,
        max(translated) OVER (PARTITION BY connection) AS goes_on
    FROM ({HOPS})
) WHERE translated OR NOT goes_on
GROUP BY ALL
"""
)
"""Who talks to whom and how much, from first consumers to last providers, all namespaces."""

Report = tuple[int, pa.Table]


def reports(directory: Path) -> Iterator[Report]:
    """Each report's number, in the order of the windows, and its flows."""
    number = 0
    for path in sorted(directory.glob("*.arrows")):
        for rows in pa.ipc.open_stream(path.read_bytes()):
            yield number, pa.Table.from_batches([rows])
            number += 1


async def take_in(ingest: FlowIngest, left: Iterator[Report]) -> int:
    """One of IN_FLIGHT senders: hands on report after report; the number of its rows."""
    taken = 0
    for number, flows in left:
        window, node = divmod(number, flow_day.NODES)
        start = flow_day.START + window * flow_day.WINDOW_NS
        agent = ClientIdentity(
            ClientKind.AGENT, flow_day.node_name(node), flow_day.CLUSTER, DEFAULT_TENANT
        )
        covered = Window(start, start + flow_day.WINDOW_NS)
        await ingest.ingest(agent, f"{number:032x}", covered, flows, NO_DROPS)
        taken += len(flows)
    return taken


def resident() -> tuple[int, int]:
    """Resident size now and at its highest, MiB (proc_pid_status(5))."""
    lines = Path("/proc/self/status").read_text().splitlines()
    sizes = {
        name: int(rest.split()[0])
        for name, _, rest in (line.partition(":") for line in lines)
        if name in {"VmRSS", "VmHWM"}
    }
    return sizes["VmRSS"] // 1024, sizes["VmHWM"] // 1024


async def on_disk(store: FlowStore) -> dict[str, tuple[int, int]]:
    """Rows and bytes of each table, once nothing is being merged any more."""
    merging = "SELECT count() AS n FROM system.merges"
    while (await store.query(merging, {}))["n"][0].as_py():  # noqa: ASYNC110 -- in another engine
        await asyncio.sleep(0.5)
    found = await store.query(
        "SELECT table, sum(rows) AS rows, sum(bytes_on_disk) AS bytes FROM system.parts"
        " WHERE active AND database = currentDatabase() GROUP BY table ORDER BY table",
        {},
    )
    return {row["table"]: (row["rows"], row["bytes"]) for row in found.to_pylist()}


async def query_seconds(store: FlowStore) -> list[float]:
    """How long the map of the whole day takes, time after time."""
    spent = []
    worked = time.process_time()
    for _ in range(5):
        began = time.perf_counter()
        day = {"tenant": DEFAULT_TENANT, "since": flow_day.START, "until": UNTIL}
        edges = await store.query(MAP, day)
        spent.append(time.perf_counter() - began)
    worked = (time.process_time() - worked) / len(spent)
    print(
        f"  the map has {len(edges):,} edges; {', '.join(f'{one:.2f}' for one in spent)} s,"
        f" {worked:.2f} s of CPU time each; load {os.getloadavg()[0]:.1f}"
    )
    return spent


async def measure(directory: Path) -> None:
    database = Database(f"sqlite:///{directory / 'control.db'}")
    await database.start()
    inventory = Inventory(database, DEFAULT_TENANT, Metrics())
    inventory.timeline.replace(
        flow_day.START - flow_day.SECOND, flow_day.CLUSTER, flow_day.inventory()
    )
    store = FlowStore(FlowStoreConfig(directory / "flows"))
    await store.start()
    ingest = FlowIngest(store, inventory, Exports({}, inventory.timeline), lambda: UNTIL)
    await ingest.start()
    left = reports(directory)
    began, worked = time.perf_counter(), time.process_time()
    rows = sum(await asyncio.gather(*(take_in(ingest, left) for _ in range(IN_FLIGHT))))
    seconds, worked = time.perf_counter() - began, time.process_time() - worked
    print(
        f"  {rows:,} conversations of {flow_day.PODS} pods taken in, in {seconds:.1f} s,"
        f" {worked:.1f} s of CPU time; load {os.getloadavg()[0]:.1f}"
    )
    taken, (now, peak) = rows / seconds, resident()
    print(f"  resident: {now} MiB, at most {peak} MiB")
    tables = await on_disk(store)
    for name, (count, size) in tables.items():
        print(f"  {name}: {count:,} rows, {size:,} bytes")
    disk = sum(size for _, size in tables.values()) / rows
    spent = await query_seconds(store)
    print(f"  resident: {resident()[0]} MiB, at most {resident()[1]} MiB")
    figures = [
        ("conversations taken in a second", f"{taken:,.0f}", ">= 100,000"),
        ("bytes on disk a conversation", f"{disk:.1f}", "<= 60"),
        ("seconds for the map of the day", f"{statistics.median(spent):.2f}", "< 1"),
        ("MiB resident at most", f"{resident()[1]}", "none"),
    ]
    for what, measured, target in figures:
        print(f"{what:34} {measured:>10}   target {target}")
    await ingest.stop()
    await store.stop()
    await database.stop()


def main() -> None:
    hours = int(sys.argv[1]) if len(sys.argv) > 1 else 24
    with tempfile.TemporaryDirectory(prefix="ringfence-flow-store-") as temporary:
        directory = Path(temporary)
        count = hours * 3600 * flow_day.SECOND // flow_day.WINDOW_NS
        # In a process of its own, which leaves nothing in this one's memory.
        subprocess.run([sys.executable, "bench/flow_day.py", directory, str(count)], check=True)
        asyncio.run(measure(directory))


if __name__ == "__main__":
    main()
