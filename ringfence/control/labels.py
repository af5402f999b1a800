"""Labels that people upload for addresses: kept in the database, and items of the inventory."""

import asyncio
from collections.abc import Collection, Iterable, Set
from dataclasses import dataclass
from operator import attrgetter

from ringfence.control.audit import Author
from ringfence.control.errors import NotFoundError
from ringfence.control.inventory import Inventory
from ringfence.control.services import Clock
from ringfence.inventory.timeline import Change
from ringfence.inventory.uploaded import MOST_NETWORKS, Upload, is_address, item_of, written
from ringfence.model.address import Network
from ringfence.model.errors import InputError
from ringfence.model.ids import TenantId
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
            before = {network: one.upload for network, one in self._held.items()}
            outcome = Outcome(
                added=given.keys() - before.keys(),
                changed={n for n in given.keys() & before.keys() if given[n] != before[n]},
                removed=before.keys() - given.keys() if replace else frozenset(),
            )
            total = len(before) + len(outcome.added) - len(outcome.removed)
            if total > MOST_NETWORKS:
                raise InputError(
                    f"{total:,} addresses and networks are more than the {MOST_NETWORKS:,} that"
                    " may have labels: write networks in place of single addresses"
                )
            new = [given[network] for network in outcome.added | outcome.changed]
            await self._change(new, outcome.removed, author, _told(outcome))
            return outcome

    async def remove(self, networks: Collection[Network], author: Author) -> None:
        """Forget what is said of networks; raises NotFoundError where nothing is, StoreError."""
        async with self._one_at_a_time:
            unknown = [written(one) for one in networks if one not in self._held]
            if unknown:
                raise NotFoundError(f"no labels are uploaded for {named(unknown)}")
            outcome = Outcome(frozenset(), frozenset(), frozenset(networks))
            await self._change([], outcome.removed, author, _told(outcome))

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

    async def _change(
        self, new: Collection[Upload], removed: Collection[Network], author: Author, what: str
    ) -> None:
        if not (new or removed):
            return
        now_ns, actor = self._clock(), author.principal.actor
        fresh = {one.network: Uploaded(one, actor, now_ns) for one in new}
        ended = [self._held[one].upload for one in (*removed, *fresh) if one in self._held]
        before, after = await asyncio.to_thread(_items, ended), await asyncio.to_thread(_items, new)
        async with self._database.write() as connection:
            await remove_uploads(connection, self._tenant, removed)
            await put_uploads(connection, self._tenant, fresh.values())
            await author.note(connection, now_ns, what)
        timeline, changes = self._inventory.timeline, list[Change]()
        for item in before:
            changes += timeline.gone(now_ns, item.key)
        for item in after:
            changes += timeline.observe(now_ns, item)
        for network in removed:
            del self._held[network]
        self._held |= fresh
        self._inventory.record(changes)


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
