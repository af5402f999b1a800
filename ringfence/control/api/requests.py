"""Requests between workspaces: to see them and to answer them, by hand or by rule."""

from fastapi import APIRouter
from pydantic import BaseModel, Field

from ringfence.control.auth import AuthorDep
from ringfence.control.errors import NotFoundError
from ringfence.control.services import ServicesDep
from ringfence.control.times import format_time
from ringfence.model.approval import ApprovalRule, State
from ringfence.model.errors import InputError
from ringfence.model.ids import ScopeName, WorkspaceName
from ringfence.model.keys import parse_filter
from ringfence.model.protocol import WITH_PORTS, format_protocol, parse_ports, parse_protocol
from ringfence.store.relational.requests import HeldRequest

router = APIRouter(tags=["requests"])


class RequestResponse(BaseModel):
    """What a policy of one workspace needs of another.

    `actor` answered it, or raised it if nobody has.
    """

    id: str
    state: State
    workspace: str
    policy: str
    provider_workspace: str
    text: str = Field(description="What granting it changes in the provider's workspace.")
    reason: str
    actor: str
    raised: str
    changed: str


class RequestsResponse(BaseModel):
    """Requests, the latest first."""

    items: list[RequestResponse]


class AnswerRequest(BaseModel):
    """Why."""

    reason: str = Field(default="", max_length=1024)


class RuleRequest(BaseModel):
    """Which requests to approve at once; a null part and an empty list mean every one."""

    provider_workspace: str
    scope: str = Field(description="Requests of workspaces of this scope and of those below it.")
    provider: str | None = Field(
        default=None, description="A filter that all workloads match which a request opens."
    )
    protocol: str = "any"
    ports: list[str | int] = Field(default=[], max_length=64)


class RuleResponse(BaseModel):
    """A rule that approves requests."""

    id: str
    provider_workspace: str
    scope: str
    provider: str | None
    protocol: str
    ports: list[str]
    actor: str
    created: str


class RulesResponse(BaseModel):
    """Rules, the oldest first."""

    items: list[RuleResponse]


@router.get("/requests")
async def list_requests(services: ServicesDep, state: State | None = None) -> RequestsResponse:
    """List requests."""
    held = await services.requests.all()
    chosen = [one for one in held if state in (None, one.state)]
    return RequestsResponse(items=[request_response(one) for one in chosen])


@router.get("/requests/{request}")
async def show_request(request: str, services: ServicesDep) -> RequestResponse:
    """Show one request."""
    for one in await services.requests.all():
        if one.id == request:
            return request_response(one)
    raise NotFoundError(f"there is no request {request!r}")


@router.post("/requests/{request}/approve")
async def approve_request(
    request: str, answer: AnswerRequest, services: ServicesDep, author: AuthorDep
) -> RequestResponse:
    """Add what is requested to the provider's workspace, as a new version."""
    return request_response(await services.requests.approve(request, answer.reason, author))


@router.post("/requests/{request}/reject")
async def reject_request(
    request: str, answer: AnswerRequest, services: ServicesDep, author: AuthorDep
) -> RequestResponse:
    """Refuse a request, now and when it is raised again."""
    return request_response(await services.requests.reject(request, answer.reason, author))


@router.get("/approval-rules")
async def list_rules(services: ServicesDep) -> RulesResponse:
    """List the rules that approve requests."""
    return RulesResponse(items=[_rule(one) for one in await services.requests.rules()])


@router.post("/approval-rules")
async def add_rule(rule: RuleRequest, services: ServicesDep, author: AuthorDep) -> RuleResponse:
    """Have some requests to a workspace approved at once, pending ones too."""
    protocol = parse_protocol(rule.protocol)
    ports = tuple(parse_ports(one) for one in rule.ports)
    if ports and protocol not in WITH_PORTS:
        raise InputError(f"ports: {rule.protocol} has none")
    added = await services.requests.add_rule(
        WorkspaceName(rule.provider_workspace),
        ScopeName(rule.scope),
        parse_filter(rule.provider) if rule.provider else None,
        (protocol, ports),
        author,
    )
    return _rule(added)


@router.delete("/approval-rules/{rule}")
async def remove_rule(rule: str, services: ServicesDep, author: AuthorDep) -> None:
    """Remove a rule; what it approved stays."""
    await services.requests.remove_rule(rule, author)


def request_response(held: HeldRequest) -> RequestResponse:
    """A request as the API tells it."""
    return RequestResponse(
        id=held.id,
        state=held.state,
        workspace=held.workspace,
        policy=held.policy,
        provider_workspace=held.provider_workspace,
        text=held.text,
        reason=held.reason,
        actor=held.actor,
        raised=format_time(held.raised_ns),
        changed=format_time(held.changed_ns),
    )


def _rule(rule: ApprovalRule) -> RuleResponse:
    return RuleResponse(
        id=rule.id,
        provider_workspace=rule.provider_workspace,
        scope=rule.scope,
        provider=None if rule.provider is None else str(rule.provider),
        protocol=format_protocol(rule.protocol),
        ports=[str(one) for one in rule.ports],
        actor=rule.actor,
        created=format_time(rule.created_ns),
    )
