"""Takes in what agents report: labels it by the inventory of its time, stores and exports it.

Every insertion has a price of its own, so that reports which come while one is under way wait,
and go in together with the next.
"""

import asyncio

import pyarrow as pa

from ringfence.control.arrivals import Arrivals
from ringfence.control.errors import NotYetError
from ringfence.control.exports import Exports
from ringfence.control.identity import ClientIdentity
from ringfence.control.inventory import Inventory
from ringfence.control.labelling import Report, label
from ringfence.control.services import Clock, Window
from ringfence.model.ids import ClusterId
from ringfence.store.flows import FlowStore
from ringfence.store.flows.queries import THROUGH
from ringfence.store.flows.store import BatchKey

SILENT_NS = 300 * 10**9
"""A node whose agent has sent nothing for so long counts as one without an agent."""

NEWS_NS = 2 * 10**9
"""How long the news of an address may take from a kubelet to the control plane."""

PATIENCE_NS = 60 * 10**9
"""How long a report waits for the first inventory of its Kubernetes cluster."""

_ROWS_AT_ONCE = 65_536
"""As many as one report may have."""


class FlowIngest:
    """Labels rows and hands them to the store; knows which nodes have an agent."""

    def __init__(
        self, store: FlowStore, inventory: Inventory, exports: Exports, clock: Clock
    ) -> None:
        self._store, self._inventory, self._exports = store, inventory, exports
        self._clock = clock
        self._through: dict[tuple[ClusterId, str], int] = {}
        self._heard: dict[tuple[ClusterId, str], int] = {}
        self._waiting: dict[BatchKey, tuple[Report, asyncio.Future[bool]]] = {}
        self._unfinished: set[BatchKey] = set()
        self._writer: asyncio.Task[None] | None = None
        self.arrivals = Arrivals()

    async def start(self) -> None:
        """Learn from the store who reported last."""
        for row in (await self._store.query(THROUGH, {"silent": SILENT_NS})).to_pylist():
            self._through[ClusterId(row["kubernetes_cluster"]), row["node"]] = row["through_ns"]
        self._heard = dict.fromkeys(self._through, self._clock())

    async def stop(self) -> None:
        """Store what is waiting."""
        if self._writer is not None:
            await self._writer

    def through(self) -> dict[tuple[ClusterId, str], int]:
        """For each node with an agent the end of its last whole window, epoch ns."""
        alive = self._clock() - SILENT_NS
        return {key: end for key, end in self._through.items() if end >= alive}

    async def ingest(
        self,
        agent: ClientIdentity,
        batch_id: str,
        window: Window,
        flows: pa.Table,
        drops: pa.Table,
        *,
        more: bool = False,
    ) -> bool:
        """Store one batch, with the schemas of `wire.batch`; True if it was there already.

        `more` says that its window goes on in another batch: until that is stored nothing follows
        from what the window's rows do not tell.
        Raises NotYetError, for a while, where nobody has said yet who holds its addresses, and
        StoreError.
        """
        cluster, node = agent.kubernetes_cluster, agent.name
        awaited = cluster and not self._inventory.timeline.knows(cluster)
        if awaited and self._clock() < window.end_ns + PATIENCE_NS:
            raise NotYetError(f"the inventory of {cluster} is awaited from its connector")
        ahead_ns = window.end_ns + NEWS_NS - self._clock()
        await asyncio.sleep(min(max(ahead_ns, 0), NEWS_NS) / 10**9)
        self._hear((cluster, node))
        key = BatchKey(agent.tenant, cluster, node, batch_id, window.start_ns, window.end_ns, more)
        duplicate = await self._stored(Report(key, flows, drops))
        if not more:
            last = self._through.get((cluster, node), 0)
            self._through[cluster, node] = max(last, window.end_ns)
        return duplicate

    def _hear(self, node: tuple[ClusterId, str]) -> None:
        """Note that a node's agent is there.

        Where nobody was heard the network was away, or we were: agents come back one by one, with
        what they have kept, and those not heard yet will tell their part.
        """
        now_ns, before_ns = self._clock(), max(self._heard.values(), default=0)
        if now_ns - before_ns > SILENT_NS:
            alive = [one for one, at in self._heard.items() if before_ns - at <= SILENT_NS]
            self._heard = dict.fromkeys(alive, now_ns)
        self._heard[node] = now_ns

    async def _stored(self, report: Report) -> bool:
        """Wait for its turn; one that comes again meanwhile waits for the first."""
        again = report.key in self._waiting
        if not again:
            stored: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
            self._waiting[report.key] = (report, stored)
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write())
        # Who waits may give up, but not for others.
        known = await asyncio.shield(self._waiting[report.key][1])
        return known or again

    async def _write(self) -> None:
        while self._waiting:
            group = self._next_group()
            storing = self._store_group([report for report, _ in group])
            (known,) = await asyncio.gather(storing, return_exceptions=True)
            for report, stored in group:
                del self._waiting[report.key]
                if isinstance(known, BaseException):
                    stored.set_exception(known)
                else:
                    stored.set_result(report.key in known)

    def _next_group(self) -> list[tuple[Report, asyncio.Future[bool]]]:
        """Those that have waited longest, at least one, up to _ROWS_AT_ONCE rows."""
        group: list[tuple[Report, asyncio.Future[bool]]] = []
        rows = 0
        for report, stored in self._waiting.values():
            rows += len(report.flows) + len(report.drops)
            if group and rows > _ROWS_AT_ONCE:
                break
            group.append((report, stored))
        return group

    async def _store_group(self, reports: list[Report]) -> set[BatchKey]:
        """Store what is not known yet, and announce it; the keys of what was announced before."""
        known = await self._store.known([report.key for report in reports])
        # An insertion that had failed may have been finished since: nobody has heard of its rows.
        late = [report for report in reports if report.key in known & self._unfinished]
        if late:
            self._announce(late, label(late, self._inventory.timeline)[0])
        fresh = [report for report in reports if report.key not in known]
        if fresh:
            keys = [report.key for report in fresh]
            self._unfinished.update(keys)
            flows, drops = label(fresh, self._inventory.timeline)
            await self._store.insert(keys, flows, drops)
            self._announce(fresh, flows)
        return known - {report.key for report in late}

    def _announce(self, reports: list[Report], flows: pa.Table) -> None:
        """Tell of reports that are stored; their rows follow each other in `flows`."""
        for report in reports:
            key = report.key
            self._unfinished.discard(key)
            self.arrivals.tell(key.tenant, Window(key.start_ns, key.end_ns))
        if self._exports:
            self._export(reports, flows)

    def _export(self, reports: list[Report], flows: pa.Table) -> None:
        """Hand on the rows of reports, which follow each other in `flows`."""
        silent = self._clock() - SILENT_NS
        agents: dict[str, set[str]] = {}
        for (cluster, node), at in self._heard.items():
            if at >= silent:
                agents.setdefault(cluster, set()).add(node)
        start = 0
        for report in reports:
            known = agents.get(report.key.kubernetes_cluster, set())
            rows = flows.slice(start, len(report.flows))
            self._exports.take(rows, known | {report.key.node})
            start += len(rows)
