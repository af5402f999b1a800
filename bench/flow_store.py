"""The flow store against its targets: taking in a day of 1,000 pods, its disk, memory and map.

The reports of `bench/flow_day.py` go through `FlowIngest`, as after gRPC has decoded them: label
lookup and store included, IN_FLIGHT at a time. A conversation is one row of a report: what one
agent saw of it at one interface in one window.

    .venv/bin/python -m bench.flow_store [hours]
"""

import asyncio
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from bench import flow_day
from bench.figures import Figure, load
from ringfence.control.exports import Exports
from ringfence.control.identity import ClientIdentity
from ringfence.control.ingest import FlowIngest
from ringfence.control.inventory import Inventory
from ringfence.control.metrics import Metrics
from ringfence.control.observed import observed
from ringfence.control.times import Window
from ringfence.model.client import ClientKind
from ringfence.model.ids import DEFAULT_TENANT
from ringfence.store.flows import FlowStore, FlowStoreConfig
from ringfence.store.flows.queries import HOPS, hourly
from ringfence.store.relational.database import Database
from ringfence.wire import batch

IN_FLIGHT = 2000
ROUNDS = 5
LEAST_RATE, MOST_BYTES, MOST_MAP_SECONDS = 100_000, 60, 1
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


def most_resident() -> int:
    """The highest resident size so far, MiB (getrusage(2))."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


async def on_disk(store: FlowStore) -> dict[str, int]:
    """The bytes of each table, once nothing is being merged any more."""
    merging = "SELECT count() AS n FROM system.merges"
    while (await store.query(merging, {}))["n"][0].as_py():  # noqa: ASYNC110 -- in another engine
        await asyncio.sleep(0.5)
    found = await store.query(
        "SELECT table, sum(bytes_on_disk) AS bytes FROM system.parts"
        " WHERE active AND database = currentDatabase() GROUP BY table",
        {},
    )
    return {row["table"]: row["bytes"] for row in found.to_pylist()}


async def map_figure(store: FlowStore) -> Figure:
    """How long the map of the whole day takes, the median of a few."""
    took, worked = [], time.process_time()
    for _ in range(ROUNDS):
        began = time.perf_counter()
        day = {"tenant": DEFAULT_TENANT, "since": flow_day.START, "until": UNTIL}
        edges = await store.query(MAP, day)
        took.append(time.perf_counter() - began)
    worked = (time.process_time() - worked) / ROUNDS
    seconds = statistics.median(took)
    measured = f"{seconds:.2f} s of {len(edges):,} edges ({worked:.2f} s of CPU time; {load()})"
    return Figure(
        "map of it, all namespaces", f"< {MOST_MAP_SECONDS} s", measured, seconds < MOST_MAP_SECONDS
    )


async def input_figure(store: FlowStore) -> Figure:
    """How long the flow store takes to add up what discovery goes by."""
    began, worked = time.perf_counter(), time.process_time()
    seen = await observed(store, DEFAULT_TENANT, flow_day.START, UNTIL)
    seconds, worked = time.perf_counter() - began, time.process_time() - worked
    measured = f"{seconds:.2f} s, {len(seen):,} rows ({worked:.2f} s of CPU time; {load()})"
    return Figure("discovery's input, all of it", "", measured)


async def measure(directory: Path) -> list[Figure]:
    database = Database(f"sqlite:///{directory / 'control.db'}")
    inventory = Inventory(time.time_ns, database, DEFAULT_TENANT, Metrics())
    inventory.timeline.replace(
        flow_day.START - flow_day.SECOND, flow_day.CLUSTER, flow_day.inventory()
    )
    store = FlowStore(FlowStoreConfig(directory / "flows"))
    ingest = FlowIngest(store, inventory, Exports({}, inventory.timeline), lambda: UNTIL)
    await database.start()
    await store.start()
    await ingest.start()
    left = reports(directory)
    began, worked = time.perf_counter(), time.process_time()
    rows = sum(await asyncio.gather(*(take_in(ingest, left) for _ in range(IN_FLIGHT))))
    rate, of_cpu = rows / (time.perf_counter() - began), rows / (time.process_time() - worked)
    busy = load()
    disk = sum((await on_disk(store)).values()) / rows
    drawn, added = await map_figure(store), await input_figure(store)
    await ingest.stop()
    await store.stop()
    await database.stop()
    return [
        Figure(
            f"conversations taken in a second, of {rows:,}",
            f">= {LEAST_RATE:,}",
            f"{rate:,.0f} ({of_cpu:,.0f} a second of CPU time; {busy})",
            rate >= LEAST_RATE,
        ),
        Figure("bytes on disk for each", f"<= {MOST_BYTES}", f"{disk:.1f}", disk <= MOST_BYTES),
        drawn,
        added,
        Figure("control plane meanwhile: resident at most", "", f"{most_resident()} MiB"),
    ]


def figures(hours: int = 24) -> Iterator[Figure]:
    with tempfile.TemporaryDirectory(prefix="ringfence-flow-store-") as temporary:
        directory = Path(temporary)
        count = hours * 3600 * flow_day.SECOND // flow_day.WINDOW_NS
        # In a process of its own, which leaves nothing in this one's memory.
        generate = [sys.executable, "-m", "bench.flow_day", str(directory), str(count)]
        subprocess.run(generate, check=True)
        yield from asyncio.run(measure(directory))


def main() -> None:
    for what, _, measured, _ in figures(*map(int, sys.argv[1:])):
        print(f"{what}: {measured}")


if __name__ == "__main__":
    main()
