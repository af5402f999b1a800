"""The path of a scope: observe, discover, analyse, staged, enforced."""

from dataclasses import replace

from fastapi import APIRouter
from pydantic import BaseModel, Field

from ringfence.control.api.analyses import AnalysisRequest, start_analysis
from ringfence.control.api.discover import DiscoverRequest, propose_policies
from ringfence.control.api.documents import ApplyRequest, File, apply
from ringfence.control.api.enforcement import (
    ConfirmRequest,
    EnforcementRequest,
    ExpectedRevision,
    PlanResponse,
    StageRequest,
    WantedWorkspace,
    confirm,
    enforce,
)
from ringfence.control.api.impact import ImpactView, impact_of
from ringfence.control.audit import Author
from ringfence.control.auth import AuthorDep, PrincipalDep
from ringfence.control.beside import NOTES, load_beside
from ringfence.control.errors import ConflictError, NotFoundError
from ringfence.control.policies import load_tree
from ringfence.control.promotions import describe
from ringfence.control.services import Services, ServicesDep
from ringfence.control.times import format_time
from ringfence.model.ids import ScopeName, TenantId, Version, WorkspaceName
from ringfence.model.promotion import Criteria, Facts, Stage, criteria_for
from ringfence.store.relational.enforcement import enforced_now
from ringfence.store.relational.promotions import (
    Promotion,
    all_promotions,
    load_promotion,
    put_promotion,
)

router = APIRouter(prefix="/promotions", tags=["promotion"])

_USUAL = Criteria()
_LONGEST = 90 * 24 * 3600


class CriteriaModel(BaseModel):
    """What has to hold before a scope is led on; durations in seconds, shares from 0 to 1."""

    observe_seconds: int = Field(default=_USUAL.observe_seconds, ge=0, le=_LONGEST)
    coverage: float = Field(default=_USUAL.coverage, ge=0, le=1, allow_inf_nan=False)
    quiet_seconds: int = Field(default=_USUAL.quiet_seconds, ge=0, le=_LONGEST)
    stage_seconds: int = Field(default=_USUAL.stage_seconds, ge=5, le=24 * 3600)
    threshold: float = Field(default=_USUAL.threshold, ge=0, le=1, allow_inf_nan=False)
    demote: bool = True


class CriterionView(BaseModel):
    """One thing that has to hold before the next stage."""

    wanted: str
    now: str
    met: bool


class PromotionView(BaseModel):
    """How far a scope is; `next` is null at the end of its path."""

    scope: str
    stage: Stage
    workspace: str | None
    version: int | None
    next: Stage | None
    entry: list[CriterionView] = Field(description="What has to hold before the next stage.")
    criteria: CriteriaModel
    demoted: str | None = Field(
        description="When what was promoted was taken back; null once something else is enforced."
    )
    why: str
    guarded: bool = Field(description="Whether an alarm takes back the version that is enforced.")
    trial_until: str | None = Field(description="When its trial at some nodes ends.")
    plan: PlanResponse | None = Field(
        default=None, description="Of a dry run: what it changes at nodes, null for nothing."
    )
    refused: str = Field(
        default="", description="Of a dry run: why it would be refused now, empty if it would not."
    )
    alarm: str = Field(
        default="",
        description="Of a dry run: the open alarm that takes what is enforced back at once, empty "
        "for none.",
    )
    notes: list[str] = Field(description=NOTES)
    impact: ImpactView | None = Field(
        default=None, description="Where nodes are led on: whom it governs, what it would block."
    )


class PromotionsResponse(BaseModel):
    """Scopes that are led, by name."""

    items: list[PromotionView]


class PromoteRequest(BaseModel):
    """How far to lead a scope now; null: one stage."""

    to: Stage | None = None
    nodes: list[str] = Field(default=[], description="For the trial; none: one is picked.")
    dry_run: bool = Field(default=False, description="Tell what it changes at nodes only.")
    expected_revision: ExpectedRevision = None


@router.get("")
async def list_promotions(services: ServicesDep, principal: PrincipalDep) -> PromotionsResponse:
    """List the scopes that were led on, or have criteria of their own."""
    async with services.database.read() as connection:
        every = await all_promotions(connection, principal.tenant)
    return PromotionsResponse(items=[await _view(services, principal.tenant, one) for one in every])


@router.get("/{scope}")
async def show_promotion(
    scope: str, services: ServicesDep, principal: PrincipalDep
) -> PromotionView:
    """Tell how far a scope is, and what has to hold before it is led on."""
    return await _view(services, principal.tenant, await _load(services, principal.tenant, scope))


@router.post("/{scope}/criteria")
async def set_criteria(
    scope: str, request: CriteriaModel, services: ServicesDep, author: AuthorDep
) -> PromotionView:
    """Set what has to hold before a scope is led on."""
    held = await _load(services, author.principal.tenant, scope)
    changed = replace(held, criteria=Criteria(**request.model_dump()))
    await _put(services, author, changed, f"set the criteria of scope {scope}")
    return await _view(services, author.principal.tenant, changed)


