"""What is enforced: to see it, to plan a change of it, and to make one."""

from collections.abc import Iterable
from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, Field

from ringfence.control.agents import NodeKey
from ringfence.control.api.agents import AgentResponse, agent_responses
from ringfence.control.api.numbers import RowNumber, VersionNumber
from ringfence.control.audit import AuthorDep
from ringfence.control.auth import PrincipalDep
from ringfence.control.enforcement import Wanted
from ringfence.control.plan import Plan
from ringfence.control.services import Services, ServicesDep
from ringfence.model.ids import NodeName, Version, WorkspaceName
from ringfence.model.override import Override
from ringfence.model.workload import ItemKind
from ringfence.store.relational.kubernetes import enforced_clusters

router = APIRouter(tags=["enforcement"])


class EnforcedWorkspace(BaseModel):
    """A workspace and a version of it."""

    name: str
    version: int


class EnforcementResponse(BaseModel):
    """What is enforced, and how far each agent is; revision 0 is before the first time."""

    revision: int
    workspaces: list[EnforcedWorkspace]
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


class EnforcementRequest(BaseModel):
    """The workspaces to enforce, and no others."""

    workspaces: list[WantedWorkspace] = Field(min_length=1)
    dry_run: bool = False
    override: list[Override] = Field(default=[], description="Words that refusals name.")
    expected_revision: ExpectedRevision = None


class PlanResponse(BaseModel):
    """What changes and for whom; `refused` is why it ought not to be done, empty for nothing."""

    revision: int
    workspaces: list[EnforcedWorkspace]
    changes: list[str]
    workloads: list[str]
    warnings: list[str]
    refused: str


@router.get("/enforcement")
async def show_enforcement(services: ServicesDep, principal: PrincipalDep) -> EnforcementResponse:
    """Show what is enforced."""
    current = await services.enforcement.current()
    async with services.database.read() as connection:
        clusters = await enforced_clusters(connection, principal.tenant)
    return EnforcementResponse(
        revision=current.revision,
        workspaces=_workspaces(current.workspaces),
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
        return _response(await services.enforcement.plan(wanted, override, expected))
    return _response(await services.enforcement.enforce(wanted, override, author, expected))


@router.delete("/enforcement")
async def stop_enforcing(
    services: ServicesDep,
    author: AuthorDep,
    *,
    dry_run: bool = False,
    expected_revision: ExpectedRevision = None,
) -> PlanResponse:
    """Take every rule away from every node."""
    if dry_run:
        return _response(await services.enforcement.plan([], [], expected_revision))
    return _response(await services.enforcement.enforce([], [], author, expected_revision))


def _response(plan: Plan) -> PlanResponse:
    return PlanResponse(
        revision=plan.revision,
        workspaces=_workspaces(plan.workspaces),
        changes=list(plan.changes),
        workloads=list(plan.workloads),
        warnings=list(plan.warnings),
        refused=plan.refused,
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
