"""Puts workloads into quarantine, lifts that, and ends it when its time is over."""

import asyncio
from collections.abc import Collection
from dataclasses import dataclass

from ringfence.control.audit import Author
from ringfence.control.background import Background
from ringfence.control.enforcement import Enforcement
from ringfence.control.errors import ConflictError, NotFoundError
from ringfence.control.inventory import Inventory
from ringfence.control.metrics import Metrics
from ringfence.control.times import Clock
from ringfence.inventory.snapshot import Snapshot
from ringfence.model.errors import InputError
from ringfence.model.ids import ClusterId, TenantId
from ringfence.model.override import Override
from ringfence.model.quarantine import Quarantine
from ringfence.model.words import named
from ringfence.model.workload import ItemKind
from ringfence.policy.quarantine import (
    DNS,
    PROBES,
    check_allowed,
    find_workload,
    has_any,
    holders_of,
    remember,
)
from ringfence.store.relational.changes import Change, add_change
from ringfence.store.relational.database import Database
from ringfence.store.relational.quarantines import (
    load_quarantines,
    put_quarantine,
    remove_quarantines,
)

_LOOK_SECONDS = 1.0
_NOBODY = "ringfence", "expiry"
"""Who ends a quarantine whose time is over, and from where."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A quarantine as a person asks for it; `kubernetes_cluster` None where there is no doubt."""

    workload: str
    kubernetes_cluster: ClusterId | None
    allow: tuple[str, ...]
    reason: str
    for_ns: int | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """A quarantine, whom it holds, and what a person should know of it."""

    quarantine: Quarantine
    workloads: tuple[str, ...]
    notes: tuple[str, ...]
    refused: str
    """Why not to, empty for no reason."""


