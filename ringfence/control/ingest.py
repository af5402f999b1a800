"""Takes in what agents report: labels it by the inventory of its time, stores and exports it.

Every insertion has a price of its own, so that reports which come while one is under way wait,
and go in together with the next. Where as many wait as may go together, they are labelled
meanwhile, and the store goes from one insertion to the next without waiting for anybody.
"""

import asyncio
from collections import deque

import pyarrow as pa

from ringfence.control.arrivals import Arrivals
from ringfence.control.errors import NotYetError
from ringfence.control.exports import Exports
from ringfence.control.identity import ClientIdentity
from ringfence.control.inventory import Inventory
from ringfence.control.labelling import Report, label
from ringfence.control.times import Clock, Window
from ringfence.model.ids import ClusterId
from ringfence.store.errors import UnfinishedError
from ringfence.store.flows import FlowStore
from ringfence.store.flows.queries import THROUGH
from ringfence.store.flows.store import BatchKey
from ringfence.wire.limits import MOST_ROWS

SILENT_NS = 300 * 10**9
"""A node whose agent has sent nothing for so long counts as one without an agent."""

NEWS_NS = 2 * 10**9
"""How long the news of an address may take from a kubelet to the control plane."""

PATIENCE_NS = 60 * 10**9
"""How long a report waits for the first inventory of its Kubernetes cluster."""

_ROWS_AT_ONCE = MOST_ROWS


class FlowIngest:
    """Labels rows and hands them to the store; knows which nodes have an agent."""

    def __init__(
        self, store: FlowStore, inventory: Inventory, exports: Exports, clock: Clock
    ) -> None:
        self._flows, self._inventory, self._exports = store, inventory, exports
        self._clock = clock
        self._through: dict[tuple[ClusterId, str], int] = {}
        self._heard: dict[tuple[ClusterId, str], int] = {}
        self._waiting: deque[Report] = deque()
        self._rows = 0
        """Of those that wait."""
        self._stored: dict[BatchKey, asyncio.Future[bool]] = {}
        """Whether each of those that are not stored yet was known."""
        self._unfinished: set[BatchKey] = set()
        self._under_way: set[asyncio.Task[None]] = set()
        self.arrivals = Arrivals()

    async def start(self) -> None:
        """Learn from the store who reported last."""
        for row in (await self._flows.query(THROUGH, {"silent": SILENT_NS})).to_pylist():
            self._through[ClusterId(row["kubernetes_cluster"]), row["node"]] = row["through_ns"]
        self._heard = dict.fromkeys(self._through, self._clock())

    async def stop(self) -> None:
        """Store what is waiting."""
        while self._under_way:
            await asyncio.wait(self._under_way)

    def through(self) -> dict[tuple[ClusterId, str], int]:
        """For each node with an agent the end of its last whole window, epoch ns."""
        alive = self._clock() - SILENT_NS
        return {key: end for key, end in self._through.items() if end >= alive}

    @property
    def is_behind(self) -> bool:
        """Whether reports come faster than they are stored."""
        return self._rows >= _ROWS_AT_ONCE

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
        duplicate = await self._store(Report(key, flows, drops))
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

    async def _store(self, report: Report) -> bool:
        """Wait for its turn; one that comes again meanwhile waits for the first."""
        again = report.key in self._stored
        if not again:
            self._stored[report.key] = asyncio.get_running_loop().create_future()
            self._waiting.append(report)
            self._rows += report.rows
            self._begin()
        # Who waits may give up, but not for others.
        known = await asyncio.shield(self._stored[report.key])
        return known or again

    def _begin(self) -> None:
        """Store what waits, unless it does better to wait for more while others are stored."""
        enough = self._rows >= _ROWS_AT_ONCE
        if self._waiting and len(self._under_way) < (2 if enough else 1):
            storing = asyncio.create_task(self._finish(self._next_group()))
            self._under_way.add(storing)
            storing.add_done_callback(self._ended)

    def _ended(self, storing: asyncio.Task[None]) -> None:
        self._under_way.remove(storing)
        self._begin()

    async def _finish(self, group: list[Report]) -> None:
        """Store a group and answer those who wait for it."""
        storing = self._store_group(group)
        (known,) = await asyncio.gather(storing, return_exceptions=True)
        for report in group:
            stored = self._stored.pop(report.key)
            if isinstance(known, BaseException):
                stored.set_exception(known)
            else:
                stored.set_result(report.key in known)

    def _next_group(self) -> list[Report]:
        """Take those that have waited longest, at least one, up to _ROWS_AT_ONCE rows."""
        group = [self._waiting.popleft()]
        rows = group[0].rows
        while self._waiting and rows + self._waiting[0].rows <= _ROWS_AT_ONCE:
            group.append(self._waiting.popleft())
            rows += group[-1].rows
        self._rows -= rows
        return group

    async def _store_group(self, reports: list[Report]) -> set[BatchKey]:
        """Store what is not known yet, and announce it; the keys of what was announced before."""
        keys = [report.key for report in reports]
        flows, drops = label(reports, self._inventory.timeline)
        try:
            known = await self._flows.insert(keys, flows, drops)
        except UnfinishedError:
            self._unfinished.update(keys)
            raise
        if not known:
            self._announce(reports, flows)
            return known
        # An insertion that broke off may have been finished since: nobody has heard of its rows.
        news = known & self._unfinished
        late = [report for report in reports if report.key in news]
        if late:
            self._announce(late, label(late, self._inventory.timeline)[0])
        fresh = [report for report in reports if report.key not in known]
        if fresh:
            known |= await self._store_group(fresh)
        return known - news

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
