"""Two writers and four readers of an embedded flow store; says how much memory it came to.

Run: python hold_under_load.py DIRECTORY MEMORY_MIB SECONDS; prints what the process grew by, in
MiB, and how many insertions and answers there were.
"""

import asyncio
import itertools
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa

from ringfence.control.labelling import Report, label
from ringfence.store.errors import StoreError
from ringfence.store.flows import FlowStore, FlowStoreConfig
from ringfence.store.flows.queries import HOPS
from ringfence.store.flows.store import BatchKey
from tests.integration.store.observed import HISTORY, WINDOW, pod_to_pod_across

_ROWS = 65_536
_T = TypeVar("_T")


def resident(what: str) -> int:
    """A size of this process, MiB (proc_pid_status(5))."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (size,) = (line.split()[1] for line in lines if line.startswith(f"{what}:"))
    return int(size) // 1024


def many() -> Report:
    """A report of as many conversations as rows, each with an address of its own."""
    report = pod_to_pod_across()[0].report("")
    flows = report.flows.take(pa.array(np.zeros(_ROWS, dtype=np.int64)))
    outside = np.zeros((_ROWS, 16), dtype=np.uint8)
    outside[:, 10:12] = 0xFF
    outside[:, 12:] = np.random.default_rng(5).integers(1, 255, (_ROWS, 4))
    column = pa.Array.from_buffers(pa.binary(16), _ROWS, [None, pa.py_buffer(outside)])
    at = flows.schema.get_field_index("provider")
    return replace(report, flows=flows.set_column(at, flows.schema.field(at), column))


async def main(directory: Path, memory_mib: int, seconds: float) -> None:
    report = many()
    rows = label([report], HISTORY)
    before, ends = resident("VmRSS"), time.monotonic() + seconds
    store = FlowStore(FlowStoreConfig(directory / "flows", memory_mib=memory_mib))
    await store.start()
    numbers, counts = itertools.count(), {"inserted": 0, "answered": 0}

    async def insert(key: BatchKey) -> None:
        await store.insert([key], *rows)

    async def write() -> None:
        while time.monotonic() < ends:
            key = replace(report.key, id=str(next(numbers)))
            await until_there_is_room(partial(insert, key))
            counts["inserted"] += 1

    async def read() -> None:
        count = partial(store.query, f"SELECT count() FROM ({HOPS})", WINDOW)
        while time.monotonic() < ends:
            assert len(await until_there_is_room(count)) == 1
            counts["answered"] += 1

    await asyncio.gather(*(write() for _ in range(2)), *(read() for _ in range(4)))
    print(resident("VmHWM") - before, counts["inserted"], counts["answered"])
    count = partial(store.query, "SELECT count() AS rows FROM flows", {})
    stored = (await until_there_is_room(count))["rows"].to_pylist()
    assert stored == [counts["inserted"] * _ROWS]
    await store.stop()


async def until_there_is_room(call: Callable[[], Awaitable[_T]]) -> _T:
    """Ask again what the store refuses for lack of memory, as an agent sends a report again."""
    while True:
        try:
            return await call()
        except StoreError:
            await asyncio.sleep(0.1)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
