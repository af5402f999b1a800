"""Versions under continuous analysis, and what was found over time."""

from collections import Counter
from collections.abc import Iterable

from fastapi import APIRouter
from pydantic import BaseModel, Field

from ringfence.control.api.flow_search import read_window
from ringfence.control.api.numbers import VersionNumber
from ringfence.control.auth import AuthorDep, PrincipalDep
from ringfence.control.beside import NOTES, load_beside
from ringfence.control.errors import NotFoundError
from ringfence.control.hits import Hits, count_hits, watched
from ringfence.control.policies import load_version, load_workspace
from ringfence.control.services import ServicesDep
from ringfence.control.times import format_time
from ringfence.model.duration import parse_duration
from ringfence.model.errors import InputError
from ringfence.model.flow import Category
from ringfence.model.ids import Version, WorkspaceName
from ringfence.store.relational.enforcement import enforced_now
from ringfence.store.relational.verdicts import (
    Analysis,
    Told,
    all_analyses,
    begin_analysis,
    end_analysis,
    told_since,
)

router = APIRouter(prefix="/analyses", tags=["analysis"])

Counts = dict[Category, int]
_MOST_STEPS = 2000


class AnalysisView(BaseModel):
    """A version under analysis; `enforced` ones are so without being asked for."""

    workspace: str
    version: int
    enforced: bool
    actor: str = Field(description="Who began it, or enforced the version.")
    since: str
    counts: Counts = Field(description="Conversations by category, in the time asked for.")
    notes: list[str] = Field(default=[], description=f"{NOTES} Told as it begins.")


class AnalysesResponse(BaseModel):
    """Versions under analysis by name, and until when all that arrived is judged."""

    items: list[AnalysisView]
    through: str | None


class AnalysisRequest(BaseModel):
    """Which version; the latest one for null."""

    workspace: str
    version: VersionNumber | None = None


class StepView(BaseModel):
    """What was found of a version in a time."""

    start: str
    end: str
    counts: Counts


class StepsResponse(BaseModel):
    """What was found of a version, step by step; steps with nothing are left out."""

    workspace: str
    version: int
    items: list[StepView]


class HitsView(BaseModel):
    """How many conversations a policy decided; null stands for the catch-alls."""

    policy: str | None
    conversations: Counts
    last: str | None
    note: str = Field(description="That there was no traffic, and for how long.")


class HitsResponse(BaseModel):
    """The policies of a version in their order."""

    workspace: str
    version: int
    items: list[HitsView]


@router.get("")
async def list_analyses(
    services: ServicesDep, principal: PrincipalDep, since: str = "1d", until: str | None = None
) -> AnalysesResponse:
    """List what is under analysis: what was asked for, and what is enforced."""
    window, tenant = read_window(services, since, until), principal.tenant
    async with services.database.read() as connection:
        asked = await all_analyses(connection, tenant)
        enforced = await enforced_now(connection, tenant)
        told = await told_since(connection, tenant, window["since"], window["until"])
    by_version: dict[tuple[str, int], list[Told]] = {}
    for one in told:
        by_version.setdefault(one.named, []).append(one)
    listed = {(one.workspace, one.version): one for one in asked}
    for name, version in enforced.workspaces:
        listed.setdefault(
            (name, version), Analysis(name, version, enforced.actor, enforced.since_ns)
        )
    through_ns = services.continuous.through_ns
    return AnalysesResponse(
        items=[
            AnalysisView(
                workspace=name,
                version=version,
                enforced=(name, version) in enforced.workspaces,
                actor=one.actor,
                since=format_time(one.since_ns),
                counts=_counts(by_version.get((name, version), ())),
            )
            for (name, version), one in sorted(listed.items())
        ],
        through=format_time(through_ns) if through_ns else None,
    )


