"""Versions held against flows of the past."""

from collections import Counter

from fastapi import APIRouter
from pydantic import BaseModel, Field

from ringfence.control.api.analyses import Counts, HitsView, hits_view
from ringfence.control.api.flow_search import read_window
from ringfence.control.api.numbers import RowNumber, VersionNumber
from ringfence.control.api.why import DecisionResponse, decision_response
from ringfence.control.auth import AuthorDep, PrincipalDep
from ringfence.control.beside import NOTES, load_beside
from ringfence.control.continuous import HOUR_NS
from ringfence.control.errors import NotFoundError
from ringfence.control.experiments import hours_of
from ringfence.control.hits import count_tallies
from ringfence.control.policies import load_version
from ringfence.control.services import Services, ServicesDep
from ringfence.control.times import format_time
from ringfence.model.flow import Category
from ringfence.model.ids import Version, WorkspaceName
from ringfence.model.protocol import format_port, format_protocol
from ringfence.model.tally import UNTOWARD
from ringfence.model.verdict import EndRole
from ringfence.policy.kubernetes.imported import ImportedWorkspace
from ringfence.store.relational.experiments import (
    Experiment,
    add_experiment,
    all_experiments,
    find_experiment,
    remove_experiment,
)

router = APIRouter(prefix="/experiments", tags=["analysis"])


class ExperimentRequest(BaseModel):
    """A version, the latest for null, and the time of the flows."""

    workspace: str
    version: VersionNumber | None = None
    since: str = "7d"
    until: str | None = None


class ExperimentView(BaseModel):
    """An experiment; `state` is `waiting`, `running`, `done` or `failed`."""

    id: int
    workspace: str
    version: int
    since: str = Field(description="When the first of the judged hours begins.")
    until: str = Field(description="When the last of them ends, or when the experiment began.")
    actor: str
    state: str
    hours_done: int
    hours: int
    problem: str
    counts: Counts
    notes: list[str] = Field(default=[], description=f"{NOTES} Told as it begins.")


class ExperimentsResponse(BaseModel):
    """Experiments, the latest first."""

    items: list[ExperimentView]


class EdgeView(BaseModel):
    """Conversations of one kind whose verdict is not what became of them."""

    category: Category
    consumer: str = Field(description="Empty where there are too many kinds to tell all ends.")
    provider: str
    protocol: str
    port: str
    conversations: int
    last: str
    deciding: dict[EndRole, DecisionResponse]


class ExperimentResponse(ExperimentView):
    """An experiment with what came of it: untoward kinds, and what each policy decided."""

    untoward: list[EdgeView]
    hits: list[HitsView]


@router.post("")
async def start_experiment(
    request: ExperimentRequest, services: ServicesDep, author: AuthorDep
) -> ExperimentView:
    """Begin one in the background."""
    window = read_window(services, request.since, request.until)
    tenant, name = author.principal.tenant, WorkspaceName(request.workspace)
    number = None if request.version is None else Version(request.version)
    async with services.database.write() as connection:
        _, version = await load_version(connection, tenant, name, number)
        beside = await load_beside(connection, tenant, name, version)
        actor, now_ns = author.principal.actor, services.clock()
        span = window["since"], window["until"]
        wanted = Experiment(0, name, version, *span, actor, now_ns)
        made = await add_experiment(connection, tenant, wanted)
        what = f"began experiment {made.id} with {name}@p{version}"
        await author.note(connection, now_ns, what, about=f"workspace/{name}")
    services.experiments.renew()
    return _view(services, made).model_copy(update={"notes": list(beside.notes)})


@router.get("")
async def list_experiments(services: ServicesDep, principal: PrincipalDep) -> ExperimentsResponse:
    """List all."""
    async with services.database.read() as connection:
        found = await all_experiments(connection, principal.tenant)
    return ExperimentsResponse(items=[_view(services, one) for one in found])


@router.get("/{number}")
async def show_experiment(
    number: RowNumber, services: ServicesDep, principal: PrincipalDep
) -> ExperimentResponse:
    """Tell what came of one."""
    tenant = principal.tenant
    async with services.database.read() as connection:
        found = await find_experiment(connection, tenant, number)
        if found is None:
            raise _missing(number)
        named = found.workspace, found.version
        made, _ = await load_version(connection, tenant, *named, even_deleted=True)
    policies = () if isinstance(made, ImportedWorkspace) else made.policies
    untoward = [one for one in found.result if one.cause.category in UNTOWARD]
    return ExperimentResponse(
        **dict(_view(services, found)),
        untoward=[
            EdgeView(
                category=one.cause.category,
                consumer=one.cause.consumer,
                provider=one.cause.provider,
                protocol=format_protocol(one.cause.protocol) if one.cause.consumer else "",
                port=format_port(one.cause.protocol, one.cause.port) if one.cause.consumer else "",
                conversations=one.conversations,
                last=format_time(one.last_ns),
                deciding={role: decision_response(rule) for role, rule in one.cause.rules},
            )
            for one in untoward
        ],
        hits=list(map(hits_view, count_tallies(named, policies, found.result))),
    )


@router.delete("/{number}")
async def delete_experiment(number: RowNumber, services: ServicesDep, author: AuthorDep) -> None:
    """Stop one if it is under way, and forget it."""
    async with services.database.write() as connection:
        if not await remove_experiment(connection, author.principal.tenant, number):
            raise _missing(number)
        what = f"removed experiment {number}"
        await author.note(connection, services.clock(), what, about=f"experiment/{number}")


def _missing(number: int) -> NotFoundError:
    return NotFoundError(f"there is no experiment {number}; see `ringfence experiments list`")


def _view(services: Services, one: Experiment) -> ExperimentView:
    hours, end_ns = hours_of(one), -(-one.until_ns // HOUR_NS) * HOUR_NS
    done, of = services.experiments.progress.get(one.id, (0, 0))
    state = "running" if of else "waiting"
    if one.ended_ns is not None:
        state, done = ("failed", 0) if one.problem else ("done", len(hours))
    counts: Counter[Category] = Counter()
    for each in one.result:
        counts[each.cause.category] += each.conversations
    return ExperimentView(
        id=one.id,
        workspace=one.workspace,
        version=one.version,
        since=format_time(hours.start),
        until=format_time(min(end_ns, max(one.began_ns, one.until_ns))),
        actor=one.actor,
        state=state,
        hours_done=done,
        hours=len(hours),
        problem=one.problem,
        counts=dict(counts),
    )
