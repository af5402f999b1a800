"""Labels that people upload for addresses: kept in the database, and items of the inventory."""

import asyncio
from collections.abc import Collection, Iterable, Mapping, Set
from dataclasses import dataclass
from operator import attrgetter

from ringfence.control.audit import Author
from ringfence.control.errors import NotFoundError
from ringfence.control.inventory import Inventory
from ringfence.control.times import Clock
from ringfence.inventory.timeline import Change
from ringfence.inventory.uploaded import (
    MOST_BYTES,
    MOST_NETWORKS,
    Upload,
    is_address,
    item_of,
    written,
    written_bytes,
)
from ringfence.model.address import Network
from ringfence.model.errors import InputError
from ringfence.model.ids import TenantId
from ringfence.model.parts import parts
from ringfence.model.words import named
from ringfence.model.workload import Item, ItemKind
from ringfence.store.relational.database import Database
from ringfence.store.relational.uploads import (
    Uploaded,
    load_uploads,
    put_uploads,
    remove_uploads,
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an upload changed: the networks of each kind."""

    added: Set[Network]
    changed: Set[Network]
    removed: Set[Network]


class UploadedLabels:
    """Owns what people say of addresses; the timeline has what they said when."""

    def __init__(
        self, clock: Clock, database: Database, tenant: TenantId, inventory: Inventory
    ) -> None:
        self._clock, self._database, self._tenant = clock, database, tenant
        self._inventory = inventory
        self._held: dict[Network, Uploaded] = {}
        self._one_at_a_time = asyncio.Lock()

    async def start(self) -> None:
        """Learn what was said, and say to the inventory what a crash kept from it."""
        async with self._database.read() as connection:
            self._held = await load_uploads(connection, self._tenant)
        timeline, changes = self._inventory.timeline, list[Change]()
        wanted = {item_of(one.upload).key: one for one in self._held.values()}
        present = {item.key for item in timeline.latest().items if item.kind is ItemKind.NETWORK}
        for key in present - wanted.keys():
            changes += timeline.gone(self._clock(), key)
        for key in wanted.keys() - present:
            one = wanted[key]
            changes += timeline.observe(one.changed_ns, item_of(one.upload))
        self._inventory.record(changes)

    async def stop(self) -> None:
        """Nothing is held open."""

    def all(self) -> list[Uploaded]:
        """What is said now, in the order of addresses."""
        return [self._held[network] for network in _ordered(self._held)]

    async def upload(
        self, uploads: Iterable[Upload], author: Author, *, replace: bool = False
    ) -> Outcome:
        """Take labels in, each in the place of those its network had; StoreError, InputError.

        With `replace` what other networks had is removed.
        """
        async with self._one_at_a_time:
            given = {one.network: one for one in uploads}
            outcome = await asyncio.to_thread(_compare, self._held, given, replace)
            new = [given[network] for network in outcome.added | outcome.changed]
            await self._change(new, outcome, author)
            return outcome

    async def remove(self, networks: Collection[Network], author: Author) -> None:
        """Forget what is said of networks; raises NotFoundError where nothing is, StoreError."""
        async with self._one_at_a_time:
            unknown = [written(one) for one in networks if one not in self._held]
            if unknown:
                raise NotFoundError(f"no labels are uploaded for {named(unknown)}")
            outcome = Outcome(frozenset(), frozenset(), frozenset(networks))
            await self._change([], outcome, author)

    def shadowed(self, networks: Iterable[Network]) -> list[str]:
        """Of single addresses those that items hold, and whose labels count therefore."""
        held = {
            network: holders[0]
            for network in networks
            if is_address(network)
            and (holders := self._inventory.timeline.holders(network.address))
        }
        return [
            f"{written(network)} is {held[network].kind} {held[network].display}"
            for network in _ordered(held)
        ]

    async def _change(self, new: Collection[Upload], outcome: Outcome, author: Author) -> None:
        removed = outcome.removed
        if not (new or removed):
            return
        now_ns, actor = self._clock(), author.principal.actor
        fresh = {one.network: Uploaded(one, actor, now_ns) for one in new}
        ended = [self._held[network] for network in removed | outcome.changed]
        before = await asyncio.to_thread(_items, [one.upload for one in ended])
        after = await asyncio.to_thread(_items, new)
        what = await asyncio.to_thread(_told, outcome)
        async with self._database.write() as connection:
            await remove_uploads(connection, self._tenant, removed)
            await put_uploads(connection, self._tenant, fresh.values())
            await author.note(connection, now_ns, what, about="labels")
        for network in removed:
            del self._held[network]
        self._held |= fresh
        # In parts, so that others are served in between: all at once would take long.
        timeline = self._inventory.timeline
        for ending in parts(before):
            self._inventory.record(
                [change for item in ending for change in timeline.gone(now_ns, item.key)]
            )
            await asyncio.sleep(0)
        for beginning in parts(after):
            self._inventory.record(
                [change for item in beginning for change in timeline.observe(now_ns, item)]
            )
            await asyncio.sleep(0)


def _compare(
    held: Mapping[Network, Uploaded], given: Mapping[Network, Upload], replace: bool
) -> Outcome:
    """What uploads change; raises InputError where there would be too much."""
    outcome = Outcome(
        added=given.keys() - held.keys(),
        changed={n for n in given.keys() & held.keys() if given[n] != held[n].upload},
        removed=held.keys() - given.keys() if replace else frozenset(),
    )
    kept = [one.upload for n, one in held.items() if n not in given and n not in outcome.removed]
    left = [*kept, *given.values()]
    if len(left) > MOST_NETWORKS:
        raise InputError(
            f"{len(left):,} addresses and networks are more than the {MOST_NETWORKS:,} that"
            " may have labels: write networks in place of single addresses"
        )
    if (size := written_bytes(left)) > MOST_BYTES:
        raise InputError(
            f"{size:,} bytes are more than the {MOST_BYTES:,} that all addresses with labels may"
            " take together: leave out what is not needed"
        )
    return outcome


def _ordered(networks: Iterable[Network]) -> list[Network]:
    return sorted(networks, key=attrgetter("address", "prefix"))


def _items(uploads: Iterable[Upload]) -> list[Item]:
    return [item_of(one) for one in uploads]


def _told(outcome: Outcome) -> str:
    """The change for the audit trail."""
    parts = [
        f"{verb} for {named([written(one) for one in _ordered(networks)])}"
        for verb, networks in (
            ("added", outcome.added),
            ("changed", outcome.changed),
            ("removed", outcome.removed),
        )
        if networks
    ]
    return f"labels {', '.join(parts)}"
