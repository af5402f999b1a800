"""What agents report, as it is stored: the rows of many reports become one table."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ringfence.flows.label import Agents, label_drops, label_flows
from ringfence.inventory.timeline import Timeline
from ringfence.model.ids import ClusterId
from ringfence.store.flows.schema import DROP_ROWS, FLOW_ROWS
from ringfence.store.flows.store import BatchKey
from ringfence.wire import batch


@dataclass(frozen=True, slots=True, eq=False)
class Report:
    """One batch of an agent, its tables with the schemas of `wire.batch`."""

    key: BatchKey
    flows: pa.Table
    drops: pa.Table

    @property
    def rows(self) -> int:
        """How many rows it comes to, with the one that tells of itself."""
        return len(self.flows) + len(self.drops) + 1


def label(reports: Sequence[Report], timeline: Timeline) -> tuple[pa.Table, pa.Table]:
    """The rows of reports as FLOW_ROWS and DROP_ROWS."""
    flows = pa.concat_tables([batch.FLOWS.empty_table(), *(one.flows for one in reports)])
    drops = pa.concat_tables([batch.DROPS.empty_table(), *(one.drops for one in reports)])
    of_flow, of_drop = (
        np.repeat(np.arange(len(reports)), counts)
        for counts in ([len(one.flows) for one in reports], [len(one.drops) for one in reports])
    )
    start_ns = np.array([one.key.start_ns for one in reports], dtype=np.int64)
    end_ns = np.array([one.key.end_ns for one in reports], dtype=np.int64)
    labelled = label_flows(flows.combine_chunks(), timeline, _agents(reports, of_flow))
    labelled["window_end_ns"] = end_ns[of_flow]
    dropped = label_drops(
        drops.combine_chunks(),
        timeline,
        _agents(reports, of_drop),
        start_ns[of_drop],
        end_ns[of_drop],
    )
    dropped["window_end_ns"] = end_ns[of_drop]
    return batch.table(FLOW_ROWS, labelled), batch.table(DROP_ROWS, dropped)


def _agents(reports: Sequence[Report], which: NDArray[np.intp]) -> Agents:
    keys = [one.key for one in reports]
    named = [(key.tenant, ClusterId(key.kubernetes_cluster), key.node) for key in keys]
    return Agents(named, which)