@router.post("/{scope}/promote")
async def promote(
    scope: str, request: PromoteRequest, services: ServicesDep, author: AuthorDep
) -> PromotionView:
    """Lead a scope on, stage by stage, for as long as the criteria hold.

    Refused where those of the next stage do not; what was done before stays. A trial that begins
    leads to enforced by itself. What somebody enforced by hand is taken back on alarm from then on.
    """
    held = await _load(services, author.principal.tenant, scope)
    facts, named = await services.promotions.facts(held.scope, held.criteria)
    wanted = request.to or facts.stage.next
    stages = list(Stage)
    expected, current = request.expected_revision, await services.enforcement.current()
    if expected not in (None, current.revision):
        raise ConflictError(
            "something else was enforced meanwhile: run it again to see the new plan"
        )
    by_hand = facts.stage is Stage.ENFORCED and not _led(held, named)
    if wanted in (None, Stage.ENFORCED) and named is not None and by_hand:
        return await _arm(services, author, held, named, dry_run=request.dry_run)
    if wanted is None or stages.index(wanted) <= stages.index(facts.stage):
        raise ConflictError(
            f"scope {scope} is at stage {facts.stage} already; see "
            f"`ringfence promotion show {scope}`"
        )
    impact = None
    if named is not None and stages.index(wanted) >= stages.index(Stage.STAGED):
        tenant, quiet = author.principal.tenant, held.criteria.quiet_seconds
        analysed = facts.stage is not Stage.DISCOVER
        impact = await impact_of(services, tenant, named, quiet, analysed=analysed)
    if request.dry_run:
        shown = await _view(services, author.principal.tenant, held)
        shown.impact = impact
        shown.refused = _refused(held, facts, wanted)
        if stages.index(wanted) >= stages.index(Stage.STAGED) and facts.stage is not Stage.STAGED:
            shown.plan = await _plan(services, author, held, named, request.nodes)
        return shown
    held = await _lead(services, author, held, wanted, request.nodes)
    led = await _view(services, author.principal.tenant, held)
    led.impact = impact
    return led


async def _arm(
    services: Services,
    author: Author,
    held: Promotion,
    named: tuple[WorkspaceName, Version],
    *,
    dry_run: bool,
) -> PromotionView:
    """Have alarms take back what somebody enforced by hand, one that is open included."""
    if not dry_run:
        held = await _note(services, author, held, named)
        return await _view(services, author.principal.tenant, held)
    alarm = await services.promotions.alarm(_promoted(held, named))
    shown = await _view(services, author.principal.tenant, held)
    shown.alarm = describe(alarm) if alarm else ""
    return shown


async def _lead(
    services: Services, author: Author, held: Promotion, wanted: Stage, nodes: list[str]
) -> Promotion:
    """Lead a scope on until it is at a stage, or on trial, which leads on by itself.

    Others may lead it on meanwhile, or further.
    """
    stages = list(Stage)
    facts, named = await services.promotions.facts(held.scope, held.criteria)
    while stages.index(facts.stage) < stages.index(wanted):
        following = facts.stage.next
        assert following is not None
        _require(following, held, facts)
        if following is Stage.ENFORCED:
            kept = ConfirmRequest(revision=facts.trial_revision)
            await confirm(kept, services, author)
        else:
            held = await _enter(services, author, held, following, named, nodes)
        before = facts
        facts, named = await services.promotions.facts(held.scope, held.criteria)
        if facts.stage == before.stage:
            raise ConflictError(
                f"scope {held.scope} is still at stage {facts.stage}: see what is there"
            )
        if facts.stage is Stage.STAGED:
            break  # its trial has seen nothing yet, and leads on by itself
    return held


async def _plan(
    services: Services,
    author: Author,
    held: Promotion,
    named: tuple[WorkspaceName, Version] | None,
    nodes: list[str],
) -> PlanResponse:
    """What a trial of the version changes at nodes."""
    if named is None:
        raise ConflictError(
            f"scope {held.scope} has no policies: `ringfence promote {held.scope} --to discover` "
            "writes them down, to be read first"
        )
    asked = await _staged(services, author, held.criteria, named, nodes)
    asked.dry_run = True
    return await enforce(asked, services, author)


def _refused(held: Promotion, facts: Facts, until: Stage) -> str:
    """What would keep a scope on the way to a stage now, empty if nothing.

    What the trial has to show is known once it is there.
    """
    at = facts.stage
    while at != until and (following := at.next) is not None:
        lacking = _lacking(following, held, replace(facts, stage=at))
        if lacking and (following is not Stage.ENFORCED or facts.stage is Stage.STAGED):
            return lacking
        at = following
    return ""


def _require(stage: Stage, held: Promotion, facts: Facts) -> None:
    """Refuse to lead a scope into a stage whose criteria do not hold."""
    if lacking := _lacking(stage, held, facts):
        raise ConflictError(lacking)


