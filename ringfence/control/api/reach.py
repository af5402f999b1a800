"""Who may reach whom, by what is enforced or as if other versions were."""

import asyncio
from collections.abc import Iterable
from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from ringfence.control.auth import PrincipalDep
from ringfence.control.errors import NotFoundError
from ringfence.control.identity import Principal
from ringfence.control.policies import load_judged_by
from ringfence.control.services import Services, ServicesDep
from ringfence.control.trial import is_elsewhere, load_before, told_elsewhere
from ringfence.inventory.snapshot import Snapshot
from ringfence.model.errors import InputError
from ringfence.model.ids import parse_version
from ringfence.model.workload import Item
from ringfence.policy.hypothetical import find_workload
from ringfence.policy.layer import RuleLayer
from ringfence.policy.reach import Survey
from ringfence.policy.reachable import gained, inbound, outbound
from ringfence.store.relational.trials import load_trial

router = APIRouter(tags=["reach"])


class PeersView(BaseModel):
    """Peers on the same connections: owners, `NAMESPACE/*`, nodes, CIDR blocks."""

    names: list[str]
    connections: str = Field(description="Such as `TCP 80, 8000-8100; UDP`, or `any`.")


class ReachResponse(BaseModel):
    """What a workload may reach, and what may reach it."""

    workload: str
    outbound: list[PeersView]
    inbound: list[PeersView]
    notes: list[str]


class ConnectionsView(BaseModel):
    """Connections from any of the consumers to any of the providers."""

    consumers: list[str]
    providers: list[str]
    connections: str


class DifferenceResponse(BaseModel):
    """Connections that the new version allows and the old one does not, and the other way."""

    gained: list[ConnectionsView]
    lost: list[ConnectionsView]


class ReachQuery(BaseModel):
    """Whose reach, and by which versions."""

    workload: str = Field(description="An address, the name of a node, or namespace/name.")
    with_: list[str] = Field(
        default=[], alias="with", description="Workspaces as if enforced: NAME, or NAME@VERSION."
    )


@router.get("/reach")
async def reach(
    services: ServicesDep, principal: PrincipalDep, asked: Annotated[ReachQuery, Query()]
) -> ReachResponse:
    """List whom a workload may open connections to, and who to it."""
    snapshot = services.inventory.timeline.latest()
    try:
        position, notes = find_workload(snapshot, asked.workload)
    except InputError as error:
        raise NotFoundError(str(error)) from error
    layers = await _layers(services, principal, snapshot, asked.with_)
    if not asked.with_:
        notes = (*notes, *await _outside(services, principal, snapshot.items[position]))

    def work() -> ReachResponse:
        judged = Survey(layers).judge(*range(len(layers)))
        return ReachResponse(
            workload=snapshot.items[position].display,
            outbound=[PeersView(**asdict(one)) for one in outbound(judged, position)],
            inbound=[PeersView(**asdict(one)) for one in inbound(judged, position)],
            notes=list(notes),
        )

    return await asyncio.to_thread(work)


async def _outside(services: Services, principal: Principal, item: Item) -> list[str]:
    """A note where the workload is at a node outside the stage of what is on trial."""
    async with services.database.read() as connection:
        trial = await load_trial(connection, principal.tenant)
        before = await load_before(connection, principal.tenant, trial)
    if trial and is_elsewhere(trial, item):
        return [told_elsewhere(trial, item, before)]
    return []


@router.get("/reach/difference")
async def difference(
    services: ServicesDep, principal: PrincipalDep, old: str, new: str
) -> DifferenceResponse:
    """List the connections gained and lost between two versions, each within what is enforced."""
    snapshot = services.inventory.timeline.latest()
    was_layers, will_layers = [
        await _layers(services, principal, snapshot, [one]) for one in (old, new)
    ]

    def work() -> DifferenceResponse:
        layers = [*was_layers, *will_layers]
        survey, places = Survey(layers), range(len(layers))
        was = survey.judge(*places[: len(was_layers)])
        will = survey.judge(*places[len(was_layers) :])
        return DifferenceResponse(
            gained=[ConnectionsView(**asdict(one)) for one in gained(was, will)],
            lost=[ConnectionsView(**asdict(one)) for one in gained(will, was)],
        )

    return await asyncio.to_thread(work)


async def _layers(
    services: Services, principal: Principal, snapshot: Snapshot, versions: Iterable[str]
) -> list[RuleLayer]:
    """What is enforced, with these versions in place of their workspaces' own."""
    wanted = [parse_version(text) for text in versions]
    async with services.database.read() as connection:
        judged_by = await load_judged_by(connection, principal.tenant, wanted)
    return await asyncio.to_thread(judged_by.layers, snapshot, services.inventory.now())
