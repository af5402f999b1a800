"""What DNS answered, as agents tell it: kept over restarts, and told to who depends on it.

An answer counts only from the DNS of the cluster whose agent tells it, or from one on a node.
Whoever answers from elsewhere could give any name any address.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable

import numpy as np
import pyarrow as pa

from ringfence.control.agents import NodeKey
from ringfence.control.background import Background
from ringfence.control.metrics import Metrics
from ringfence.control.times import Clock
from ringfence.flows.dns import LONGEST_NAME, LONGEST_TTL
from ringfence.inventory.resolutions import KEPT_NS, LINGER_NS, Resolution, Resolutions
from ringfence.inventory.timeline import Timeline
from ringfence.model.address import Address
from ringfence.model.errors import InputError
from ringfence.model.ids import TenantId
from ringfence.policy.resolvers import resolvers
from ringfence.store.relational.database import Database
from ringfence.store.relational.dns_names import load_names, put_names, remove_names
from ringfence.wire.generated.agent_pb2 import DnsAnswer
from ringfence.wire.limits import MOST_DNS_ANSWERS

_WRITE_EVERY_SECONDS = 5.0
_MOST_ADDRESSES = 128
"""Of one answer; a UDP message holds fewer."""
_ADDRESS_BYTES = 16


class DnsNames:
    """Owns what names mean."""

    def __init__(
        self,
        clock: Clock,
        database: Database,
        tenant: TenantId,
        timeline: Timeline,
        metrics: Metrics,
    ) -> None:
        self._clock, self._database, self._tenant = clock, database, tenant
        self._timeline = timeline
        self.resolutions = Resolutions()
        self._on_change: list[Callable[[frozenset[str]], None]] = []
        self._unwritten: dict[tuple[str, Address], Resolution] = {}
        self._writing = Background("names", self._pause, self._write, metrics)

    async def start(self) -> None:
        """Take up what was told before."""
        async with self._database.read() as connection:
            for one in await load_names(connection, self._tenant):
                self.resolutions.learn(one)
        self._writing.start()

    async def stop(self) -> None:
        """Write what is left."""
        await self._writing.stop()
        await self._write()

    def subscribe(self, on_change: Callable[[frozenset[str]], None]) -> None:
        """Have a quick function called with the names that got an address."""
        self._on_change.append(on_change)

    def hear(self, agent: NodeKey, answers: Collection[DnsAnswer]) -> None:
        """Take in what a node's agent tells; raises InputError for what none would."""
        if len(answers) > MOST_DNS_ANSWERS:
            raise InputError(
                f"{len(answers)} answers at once; at most {MOST_DNS_ANSWERS} are taken"
            )
        now_ns, (cluster, node) = self._clock(), agent
        for answer in answers:
            _check(answer)
        known = resolvers(self._timeline.latest(), cluster)
        trusted = [answer for answer in answers if answer.resolver in known]
        told = [one for answer in trusted for one in _read(node, answer, now_ns)]
        self._tell(filter(None, map(self.resolutions.learn, told)))

    def seen(self, flows: pa.Table, at_ns: int) -> None:
        """Flows (`wire.batch.FLOWS`) that were seen until then keep the names that they used."""
        names = np.asarray(flows["provider_dns_name"])
        rows = np.flatnonzero(names != "")
        if not len(rows):
            return
        used = (
            flows.select(["provider_dns_name", "provider"])
            .take(rows)
            .group_by(["provider_dns_name", "provider"])
            .aggregate([])
        )
        for row in used.to_pylist():
            name, address = row["provider_dns_name"], Address(row["provider"])
            if one := self.resolutions.used(name, address, at_ns):
                self._unwritten[one.name, one.address] = one

    def _tell(self, changed: Iterable[Resolution]) -> None:
        fresh = {(one.name, one.address): one for one in changed}
        self._unwritten.update(fresh)
        if fresh:
            names = frozenset(name for name, _ in fresh)
            for callback in self._on_change:
                callback(names)

    async def _pause(self) -> None:
        await asyncio.sleep(_WRITE_EVERY_SECONDS)

    async def _write(self) -> None:
        over, fresh = self.resolutions.forget(self._clock()), self._unwritten
        if not over and not fresh:
            return
        self._unwritten = {}
        try:
            async with self._database.write() as connection:
                await put_names(connection, self._tenant, fresh.values())
                await remove_names(connection, self._tenant, over)
        except BaseException:
            self._unwritten = fresh | self._unwritten
            raise


def _check(answer: DnsAnswer) -> None:
    wrong = {len(one) for one in (*answer.addresses, answer.resolver)} != {_ADDRESS_BYTES}
    if wrong or len(answer.addresses) > _MOST_ADDRESSES or len(answer.name) > LONGEST_NAME:
        raise InputError("no answer of a DNS server is like that")


def _read(node: str, answer: DnsAnswer, now_ns: int) -> list[Resolution]:
    """The pairs that an answer tells, none where they are long over."""
    at_ns = min(answer.at_ns, now_ns)
    until_ns = at_ns + min(answer.ttl_seconds, LONGEST_TTL) * 10**9 + LINGER_NS
    if until_ns + KEPT_NS <= now_ns:
        return []
    return [
        Resolution(answer.name, Address(bytes(one)), at_ns, until_ns, node)
        for one in answer.addresses
    ]
