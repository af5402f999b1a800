"""An embedded flow store whose disk fills up, and has room again later.

Run in a mount namespace of its own: python fill_disk.py DIRECTORY; prints as JSON what happened.
"""

import asyncio
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from ringfence.control.labelling import label
from ringfence.store.errors import StoreError
from ringfence.store.flows import FlowStore, FlowStoreConfig
from ringfence.store.flows.store import BatchKey
from tests.integration.store.hold_under_load import many
from tests.integration.store.observed import HISTORY, rows

_MOST = 200


async def main(directory: Path) -> None:
    ballast = directory / "ballast"
    ballast.write_bytes(bytes(100 << 20))
    report = many()
    flows, drops = label([report], HISTORY)
    stored: list[BatchKey] = []
    said = ""

    async def insert(number: int) -> None:
        key = replace(report.key, id=str(number))
        assert not await store.insert([key], flows, drops)
        stored.append(key)

    store = FlowStore(FlowStoreConfig(directory / "flows"))
    await store.start()
    try:
        for number in range(_MOST):
            await insert(number)
    except StoreError as error:
        said = str(error)
    readable = await rows(store, "flows") >= len(stored) * len(flows)
    ballast.unlink()
    await insert(_MOST)
    batches = await rows(store, "batches")
    told = {
        "said": said,
        "stored": len(stored),
        "readable": readable,
        "kept": await store.insert(stored, flows, drops) == set(stored),
        "whole": await rows(store, "flows") == batches * len(flows),
    }
    await store.stop()
    await (again := FlowStore(FlowStoreConfig(directory / "flows"))).start()
    told["kept after a restart"] = await rows(again, "flows") == batches * len(flows)
    await again.stop()
    print(json.dumps(told))


if __name__ == "__main__":
    words = ["mount", "-t", "tmpfs", "-o", "size=160m", "none", sys.argv[1]]
    subprocess.run(words, check=True)
    asyncio.run(main(Path(sys.argv[1])))
