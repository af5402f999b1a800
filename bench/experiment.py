"""A back-in-time experiment on 100 million stored conversations against its target.

The day of `bench/flow_day.py` goes through `FlowIngest`, and comes again on each of the days after
it, copied within the flow store, roll-ups included. Then a process of its own, store included,
holds a version against all of it.

    .venv/bin/python -m bench.experiment [days [directory]]

A directory is kept, and what it holds of an earlier run is used again: 4 GB.
"""

import asyncio
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from bench import flow_day, flow_store
from bench.analysis import ALL, policies
from bench.figures import load
from ringfence.control.analysis import History
from ringfence.control.experiments import Experiments
from ringfence.control.metrics import Metrics
from ringfence.control.staged import Watch
from ringfence.control.writing import store_workspace
from ringfence.inventory.resolutions import Resolutions
from ringfence.inventory.timeline import Timeline
from ringfence.model.ids import DEFAULT_TENANT, Version
from ringfence.model.query import Everything
from ringfence.model.scope import Scope
from ringfence.store.flows import FlowStore, FlowStoreConfig
from ringfence.store.relational.database import Database
from ringfence.store.relational.experiments import Experiment, add_experiment, find_experiment
from ringfence.store.relational.scopes import put_scopes

DAY_NS = flow_day.DAY * flow_day.WINDOW_NS
MOST_SECONDS = 600
_COPIED = {
    "flows": "first_ns + {by} AS first_ns, last_ns + {by} AS last_ns,",
    "batches": "concat(id, '+{by}') AS id, window_start_ns + {by} AS window_start_ns,",
}
_COPY = """
INSERT INTO {table} SELECT * REPLACE ({copied} window_end_ns + {by} AS window_end_ns)
FROM (SELECT * FROM {table} WHERE window_end_ns <= {until})
"""


def fill(directory: Path, days: int) -> int:
    """Fill a store with so many days; the number of its rows."""
    with tempfile.TemporaryDirectory(prefix="ringfence-day-", dir=directory) as temporary:
        day = Path(temporary)
        generate = [sys.executable, "-m", "bench.flow_day", str(day), str(flow_day.DAY)]
        subprocess.run(generate, check=True)
        asyncio.run(flow_store.measure(day))
        (day / "flows").rename(directory / "flows")
    return asyncio.run(_repeat(directory, days))


async def _repeat(directory: Path, days: int) -> int:
    store = FlowStore(FlowStoreConfig(directory / "flows"))
    await store.start()
    client = store._connect()  # noqa: SLF001 -- nothing but a bench writes within the store
    until = flow_day.START + DAY_NS
    for by in range(DAY_NS, days * DAY_NS, DAY_NS):
        for table, copied in _COPIED.items():
            copy = _COPY.format(table=table, copied=copied.format(by=by), by=by, until=until)
            await asyncio.to_thread(client.command, copy)
    await flow_store.on_disk(store)  # once all is merged
    rows = await store.query("SELECT count() AS n FROM flows", {})
    client.close()
    await store.stop()
    return int(rows["n"][0].as_py())


def experiment(directory: Path, days: int) -> str:
    """Do one about all days; what came of it, its time and memory."""
    return asyncio.run(_experiment(directory, days))


async def _experiment(directory: Path, days: int) -> str:
    timeline = Timeline()
    timeline.replace(flow_day.START - flow_day.SECOND, flow_day.CLUSTER, flow_day.inventory())
    until_ns = flow_day.START + days * DAY_NS
    (directory / "control.db").unlink(missing_ok=True)
    database = Database(f"sqlite:///{directory / 'control.db'}")
    store = FlowStore(FlowStoreConfig(directory / "flows"))
    watch = Watch(store, DEFAULT_TENANT, History(timeline, Resolutions()), dict, 15 * 10**9)
    doing = Experiments(lambda: until_ns, database, watch, Metrics())
    await database.start()
    await store.start()
    async with database.write() as connection:
        await put_scopes(connection, DEFAULT_TENANT, [Scope(ALL, None, Everything())], "", 1)
        made = policies(timeline), Version(1)
        await store_workspace(connection, DEFAULT_TENANT, made, "", 1)
        wanted = Experiment(0, made[0].name, made[1], flow_day.START, until_ns, "", 1)
        one = await add_experiment(connection, DEFAULT_TENANT, wanted)
    began = time.perf_counter()
    await doing.start()
    while one.ended_ns is None:
        await asyncio.sleep(0.2)
        async with database.read() as connection:
            found = await find_experiment(connection, DEFAULT_TENANT, one.id)
        assert found is not None
        one = found
    seconds, worked = time.perf_counter() - began, time.process_time()
    await doing.stop()
    await store.stop()
    await database.stop()
    assert not one.problem, one.problem
    judged = sum(tally.conversations for tally in one.result)
    return (
        f"{seconds:.0f} s, {judged:,} connections judged, {len(one.result):,} causes,"
        f" resident at most {flow_store.most_resident():,} MiB"
        f" ({worked:.0f} s of CPU time; {load()})"
    )


def main() -> None:
    days = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    with tempfile.TemporaryDirectory(prefix="ringfence-experiment-") as temporary:
        directory = Path(sys.argv[2] if len(sys.argv) > 2 else temporary)
        # Each in a process of its own, which leaves nothing in another one's memory.
        if not (directory / "flows").exists():
            with ProcessPoolExecutor(1, get_context("spawn")) as alone:
                print(f"stored: {alone.submit(fill, directory, days).result():,} conversations")
        with ProcessPoolExecutor(1, get_context("spawn")) as alone:
            told = alone.submit(experiment, directory, days).result()
            print(f"experiment on {days} days: {told} (target {MOST_SECONDS} s)")


if __name__ == "__main__":
    main()