@router.post("")
async def start_analysis(
    request: AnalysisRequest, services: ServicesDep, author: AuthorDep
) -> AnalysisView:
    """Put a version under analysis; nothing changes where it is already."""
    tenant, now_ns = author.principal.tenant, services.clock()
    async with services.database.write() as connection:
        _, version = await load_version(
            connection, tenant, WorkspaceName(request.workspace), _version(request.version)
        )
        asked = WorkspaceName(request.workspace), version
        held = {(one.workspace, one.version): one for one in await all_analyses(connection, tenant)}
        one = held.get(asked) or Analysis(*asked, author.principal.actor, now_ns)
        if asked not in held:
            await begin_analysis(connection, tenant, one)
            what = f"put {asked[0]}@p{version} under analysis"
            await author.note(connection, now_ns, what, about=f"workspace/{asked[0]}")
        enforced = await enforced_now(connection, tenant)
        beside = await load_beside(connection, tenant, *asked)
    services.continuous.renew()
    return AnalysisView(
        workspace=one.workspace,
        version=one.version,
        enforced=asked in enforced.workspaces,
        actor=one.actor,
        since=format_time(one.since_ns),
        counts={},
        notes=list(beside.notes),
    )


@router.delete("")
async def stop_analysis(
    workspace: str, version: VersionNumber, services: ServicesDep, author: AuthorDep
) -> None:
    """Take a version from under analysis; what was found stays."""
    tenant, named = author.principal.tenant, (WorkspaceName(workspace), Version(version))
    async with services.database.write() as connection:
        now_ns = services.clock()
        if not await end_analysis(connection, tenant, named, now_ns):
            raise NotFoundError(
                f"{workspace}@p{version} is not under analysis that somebody asked for; "
                "see `ringfence analysis list`"
            )
        what = f"took {workspace}@p{version} from under analysis"
        await author.note(connection, now_ns, what, about=f"workspace/{workspace}")


@router.get("/{workspace}/counts")
async def count_over_time(
    workspace: str,
    version: VersionNumber,
    services: ServicesDep,
    principal: PrincipalDep,
    since: str = "1d",
    until: str | None = None,
    step: str = "1h",
) -> StepsResponse:
    """Count conversations by category over time; of times two hours ago, by whole hours."""
    window, tenant = read_window(services, since, until), principal.tenant
    step_ns = parse_duration(step) * 10**9
    if (window["until"] - window["since"]) // step_ns > _MOST_STEPS:
        raise InputError(f"step {step!r}: that makes over {_MOST_STEPS} steps; write a longer one")
    named = WorkspaceName(workspace), Version(version)
    async with services.database.read() as connection:
        await load_version(connection, tenant, *named, even_deleted=True)
        told = await told_since(connection, tenant, window["since"], window["until"], named)
    steps: dict[int, list[Told]] = {}
    for one in told:
        steps.setdefault(one.start_ns // step_ns * step_ns, []).append(one)
    return StepsResponse(
        workspace=workspace,
        version=version,
        items=[
            StepView(
                start=format_time(at_ns), end=format_time(at_ns + step_ns), counts=_counts(some)
            )
            for at_ns, some in sorted(steps.items())
        ],
    )


@router.get("/{workspace}/hits")
async def hits_of_policies(
    workspace: str,
    version: VersionNumber,
    services: ServicesDep,
    principal: PrincipalDep,
    since: str = "30d",
    until: str | None = None,
) -> HitsResponse:
    """Count what each policy decided, and name those without traffic."""
    window, tenant = read_window(services, since, until), principal.tenant
    named = WorkspaceName(workspace), Version(version)
    async with services.database.read() as connection:
        held, _ = await load_workspace(connection, tenant, *named, even_deleted=True)
        told = await told_since(connection, tenant, window["since"], window["until"], named)
        span = window["since"], window["until"]
        spans = await watched(connection, tenant, named, span, services.clock())
    found = count_hits(named, held.policies, told, spans)
    return HitsResponse(
        workspace=workspace,
        version=version,
        items=list(map(hits_view, found)),
    )


def hits_view(one: Hits) -> HitsView:
    """What a policy decided, as the API tells it."""
    return HitsView(
        policy=one.policy,
        conversations=one.conversations,
        last=format_time(one.last_ns) if one.last_ns else None,
        note=one.note,
    )


def _version(number: int | None) -> Version | None:
    return None if number is None else Version(number)


def _counts(told: Iterable[Told]) -> Counts:
    found: Counter[Category] = Counter()
    for one in told:
        found[one.tally.cause.category] += one.tally.conversations
    return dict(found)