class Quarantines:
    """Owns the quarantines; the database has them, the enforcement reads them there."""

    def __init__(
        self,
        clock: Clock,
        database: Database,
        tenant: TenantId,
        inventory: Inventory,
        enforcement: Enforcement,
        metrics: Metrics,
    ) -> None:
        self._clock, self._database, self._tenant = clock, database, tenant
        self._inventory, self._enforcement = inventory, enforcement
        self._following = Background("quarantines", self._pause, self._look, metrics)

    async def start(self) -> None:
        """End those whose time is over, now and whenever it is; remember the pods they hold."""
        await self._expire()
        self._following.start()

    async def stop(self) -> None:
        """End none any more; what is in force stays."""
        await self._following.stop()

    async def all(self) -> tuple[Quarantine, ...]:
        """Those in force, the latest first."""
        async with self._database.read() as connection:
            return await load_quarantines(connection, self._tenant)

    def plan(self, asked: Asked, overrides: Collection[Override], actor: str) -> Outcome:
        """What a quarantine would hold; raises InputError, NotFoundError for no such workload."""
        allow = check_allowed(asked.allow)
        snapshot, now_ns = self._inventory.timeline.latest(), self._clock()
        try:
            cluster, query = find_workload(snapshot, asked.workload, asked.kubernetes_cluster)
        except InputError as error:
            raise NotFoundError(str(error)) from error
        expires_ns = now_ns + asked.for_ns if asked.for_ns is not None else None
        quarantine = remember(
            snapshot,
            Quarantine(
                cluster, asked.workload, query, allow, asked.reason, actor, now_ns, expires_ns
            ),
        )
        return Outcome(
            quarantine,
            tuple(holders_of(snapshot, quarantine, lambda _: True)),
            _notes(snapshot, quarantine),
            self._refusal(snapshot, quarantine, overrides),
        )

    async def put(self, asked: Asked, overrides: Collection[Override], author: Author) -> Outcome:
        """Quarantine a workload, in place of the quarantine it is in; raises as `plan`.

        Also ConflictError where that is refused. On return the nodes' directives are worked out.
        """
        outcome = self.plan(asked, overrides, author.principal.actor)
        if outcome.refused:
            raise ConflictError(outcome.refused)
        quarantine = outcome.quarantine
        async with self._database.write() as connection:
            await put_quarantine(connection, self._tenant, quarantine)
            what = f"quarantined {quarantine.name}"
            difference, about = describe(quarantine), _about(quarantine)
            await author.note(connection, quarantine.since_ns, what, difference, about=about)
        await self._enforcement.refresh()
        return outcome

    async def lift(self, workload: str, cluster: ClusterId | None, author: Author) -> Quarantine:
        """End a quarantine; raises NotFoundError, InputError where several are called so."""
        async with self._database.write() as connection:
            found = [
                one
                for one in await load_quarantines(connection, self._tenant)
                if one.workload == workload and cluster in (None, one.kubernetes_cluster)
            ]
            if not found:
                raise NotFoundError(f"{workload!r} is in no quarantine; see `quarantine list`")
            if len(found) > 1:
                places = named([one.kubernetes_cluster or "none" for one in found])
                raise InputError(f"{workload!r} is in several clusters ({places}): say in which")
            await remove_quarantines(connection, self._tenant, found)
            what = f"lifted quarantine of {found[0].name}"
            await author.note(connection, self._clock(), what, about=_about(found[0]))
        await self._enforcement.refresh()
        return found[0]

    def _refusal(
        self, snapshot: Snapshot, quarantine: Quarantine, overrides: Collection[Override]
    ) -> str:
        """Why the quarantine might lock the operator out, empty if it does not."""
        around = self._enforcement.surroundings
        here = {address for address, _ in around.control_plane}
        reached = holders_of(snapshot, quarantine, lambda item: has_any(item, here))
        if reached and Override.CONTROL_PLANE not in overrides:
            return (
                f"this control plane is reached at an address of {named(reached)}: nobody could "
                f"lift the quarantine from elsewhere. Override with `{Override.CONTROL_PLANE}`"
            )
        nodes = holders_of(snapshot, quarantine, lambda item: item.kind is not ItemKind.POD)
        if nodes and Override.NODE not in overrides:
            networks = named([str(network) for network in around.access.ssh_from])
            return (
                f"{named(nodes)} is a node or host, of which only the fail-safes would be left: "
                "loopback, to the control plane; of a node, to and from its cluster's nodes, "
                "kubelet, etcd, API server and tunnels; SSH from "
                f"{networks or 'nowhere, for the server was started without --ssh-network'}. "
                f"Its pods are not quarantined with it. Override with `{Override.NODE}`"
            )
        return ""

    async def _pause(self) -> None:
        await asyncio.sleep(_LOOK_SECONDS)

    async def _look(self) -> None:
        await self._expire()
        snapshot = self._inventory.timeline.latest()
        if any(remember(snapshot, one) != one for one in await self.all()):
            async with self._database.write() as connection:
                for one in await load_quarantines(connection, self._tenant):
                    if (fresh := remember(snapshot, one)) != one:
                        await put_quarantine(connection, self._tenant, fresh)
            self._enforcement.touch()

    async def _expire(self) -> None:
        now_ns = self._clock()
        over = _over(await self.all(), now_ns)
        if not over:
            return
        async with self._database.write() as connection:
            # Somebody may have prolonged one since.
            over = _over(await load_quarantines(connection, self._tenant), now_ns)
            await remove_quarantines(connection, self._tenant, over)
            for one in over:
                what = f"the quarantine of {one.name} is over"
                change = Change(now_ns, *_NOBODY, _about(one), what, describe(one))
                await add_change(connection, self._tenant, change)
        self._enforcement.touch()


def describe(quarantine: Quarantine) -> str:
    """What it allows and why it is, for the audit trail."""
    lines = [f"allow: {', '.join(quarantine.allow) or 'nothing'}", f"reason: {quarantine.reason}"]
    return "\n".join(lines if quarantine.reason else lines[:1])


def _about(quarantine: Quarantine) -> str:
    return f"quarantine/{quarantine.workload}"


def _over(quarantines: Collection[Quarantine], now_ns: int) -> list[Quarantine]:
    return [one for one in quarantines if one.expires_ns is not None and one.expires_ns <= now_ns]


def _notes(snapshot: Snapshot, quarantine: Quarantine) -> tuple[str, ...]:
    notes = []
    probed = holders_of(snapshot, quarantine, lambda item: bool(item.probe_ports))
    if probed and PROBES not in quarantine.allow:
        notes.append(
            f"the kubelet's probes of {named(probed)} are dropped too, so Kubernetes may restart "
            f"its containers; allow `{PROBES}` to keep them"
        )
    if DNS in quarantine.allow and not quarantine.kubernetes_cluster:
        notes.append(
            f"`{DNS}` is the DNS Service of Kubernetes clusters: allow other servers by address"
        )
    return tuple(notes)