def _lacking(stage: Stage, held: Promotion, facts: Facts) -> str:
    """Which criteria of a stage do not hold, empty if all do."""
    missing = [
        f"{one.wanted} (now {one.now})"
        for one in criteria_for(stage, held.criteria, facts)
        if not one.met
    ]
    if not missing:
        return ""
    return (
        f"scope {held.scope} stays at stage {facts.stage}: {stage} wants {'; '.join(missing)}; see "
        f"`ringfence promotion show {held.scope}`"
    )


async def _enter(
    services: Services,
    author: Author,
    held: Promotion,
    stage: Stage,
    named: tuple[WorkspaceName, Version] | None,
    nodes: list[str],
) -> Promotion:
    """Do what leads a scope into a stage before the last."""
    scope, criteria = held.scope, held.criteria
    if stage is Stage.DISCOVER:
        since = f"{max(criteria.observe_seconds, 3600)}s"
        asked = DiscoverRequest(scope=scope, since=since)
        found = await propose_policies(asked, services, author.principal)
        if not found.summary.edges:
            raise ConflictError(
                f"nothing was seen of scope {scope} that needs a policy; see "
                f"`ringfence coverage {scope}`"
            )
        file = File(name=f"discovered in {scope}", documents=found.documents)
        await apply(ApplyRequest(files=[file]), services, author)
        return held
    assert named is not None
    name, version = named
    if stage is Stage.ANALYSE:
        await start_analysis(AnalysisRequest(workspace=name, version=version), services, author)
        return held
    wanted = await _staged(services, author, criteria, named, nodes)
    await enforce(wanted, services, author)
    return await _note(services, author, held, named)


def _led(held: Promotion, named: tuple[WorkspaceName, Version] | None) -> bool:
    """Whether a version was promoted, and not taken back."""
    return (held.workspace, held.version) == named and held.demoted_ns is None


async def _note(
    services: Services, author: Author, held: Promotion, named: tuple[WorkspaceName, Version]
) -> Promotion:
    """Write down that a version is promoted: an alarm takes it back."""
    name, version = named
    promoted = _promoted(held, named)
    await _put(services, author, promoted, f"promoted {name}@p{version}")
    return promoted


def _promoted(held: Promotion, named: tuple[WorkspaceName, Version]) -> Promotion:
    name, version = named
    return replace(held, workspace=name, version=version, demoted_ns=None, why="")


async def _staged(
    services: Services,
    author: Author,
    criteria: Criteria,
    named: tuple[WorkspaceName, Version],
    nodes: list[str],
) -> EnforcementRequest:
    """What is asked of enforcement to put a version on trial besides what is enforced."""
    name, version = named
    async with services.database.read() as connection:
        enforced = await enforced_now(connection, author.principal.tenant)
    others = [
        WantedWorkspace(name=other, version=its) for other, its in enforced.workspaces
        if other != name
    ]  # fmt: skip
    trial = StageRequest(nodes=nodes, seconds=criteria.stage_seconds, threshold=criteria.threshold)
    return EnforcementRequest(
        workspaces=[*others, WantedWorkspace(name=name, version=version)],
        expected_revision=enforced.revision,
        stage=trial,
    )


async def _load(services: Services, tenant: TenantId, scope: str) -> Promotion:
    async with services.database.read() as connection:
        if ScopeName(scope) not in await load_tree(connection, tenant):
            raise NotFoundError(f"there is no scope {scope!r}; see `ringfence scopes list`")
        return await load_promotion(connection, tenant, ScopeName(scope))


async def _put(services: Services, author: Author, one: Promotion, what: str) -> None:
    async with services.database.write() as connection:
        await put_promotion(connection, author.principal.tenant, one)
        await author.note(connection, services.clock(), what, about=f"scope/{one.scope}")


async def _view(services: Services, tenant: TenantId, held: Promotion) -> PromotionView:
    facts, named = await services.promotions.facts(held.scope, held.criteria)
    following = facts.stage.next
    entry = criteria_for(following, held.criteria, facts) if following else []
    trial = await services.trials.current() if facts.stage is Stage.STAGED else None
    demoted_ns = await services.promotions.demoted_ns(held)
    enforced = facts.stage in {Stage.STAGED, Stage.ENFORCED}
    notes: tuple[str, ...] = ()
    if named and facts.stage is not Stage.ENFORCED:
        async with services.database.read() as connection:
            notes = (await load_beside(connection, tenant, *named)).notes
    return PromotionView(
        notes=list(notes),
        scope=held.scope,
        stage=facts.stage,
        workspace=named[0] if named else None,
        version=named[1] if named else None,
        next=following,
        entry=[CriterionView(wanted=one.wanted, now=one.now, met=one.met) for one in entry],
        criteria=CriteriaModel(
            **{name: getattr(held.criteria, name) for name in CriteriaModel.model_fields}
        ),
        demoted=format_time(demoted_ns) if demoted_ns else None,
        why=held.why if demoted_ns else "",
        guarded=enforced and held.criteria.demote and _led(held, named),
        trial_until=format_time(trial.until_ns) if trial else None,
    )
