"""What is enforced: to see it, to plan a change of it, and to make one."""

from collections.abc import Iterable
from typing import Annotated, Self

from fastapi import APIRouter
from pydantic import BaseModel, Field, model_validator

from ringfence.control.agents import NodeKey
from ringfence.control.api.agents import AgentResponse, agent_responses
from ringfence.control.api.numbers import RowNumber, VersionNumber
from ringfence.control.audit import Author
from ringfence.control.auth import AuthorDep, PrincipalDep
from ringfence.control.plan import Plan
from ringfence.control.planning import Wanted
from ringfence.control.rule_changes import planned_changes
from ringfence.control.services import Services, ServicesDep
from ringfence.control.staged import choose_nodes
from ringfence.control.times import format_time
from ringfence.control.trial import Asked
from ringfence.model.ids import NodeName, Version, WorkspaceName
from ringfence.model.override import Override
from ringfence.model.workload import ItemKind
from ringfence.store.relational.enforcement import NEVER, Enforced, enforced_at
from ringfence.store.relational.kubernetes import enforced_clusters
from ringfence.store.relational.trials import Trial, load_trial

router = APIRouter(tags=["enforcement"])

_SHORTEST_TRIAL, _LONGEST_TRIAL = 5, 24 * 3600  # seconds


class EnforcedWorkspace(BaseModel):
    """A workspace and a version of it."""

    name: str
    version: int


class StageResponse(BaseModel):
    """Where a staged trial is in force, and what was seen there by now."""

    nodes: list[str] = Field(description="As KUBERNETES-CLUSTER/NAME.")
    threshold: float = Field(description="The share of `unforeseen` from which on it is reverted.")
    conversations: int
    unforeseen: int = Field(description="How many were dropped that should not have been.")
    examples: list[str]


class TrialResponse(BaseModel):
    """A change that is taken back unless it goes well."""

    revision: int
    kubernetes_cluster: str | None = Field(
        description="If this is not null, whether its own policies are enforced is what is tried."
    )
    workspaces_before: list[EnforcedWorkspace] = Field(description="To go back to.")
    until: str
    seconds: float | None = Field(description="All of its time; null with a `kubernetes_cluster`.")
    seconds_left: float
    stage: StageResponse | None = Field(description="Null where somebody has to confirm it.")


class EnforcementResponse(BaseModel):
    """What is enforced, and how far each agent is; revision 0 is before the first time."""

    revision: int
    workspaces: list[EnforcedWorkspace]
    trial: TrialResponse | None = Field(description="Null where nothing is on trial.")
    kubernetes_clusters: list[str] = Field(description="Whose own policies are enforced.")
    agents: list[AgentResponse]
    unreached: list[str] = Field(
        description="Nodes, as KUBERNETES-CLUSTER/NAME, whose agent is not connected."
    )
    warnings: list[str] = Field(
        description="Where the rules of now admit more than their policies say."
    )
    quarantined: list[str] = Field(description="Workloads that are cut off, whatever is enforced.")


class WantedWorkspace(BaseModel):
    """A workspace to enforce; null means its latest version."""

    name: str
    version: VersionNumber | None = None


ExpectedRevision = Annotated[
    RowNumber | None,
    Field(description="What is enforced now; refused where that is another by then."),
]


ConfirmSeconds = Annotated[
    int | None,
    Field(
        ge=_SHORTEST_TRIAL, le=_LONGEST_TRIAL, description="Take it back unless confirmed by then."
    ),
]


class StageRequest(BaseModel):
    """Enforce at some nodes first, and everywhere if it goes well there."""

    nodes: list[str] = Field(
        default=[], description="NAME, or KUBERNETES-CLUSTER/NAME; none: one that is picked."
    )
    seconds: int = Field(default=300, ge=_SHORTEST_TRIAL, le=_LONGEST_TRIAL)
    threshold: float = Field(default=0.01, ge=0, le=1, allow_inf_nan=False)


class EnforcementRequest(BaseModel):
    """The workspaces to enforce, and no others."""

    workspaces: list[WantedWorkspace] = Field(min_length=1)
    dry_run: bool = False
    rules: bool = Field(default=False, description="With `dry_run`: also the exact rules.")
    override: list[Override] = Field(default=[], description="Words that refusals name.")
    expected_revision: ExpectedRevision = None
    confirm_seconds: ConfirmSeconds = None
    stage: StageRequest | None = None

    @model_validator(mode="after")
    def _one_trial(self) -> Self:
        if self.stage is not None and self.confirm_seconds is not None:
            raise ValueError("a staged change is judged by what is seen: nobody has to confirm it")
        return self


class ConfirmRequest(BaseModel):
    """What to keep."""

    revision: RowNumber | None = Field(
        default=None, description="What was seen on trial; refused where another is. Null: any."
    )


class RevisionResponse(BaseModel):
    """What is enforced by now."""

    revision: int


class ConfirmedResponse(RevisionResponse):
    """What was on trial, and stays."""

    what: str


class RuleChangeResponse(BaseModel):
    """How the rules of one workload would differ."""

    node: str = Field(description="As KUBERNETES-CLUSTER/NAME.")
    workload: str
    difference: list[str] = Field(description="A unified diff of nft commands, line by line.")


class PlanResponse(BaseModel):
    """What changes and for whom; `refused` is why it ought not to be done, empty for nothing."""

    revision: int
    workspaces: list[EnforcedWorkspace]
    changes: list[str]
    workloads: list[str]
    warnings: list[str]
    refused: str
    rules: list[RuleChangeResponse] | None = Field(description="Null where not asked for.")


