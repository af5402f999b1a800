"""Address sets: their lists are fetched in time, and what they hold is told to who depends on it.

A list that cannot be had, that is empty or absurd takes nothing away: the set holds what it held,
and says since when and why.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from ringfence.control.audit import Author
from ringfence.control.background import Background, attempt
from ringfence.control.errors import ConflictError, NotFoundError
from ringfence.control.metrics import Metrics
from ringfence.control.times import Clock
from ringfence.feeds.errors import FeedError
from ringfence.feeds.lists import fetch_list
from ringfence.inventory.contents import Content, Contents, pack, unpack
from ringfence.model.address import Network
from ringfence.model.address_set import (
    LONGEST_SECONDS,
    SHORTEST_SECONDS,
    AddressSet,
    Fetched,
    Uploaded,
    Written,
    read_list,
)
from ringfence.model.errors import InputError
from ringfence.model.ids import AddressSetName, TenantId
from ringfence.model.ranges import AddressRange, of_families, subtract
from ringfence.model.words import counted
from ringfence.store.relational.address_sets import (
    HeldSet,
    Refreshed,
    all_address_sets,
    load_address_set,
    load_contents,
    put_content,
    put_refreshed,
)
from ringfence.store.relational.database import Database

_LOG = structlog.get_logger(__name__)
_AT_ONCE = 8
"""Lists that are fetched together."""
_RETRY_SECONDS = 60.0
"""After the database failed."""
_LONGEST_PROBLEM = 2000
_NEVER = 1 << 63


class AddressSetKeeper:
    """Owns what address sets hold."""

    def __init__(
        self,
        clock: Clock,
        database: Database,
        tenant: TenantId,
        networks: tuple[Network, ...],
        metrics: Metrics,
    ) -> None:
        self._clock, self._database, self._tenant = clock, database, tenant
        self._networks = networks
        self.contents = Contents()
        self._held: dict[AddressSetName, HeldSet] = {}
        self._on_change: list[Callable[[], None]] = []
        self._unread = False
        self._wake = asyncio.Event()
        self._one_at_a_time = asyncio.Lock()
        self._following = Background(
            "address-sets", self._until_due, self._fetch_due, metrics, _RETRY_SECONDS
        )

    async def start(self) -> None:
        """Take up what sets held, and keep their lists up to date."""
        async with self._database.read() as connection:
            for content in await load_contents(connection, self._tenant):
                self.contents.hold(content)
        await self.reload()
        self._following.start()

    async def stop(self) -> None:
        """Fetch no more."""
        await self._following.stop()

    def subscribe(self, on_change: Callable[[], None]) -> None:
        """Have a quick function called when a set holds something else."""
        self._on_change.append(on_change)

    def all(self) -> list[HeldSet]:
        """Every set, by name."""
        return [self._held[name] for name in sorted(self._held)]

    def get(self, name: AddressSetName) -> HeldSet:
        """The set of that name; raises NotFoundError."""
        if name not in self._held:
            raise NotFoundError(f"there is no address set {name!r}: see `get address-sets`")
        return self._held[name]

    def failing(self) -> int:
        """How many lists could not be read when they were last asked for."""
        return sum(bool(one.refreshed.problem) for one in self._held.values())

    async def reload(self) -> None:
        """Take up what was decided about sets; raises StoreError."""
        async with self._one_at_a_time:
            async with self._database.read() as connection:
                held = await all_address_sets(connection, self._tenant)
            for name in self._held.keys() - {one.address_set.name for one in held}:
                self.contents.forget(name)
            self._held = {one.address_set.name: one for one in held}
            for one in held:
                self.contents.begin(one.address_set.name)
                if isinstance(one.address_set.source, Written):
                    ranges = of_families(one.address_set.source.ranges)
                    with contextlib.suppress(ConflictError):  # who changed it reloads as well
                        await self._hold(one.address_set, ranges, one.refreshed)
        self._unread = False
        self._wake.set()

    async def follow(self) -> str:
        """Take up what was decided, now or later; why not now, empty if it is done."""
        return await attempt(self.reload, self._read_later)

    def _read_later(self) -> None:
        self._unread = True
        self._wake.set()

    async def upload(self, name: AddressSetName, text: str, author: Author) -> HeldSet:
        """Have a set hold the list in a text.

        Raises NotFoundError, InputError, StoreError, ConflictError for a set that is not uploaded
        or that was changed meanwhile.
        """
        ranges = await asyncio.to_thread(read_list, text)
        async with self._one_at_a_time:
            one = self.get(name).address_set
            if not isinstance(one.source, Uploaded):
                raise ConflictError(f"address set {name!r} is not one that is `uploaded: true`")
            now_ns = self._clock()
            await self._hold(one, ranges, Refreshed(now_ns, now_ns), author)
        return self.get(name)

    async def refresh(self, name: AddressSetName) -> HeldSet:
        """Fetch a set's list now; raises NotFoundError, StoreError.

        ConflictError where it has no URL, or was changed meanwhile.
        """
        one = self.get(name)
        if not isinstance(one.address_set.source, Fetched):
            raise ConflictError(f"address set {name!r} has no URL to fetch it from")
        await self._refresh(one)
        return self.get(name)

    async def _until_due(self) -> None:
        at_ns = min(map(_due_ns, self._held.values()), default=_NEVER)
        seconds = max(0.0, (at_ns - self._clock()) / 10**9)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(seconds, LONGEST_SECONDS)):
                await self._wake.wait()
        self._wake.clear()

    async def _fetch_due(self) -> None:
        if self._unread:
            await self.reload()
        now_ns = self._clock()
        due = [one for one in self._held.values() if _due_ns(one) <= now_ns]
        failures: list[BaseException] = []
        for some in (due[at : at + _AT_ONCE] for at in range(0, len(due), _AT_ONCE)):
            done = await asyncio.gather(*map(self._refresh, some), return_exceptions=True)
            failures += (one for one in done if one is not None)
        if failures:  # after the others, which have nothing to do with it
            await self.reload()  # a set may have been changed meanwhile
        for failure in failures:
            if not isinstance(failure, ConflictError | NotFoundError):
                raise failure

    async def _refresh(self, one: HeldSet) -> None:
        """Fetch a set's list; raises StoreError.

        ConflictError or NotFoundError where the set was changed or deleted meanwhile.
        """
        name, source = one.address_set.name, one.address_set.source
        if not isinstance(source, Fetched):
            return
        ranges, problem = None, ""
        try:
            text = await fetch_list(source.url, self._networks)
            ranges = await asyncio.to_thread(read_list, text)
        except (FeedError, InputError) as error:
            problem = str(error)[:_LONGEST_PROBLEM]
        except Exception as error:  # noqa: BLE001 - a bug here must not stop the other lists
            _LOG.exception("a bug in reading a list", name=name)
            problem = f"the control plane failed to read it: {type(error).__name__}"
        async with self._one_at_a_time:
            now_ns, before = self._clock(), self.get(name).refreshed
            if ranges is None:
                _LOG.warning("address set not refreshed", name=name, reason=problem)
                told = replace(before, tried_ns=now_ns, problem=problem)
                async with self._noting(one.address_set, told):
                    pass
            else:
                await self._hold(one.address_set, ranges, Refreshed(now_ns, now_ns))

    @contextlib.asynccontextmanager
    async def _noting(
        self, one: AddressSet, refreshed: Refreshed
    ) -> AsyncIterator[AsyncConnection]:
        """A transaction that notes how a list fared; ConflictError if the set is another now."""
        async with self._database.write() as connection:
            if await load_address_set(connection, self._tenant, one.name) != one:
                raise ConflictError(f"address set {one.name!r} was changed meanwhile: try again")
            await put_refreshed(connection, self._tenant, one.name, refreshed)
            yield connection
        self._held[one.name] = replace(self._held[one.name], refreshed=refreshed)

    async def _hold(
        self,
        one: AddressSet,
        ranges: tuple[AddressRange, ...],
        refreshed: Refreshed,
        author: Author | None = None,
    ) -> None:
        """Have a set hold the ranges from now on, and say who made it so."""
        name, packed = one.name, await asyncio.to_thread(pack, ranges)
        before = self.contents.latest(name)
        if before is not None and before.packed == packed:
            async with self._noting(one, refreshed):
                return
        at_ns = max(self._clock(), before.from_ns + 1 if before else 0)
        content = Content(name, at_ns, packed)
        over = self.contents.over(name)
        async with self._noting(one, refreshed) as connection:
            await put_content(connection, self._tenant, content, over)
            if author is not None:
                told = difference(unpack(before.packed) if before else (), ranges)
                what = f"uploaded address set {name}: {told}"
                await author.note(connection, at_ns, what, about=f"addressset/{name}")
        self.contents.hold(content)
        for callback in self._on_change:
            callback()


def difference(before: tuple[AddressRange, ...], after: tuple[AddressRange, ...]) -> str:
    """How many ranges there are, and how many came and went."""
    came, went = len(subtract(after, before)), len(subtract(before, after))
    return f"{counted(len(after), 'range')}, {came} new, {went} gone"


def _due_ns(one: HeldSet) -> int:
    """When to fetch the set's list next, epoch ns."""
    source, tried = one.address_set.source, one.refreshed
    if not isinstance(source, Fetched):
        return _NEVER
    if tried.tried_ns is None:
        return 0
    seconds = SHORTEST_SECONDS if tried.problem else source.every_seconds
    return tried.tried_ns + seconds * 10**9
