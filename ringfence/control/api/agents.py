"""The agents, and whether each does what it should."""

from fastapi import APIRouter
from pydantic import BaseModel, Field

from ringfence.control.agents import Agent
from ringfence.control.api.times import format_time
from ringfence.control.services import Services, ServicesDep

router = APIRouter(tags=["agents"])


class PodCounts(BaseModel):
    """Pods on the agent's node, and those of them whose rules are in force."""

    total: int
    programmed: int
    reasons: dict[str, str] = Field(description="Why not, by the uid of each pod that is not.")


class AuditResponse(BaseModel):
    """The agent's count of itself: packets seen, packets in a record, and losses by cause."""

    skbs: int
    recorded: int
    losses: dict[str, int]


class AgentResponse(BaseModel):
    """An agent as last heard of. Revisions are 0 where nothing is enforced."""

    name: str
    kubernetes_cluster: str
    release: str
    connected: bool
    last_seen: str
    clock_skew_seconds: float
    enforced_revision: int
    desired_revision: int
    stale_reason: str
    pods: PodCounts
    audit: AuditResponse


class AgentsResponse(BaseModel):
    """Every agent that was heard of since the control plane started."""

    items: list[AgentResponse]


@router.get("/agents")
async def list_agents(services: ServicesDep) -> AgentsResponse:
    """List the agents and their states."""
    return AgentsResponse(items=agent_responses(services))


def agent_responses(services: Services) -> list[AgentResponse]:
    """All agents, by Kubernetes cluster and name."""
    return [_response(services, agent) for agent in services.agents.all()]


def _response(services: Services, agent: Agent) -> AgentResponse:
    state = agent.state
    cluster, name = agent.key
    return AgentResponse(
        name=name,
        kubernetes_cluster=cluster,
        release=state.release,
        connected=agent.connected,
        last_seen=format_time(agent.last_seen_ns),
        clock_skew_seconds=agent.skew_ns / 10**9,
        enforced_revision=state.enforced_revision,
        desired_revision=services.enforcement.desired_revision(agent.key),
        stale_reason=agent.stale_reason or services.enforcement.problem_of(agent.key),
        pods=PodCounts(
            total=len(state.pods),
            programmed=sum(pod.programmed for pod in state.pods),
            reasons={pod.uid: pod.reason for pod in state.pods if not pod.programmed},
        ),
        audit=AuditResponse(
            skbs=state.audit.skbs,
            recorded=state.audit.recorded,
            losses=dict(state.audit.losses),
        ),
    )
