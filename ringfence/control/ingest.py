"""Takes in what agents report: labels it by the inventory of its time, stores and exports it."""

import pyarrow as pa

from ringfence.control.arrivals import Arrivals
from ringfence.control.errors import NotYetError
from ringfence.control.exports import Exports
from ringfence.control.identity import ClientIdentity
from ringfence.control.inventory import Inventory
from ringfence.control.services import Clock, Window
from ringfence.flows.label import Columns, label_drops, label_flows
from ringfence.model.ids import ClusterId
from ringfence.store.flows import FlowStore
from ringfence.store.flows.queries import THROUGH
from ringfence.store.flows.schema import DROP_ROWS, FLOW_ROWS
from ringfence.store.flows.store import BatchKey
from ringfence.wire import batch

SILENT_NS = 300 * 10**9
"""A node whose agent has sent nothing for so long counts as one without an agent."""

PATIENCE_NS = 60 * 10**9
"""How long a report waits for the first inventory of its Kubernetes cluster."""


class FlowIngest:
    """Labels rows and hands them to the store; knows which nodes have an agent."""

    def __init__(
        self, store: FlowStore, inventory: Inventory, exports: Exports, clock: Clock
    ) -> None:
        self._store, self._inventory, self._exports = store, inventory, exports
        self._clock = clock
        self._through: dict[tuple[ClusterId, str], int] = {}
        self.arrivals = Arrivals()

    async def start(self) -> None:
        """Learn from the store who reported lately."""
        since = {"since": self._clock() - SILENT_NS}
        for row in (await self._store.query(THROUGH, since)).to_pylist():
            self._through[ClusterId(row["kubernetes_cluster"]), row["node"]] = row["through_ns"]

    async def stop(self) -> None:
        """Nothing is held open."""

    def through(self) -> dict[tuple[ClusterId, str], int]:
        """For each node with an agent the end of its last window, epoch ns."""
        alive = self._clock() - SILENT_NS
        return {key: end for key, end in self._through.items() if end >= alive}

    async def ingest(
        self,
        agent: ClientIdentity,
        batch_id: str,
        window: Window,
        flows: pa.Table,
        drops: pa.Table,
    ) -> bool:
        """Store one batch, with the schemas of `wire.batch`; True if it was there already.

        Raises NotYetError, for a while, where nobody has said yet who holds its addresses.
        """
        cluster, node = agent.kubernetes_cluster, agent.name
        timeline = self._inventory.timeline
        awaited = cluster and not timeline.knows(cluster)
        if awaited and self._clock() < window.end_ns + PATIENCE_NS:
            raise NotYetError(f"the inventory of {cluster} is awaited from its connector")
        key = BatchKey(agent.tenant, cluster, node, batch_id, window.start_ns, window.end_ns)
        origin = [agent.tenant, cluster, node]
        flow_rows = _rows(FLOW_ROWS, origin, label_flows(flows, timeline, cluster, node))
        duplicate = await self._store.insert(
            key,
            flow_rows,
            _rows(DROP_ROWS, origin, label_drops(drops, timeline, window.start_ns, window.end_ns)),
        )
        last = self._through.get((cluster, node), 0)
        self._through[cluster, node] = max(last, window.end_ns)
        if not duplicate:
            self.arrivals.tell(agent.tenant, window)
            agents = {name for of, name in self.through() if of == cluster}
            self._exports.take(flow_rows, agents | {node})
        return duplicate


def _rows(schema: pa.Schema, origin: list[str], columns: Columns) -> pa.Table:
    count = len(columns["protocol"])
    names = ("tenant", "kubernetes_cluster", "node")
    same = {name: pa.repeat(value, count) for name, value in zip(names, origin, strict=True)}
    return batch.table(schema, columns | same)
