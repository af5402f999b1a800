"""What is enforced: to see it, to plan a change of it, and to make one."""

from fastapi import APIRouter
from pydantic import BaseModel, Field

from ringfence.control.api.agents import AgentResponse, agent_responses
from ringfence.control.audit import AuthorDep
from ringfence.control.enforcement import Wanted
from ringfence.control.plan import Plan
from ringfence.control.services import ServicesDep
from ringfence.model.ids import Version, WorkspaceName

router = APIRouter(tags=["enforcement"])


class EnforcedWorkspace(BaseModel):
    """A workspace and a version of it."""

    name: str
    version: int


class EnforcementResponse(BaseModel):
    """What is enforced, and how far each agent is; revision 0 is before the first time."""

    revision: int
    workspaces: list[EnforcedWorkspace]
    agents: list[AgentResponse]


class WantedWorkspace(BaseModel):
    """A workspace to enforce; null means its latest version."""

    name: str
    version: int | None = Field(default=None, ge=1)


class EnforcementRequest(BaseModel):
    """The workspaces to enforce, and no others."""

    workspaces: list[WantedWorkspace] = Field(min_length=1)
    dry_run: bool = False
    override: list[str] = Field(default=[], description="Words that refusals name.")


class PlanResponse(BaseModel):
    """What changes and for whom; `refused` is why it ought not to be done, empty for nothing."""

    revision: int
    changes: list[str]
    workloads: list[str]
    warnings: list[str]
    refused: str


@router.get("/enforcement")
async def show_enforcement(services: ServicesDep) -> EnforcementResponse:
    """Show what is enforced."""
    current = await services.enforcement.current()
    return EnforcementResponse(
        revision=current.revision,
        workspaces=[
            EnforcedWorkspace(name=name, version=version) for name, version in current.workspaces
        ],
        agents=agent_responses(services),
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
    if request.dry_run:
        return _response(await services.enforcement.plan(wanted, request.override))
    return _response(await services.enforcement.enforce(wanted, request.override, author))


@router.delete("/enforcement")
async def stop_enforcing(
    services: ServicesDep, author: AuthorDep, *, dry_run: bool = False
) -> PlanResponse:
    """Take every rule away from every node."""
    if dry_run:
        return _response(await services.enforcement.plan([], []))
    return _response(await services.enforcement.enforce([], [], author))


def _response(plan: Plan) -> PlanResponse:
    return PlanResponse(
        revision=plan.revision,
        changes=list(plan.changes),
        workloads=list(plan.workloads),
        warnings=list(plan.warnings),
        refused=plan.refused,
    )
