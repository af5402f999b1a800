"""What a process that is killed leaves behind in the flow store."""

import asyncio
import subprocess
import sys
from pathlib import Path

from ringfence.store.flows import FlowStore, FlowStoreConfig
from tests.integration.store.observed import packets, rows


def test_a_batch_is_stored_once_though_the_process_is_killed(tmp_path: Path) -> None:
    """Each run is killed while it inserts, and the next groups what is left in another way."""
    reports = 100
    for run in range(3):
        script = [sys.executable, "-m", "tests.integration.store.insert_until_killed"]
        words = [*script, str(tmp_path), str(reports), str(7 + run)]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for _ in range(2 + run):
                process.stdout.readline()
            process.kill()
    subprocess.run([*script, str(tmp_path), str(reports), "40"], check=True, capture_output=True)

    async def counted() -> tuple[int, tuple[int, int]]:
        store = FlowStore(FlowStoreConfig(tmp_path / "flows"))
        await store.start()
        found = await rows(store, "batches"), await packets(store)
        await store.stop()
        return found

    assert asyncio.run(counted()) == (reports, (5 * reports, 5 * reports))