@router.get("/enforcement")
async def show_enforcement(services: ServicesDep, principal: PrincipalDep) -> EnforcementResponse:
    """Show what is enforced."""
    current = await services.enforcement.current()
    tenant = principal.tenant
    async with services.database.read() as connection:
        clusters = await enforced_clusters(connection, tenant)
        trial = await load_trial(connection, tenant)
        before = await enforced_at(connection, tenant, trial.previous) if trial else NEVER
    return EnforcementResponse(
        revision=current.revision,
        workspaces=_workspaces(current.workspaces),
        trial=_trial(trial, before, current.since_ns, services) if trial else None,
        kubernetes_clusters=list(clusters),
        agents=agent_responses(services),
        unreached=["/".join(node) for node in sorted(_unreached(services))],
        warnings=list(services.enforcement.warnings),
        quarantined=[one.name for one in await services.quarantines.all()],
    )


@router.post("/enforcement")
async def enforce(
    request: EnforcementRequest, services: ServicesDep, author: AuthorDep
) -> PlanResponse:
    """Enforce workspaces and no others; a dry run tells what that would change."""
    wanted: Wanted = [
        (WorkspaceName(one.name), Version(one.version) if one.version else None)
        for one in request.workspaces
    ]
    override, expected = request.override, request.expected_revision
    if request.dry_run:
        plan = await services.enforcement.plan(wanted, override, expected)
        return _response(plan, await _rules(services, author, plan) if request.rules else None)
    asked = asked_to_confirm(request.confirm_seconds)
    if stage := request.stage:
        nodes = choose_nodes(services.agents, stage.nodes)
        asked = Asked(stage.seconds * 10**9, nodes, stage.threshold)
    return _response(await services.enforcement.enforce(wanted, override, author, expected, asked))


@router.post("/enforcement/confirm")
async def confirm(
    request: ConfirmRequest, services: ServicesDep, author: AuthorDep
) -> ConfirmedResponse:
    """Keep what is on trial."""
    kept = await services.trials.confirm(author, request.revision)
    return ConfirmedResponse(revision=kept.revision, what=kept.what)


@router.post("/enforcement/revert")
async def revert(services: ServicesDep, author: AuthorDep) -> RevisionResponse:
    """Go back from what is on trial to what was enforced before."""
    return RevisionResponse(revision=await services.trials.revert(author))


@router.delete("/enforcement")
async def stop_enforcing(
    services: ServicesDep,
    author: AuthorDep,
    *,
    dry_run: bool = False,
    rules: bool = False,
    expected_revision: ExpectedRevision = None,
    confirm_seconds: ConfirmSeconds = None,
) -> PlanResponse:
    """Take every rule away from every node."""
    asked = asked_to_confirm(confirm_seconds)
    if dry_run:
        plan = await services.enforcement.plan([], [], expected_revision, asked)
        return _response(plan, await _rules(services, author, plan) if rules else None)
    return _response(await services.enforcement.enforce([], [], author, expected_revision, asked))


def asked_to_confirm(confirm_seconds: int | None) -> Asked | None:
    """The trial that a request asks for; None for none."""
    return None if confirm_seconds is None else Asked(confirm_seconds * 10**9)


async def _rules(services: Services, author: Author, plan: Plan) -> list[RuleChangeResponse]:
    tenant = author.principal.tenant
    return [
        RuleChangeResponse(
            node="/".join(change.node),
            workload=change.workload,
            difference=list(change.difference),
        )
        for change in await planned_changes(services, tenant, plan.workspaces)
    ]


def _response(plan: Plan, rules: list[RuleChangeResponse] | None = None) -> PlanResponse:
    return PlanResponse(
        revision=plan.revision,
        workspaces=_workspaces(plan.workspaces),
        changes=list(plan.changes),
        workloads=list(plan.workloads),
        warnings=list(plan.warnings),
        refused=plan.refused,
        rules=rules,
    )


def _trial(trial: Trial, before: Enforced, began_ns: int, services: Services) -> TrialResponse:
    seen, stage = services.trials.seen, None
    if trial.nodes is not None:
        stage = StageResponse(
            nodes=["/".join(node) for node in trial.nodes],
            threshold=trial.threshold or 0.0,
            conversations=seen.conversations,
            unforeseen=seen.unforeseen,
            examples=list(seen.examples),
        )
    return TrialResponse(
        revision=trial.revision,
        kubernetes_cluster=trial.cluster,
        workspaces_before=_workspaces(before.workspaces),
        until=format_time(trial.until_ns),
        seconds=(trial.until_ns - began_ns) / 10**9 if trial.cluster is None else None,
        seconds_left=max(0, trial.until_ns - services.clock()) / 10**9,
        stage=stage,
    )


def _workspaces(pairs: Iterable[tuple[WorkspaceName, Version]]) -> list[EnforcedWorkspace]:
    return [EnforcedWorkspace(name=name, version=version) for name, version in pairs]


def _unreached(services: Services) -> set[NodeKey]:
    agents = services.agents.all()
    nodes = {
        (item.cluster, NodeName(item.name))
        for item in services.inventory.timeline.latest().items
        if item.kind is ItemKind.NODE
    }
    known = nodes | {agent.key for agent in agents}
    return known - {agent.key for agent in agents if agent.connected}
