"""The agents, and whether each does what it should."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from ringfence.control.agents import Agent
from ringfence.control.api.flow_views import pod_name
from ringfence.control.auth import AuthorDep
from ringfence.control.services import Services, ServicesDep
from ringfence.control.times import format_time
from ringfence.model.flow import Mode
from ringfence.model.ids import ClusterId, NodeName
from ringfence.wire.generated import agent_pb2 as wire
from ringfence.wire.limits import AUDITED_INTERFACES

router = APIRouter(tags=["agents"])


_UNTOLD = "no rules are in force for it"


class PodCounts(BaseModel):
    """Pods on the agent's node, and those of them whose rules are in force."""

    total: int
    programmed: int
    reasons: dict[str, str] = Field(
        description="Why not, by the namespace and name of each pod that is not, its uid once gone."
    )


class SideResponse(BaseModel):
    """Packets at one side of an interface."""

    counted: int = Field(description="By the agent's program since it was attached.")
    unaccounted_least: int = Field(
        description="Of what the kernel counted besides; negative where it counted fewer."
    )
    unaccounted_most: int


class InterfaceResponse(BaseModel):
    """An interface as its agent counted it; only where `judged` should both counts agree."""

    name: str
    ifindex: int
    judged: bool
    ingress: SideResponse
    egress: SideResponse


class AuditResponse(BaseModel):
    """The agent's count of itself, in packets (skbs) since it started."""

    skbs: int
    recorded: int = Field(description="Of these, in a flow record.")
    losses: dict[str, int] = Field(description="By cause.")
    judged: int = Field(description="Interfaces held against the kernel's counters.")
    unaccounted: int = Field(description="Counted there by the kernel, surely not by the agent.")
    overcounted: int = Field(description="Counted there by the agent, surely not by the kernel.")
    uncertain: int = Field(description="Passed while the counters were read: may be either.")
    interfaces: list[InterfaceResponse] = Field(description="The most wrong first.")


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
    mode: Mode
    desired_mode: Mode
    pods: PodCounts
    audit: AuditResponse


class AgentsResponse(BaseModel):
    """Every agent that was heard of since the control plane started."""

    items: list[AgentResponse]


class ModeRequest(BaseModel):
    """How finely an agent is to report; the Kubernetes cluster tells nodes of one name apart."""

    node: str
    kubernetes_cluster: str | None = None
    mode: Mode


@router.get("/agents")
async def list_agents(
    services: ServicesDep,
    interfaces: Annotated[int, Query(ge=0, le=AUDITED_INTERFACES)] = 1,
) -> AgentsResponse:
    """List the agents and their states, each with at most so many of its interfaces."""
    return AgentsResponse(items=agent_responses(services, interfaces))


@router.post("/agents/mode")
async def choose_mode(
    request: ModeRequest, services: ServicesDep, author: AuthorDep
) -> AgentResponse:
    """Have a node's agent report conversations, or every connection in detail."""
    cluster = request.kubernetes_cluster
    agent = services.agents.named(
        NodeName(request.node), None if cluster is None else ClusterId(cluster)
    )
    await services.modes.choose(agent.key, request.mode, author)
    return _response(services, agent, 0)


def agent_responses(services: Services, interfaces: int = 0) -> list[AgentResponse]:
    """All agents, by Kubernetes cluster and name, each with at most so many interfaces."""
    return [_response(services, agent, interfaces) for agent in services.agents.all()]


def _response(services: Services, agent: Agent, interfaces: int) -> AgentResponse:
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
            reasons={
                pod_name(services.inventory.timeline, cluster, pod.uid): pod.reason or _UNTOLD
                for pod in state.pods
                if not pod.programmed
            },
        ),
        mode=Mode.DETAILED if state.mode == wire.DETAILED else Mode.CONVERSATION,
        desired_mode=services.modes.of(agent.key),
        audit=_audit(state.audit, interfaces),
    )


def _audit(audit: wire.Audit, interfaces: int) -> AuditResponse:
    return AuditResponse(
        skbs=audit.skbs,
        recorded=audit.recorded,
        losses=dict(audit.losses),
        judged=audit.judged,
        unaccounted=audit.unaccounted,
        overcounted=audit.overcounted,
        uncertain=audit.uncertain,
        interfaces=[
            InterfaceResponse(
                name=each.name,
                ifindex=each.ifindex,
                judged=each.judged,
                ingress=_side(each.ingress),
                egress=_side(each.egress),
            )
            for each in audit.interfaces[:interfaces]
        ],
    )


def _side(side: wire.SideAudit) -> SideResponse:
    return SideResponse(
        counted=side.counted, unaccounted_least=side.least, unaccounted_most=side.most
    )
