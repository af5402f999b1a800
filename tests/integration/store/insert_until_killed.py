"""Stores the reports of many agents, in groups, until it is killed or has stored all of them.

Run: python insert_until_killed.py DIRECTORY REPORTS REPORTS_AT_ONCE; says each group that is in.
"""

import asyncio
import sys
from dataclasses import replace
from pathlib import Path

from ringfence.control.labelling import Report, label
from ringfence.store.flows import FlowStore, FlowStoreConfig
from tests.integration.store.observed import HISTORY, pod_to_pod_same_node


def reports(count: int) -> list[Report]:
    (agent,) = pod_to_pod_same_node()
    one = agent.report("")
    return [replace(one, key=replace(one.key, id=str(number))) for number in range(count)]


async def main(directory: Path, count: int, at_once: int) -> None:
    store = FlowStore(FlowStoreConfig(directory / "flows"))
    await store.start()
    left = reports(count)
    while left:
        group, left = left[:at_once], left[at_once:]
        while group:
            known = await store.insert([report.key for report in group], *label(group, HISTORY))
            group = [report for report in group if known and report.key not in known]
        print(len(left), flush=True)
    await store.stop()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
