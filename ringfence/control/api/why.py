"""Which policy decides a connection, at each end."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from ringfence.control import why as explanation
from ringfence.control.analysis import connections_of
from ringfence.control.api.flow_pages import SORTS
from ringfence.control.api.flow_search import condition_on, read_window
from ringfence.control.api.rules import KernelRuleResponse, kernel_rule
from ringfence.control.auth import PrincipalDep
from ringfence.control.errors import NotFoundError
from ringfence.control.identity import Principal
from ringfence.control.judged import JudgedBy
from ringfence.control.live import Judging, judging
from ringfence.control.policies import load_judged_by
from ringfence.control.services import Services, ServicesDep
from ringfence.control.times import format_time
from ringfence.control.trial import judged_before
from ringfence.flows.connections import records
from ringfence.inventory.snapshot import Snapshot
from ringfence.model.errors import InputError
from ringfence.model.flow import format_connection, parse_connection
from ringfence.model.icmp import NAMES as ICMP_NAMES
from ringfence.model.icmp import parse_icmp_type
from ringfence.model.ids import parse_version
from ringfence.model.policy import Action, Direction
from ringfence.model.protocol import WITH_PORTS, parse_one_protocol
from ringfence.model.verdict import Decision, EndRole, Layer, Stage
from ringfence.policy.compile import compile_policies
from ringfence.store.flows.queries import listed
from ringfence.store.relational.trials import Trial, load_trial

router = APIRouter(tags=["why"])

_WITH = "Workspaces as if enforced: NAME, or NAME@VERSION."
_LIVE = "Also ask agents for the kernel's rules, as they are now."


class DecisionResponse(BaseModel):
    """One rule that matched; `policy` is null for a catch-all, `place` its place in the order.

    `rule` is the rule of a Kubernetes policy, empty where a policy decides as a whole, and the name
    of a fail-safe, which lets pass what policies deny: no workspace has it.
    """

    layer: Layer
    stage: Stage
    scope: str
    workspace: str
    version: int
    policy: str | None
    place: int
    action: Action
    rule: str


class ElementResponse(BaseModel):
    """An element of a set or map that a rule asks; a map tells what it has denied so far."""

    set: str
    element: str
    denied_packets: int


class LiveRuleResponse(KernelRuleResponse):
    """A rule of the kernel, and which elements of its sets hold the connection."""

    elements: list[ElementResponse]


class JudgingResponse(BaseModel):
    """The rules of an end's kernel that judge, in order, the last one in the end.

    `problem` is why they are not known; without one, no rules mean that none speaks of it.
    """

    rules: list[LiveRuleResponse]
    problem: str | None


class EndResponse(BaseModel):
    """What one end decides; null `deciding` means that nothing governs it.

    `kernel` is null where nothing governs it, and where the kernel was not to be asked.
    """

    role: EndRole
    direction: Direction
    workload: str
    deciding: DecisionResponse | None
    matching: list[DecisionResponse]
    fail_safe: str | None = Field(description="What lets it pass whatever policies say.")
    kernel: JudgingResponse | None


class ConnectionResponse(BaseModel):
    """One way that the traffic can take."""

    text: str
    allowed: bool
    ends: list[EndResponse]
    kept_out: str | None = Field(description="Why kube-proxy drops it, whatever policies say.")


class WhyResponse(BaseModel):
    """Every connection that the question may mean; allowed if all of them are."""

    allowed: bool
    connections: list[ConnectionResponse]
    notes: list[str]


class WhyQuery(BaseModel):
    """Traffic that may never have been."""

    source: str
    destination: str
    port: int = Field(default=0, ge=0, le=65535)
    protocol: str = "TCP"
    icmp: str = Field(default="echo-request", description="Of ICMP, the type, or type/code.")
    with_: list[str] = Field(default=[], alias="with", description=_WITH)
    live: bool = Field(default=False, description=_LIVE)


@router.get("/why")
async def why(
    services: ServicesDep, principal: PrincipalDep, asked: Annotated[WhyQuery, Query()]
) -> WhyResponse:
    """Name the policies that decide, by what is enforced now."""
    protocol, port = asked.protocol, asked.port
    number = parse_one_protocol(protocol)
    if (number in WITH_PORTS) != bool(port):
        raise InputError(f"port: {protocol} needs {'one' if number in WITH_PORTS else 'none'}")
    if number in ICMP_NAMES:
        port = parse_icmp_type(number, asked.icmp).ports.first
    judges = await _load_judges(services, principal, asked.with_)
    snapshot = services.inventory.timeline.latest()
    question = explanation.Question(asked.source, asked.destination, number, port)

    def work() -> explanation.Answer:
        side, outside = _sides(services, judges, snapshot)
        return explanation.why(side, question, outside)

    return await _response(services, await asyncio.to_thread(work), live=asked.live)


@dataclass(frozen=True, slots=True)
class _Judges:
    """By what to judge; at nodes outside the stage of a `trial`, by what was enforced `before`."""

    now: JudgedBy
    before: JudgedBy
    trial: Trial | None


async def _load_judges(services: Services, principal: Principal, with_: Iterable[str]) -> _Judges:
    """What is enforced now; with versions in place of their workspaces' own, at all nodes alike."""
    wanted, tenant = [parse_version(text) for text in with_], principal.tenant
    async with services.database.read() as connection:
        now = await load_judged_by(connection, tenant, wanted)
        trial = None if wanted else await load_trial(connection, tenant)
        before = await judged_before(connection, tenant, now, trial)
    return _Judges(now, before, trial)


def _sides(
    services: Services, judges: _Judges, snapshot: Snapshot
) -> tuple[explanation.Side, explanation.Outside | None]:
    """What to hold against an inventory; of nodes outside a stage too, where there is one."""
    moment, around = services.inventory.now(), services.enforcement.surroundings

    def side(judged_by: JudgedBy) -> explanation.Side:
        policy_set = judged_by.ringfence(snapshot, moment)
        kubernetes = tuple(judged_by.kubernetes(snapshot))
        compiled = compile_policies(policy_set, around.control_plane, around.access, kubernetes)
        return explanation.Side(policy_set, kubernetes, compiled)

    outside = None
    if judges.trial and judges.trial.nodes is not None:
        outside = explanation.Outside(judges.trial, side(judges.before))
    return side(judges.now), outside


class FlowQuery(BaseModel):
    """Which observed connection, by its id, and when it was seen."""

    connection: str
    since: str = "1h"
    until: str | None = None
    with_: list[str] = Field(default=[], alias="with", description=_WITH)
    live: bool = Field(default=False, description=_LIVE)


@router.get("/why/flow")
async def why_flow(
    services: ServicesDep, principal: PrincipalDep, asked: Annotated[FlowQuery, Query()]
) -> WhyResponse:
    """Name the policies that decide an observed connection.

    Its ends are who they were when it was first seen; the policies are those enforced now.
    """
    window = read_window(services, asked.since, asked.until)
    number = parse_connection(asked.connection)
    written = f'connection = "{format_connection(number)}"'
    condition = await condition_on(services, principal, written, window)
    parameters = {"tenant": principal.tenant, **window, **condition.parameters, "limit": 1}
    hops = await services.flow_store.query(listed(condition.sql, SORTS["last"]), parameters)
    seen = await asyncio.to_thread(partial(records, hops, attendant=True))
    if not len(seen):
        raise NotFoundError(f"connection {asked.connection!r} was not seen in that time")
    judges = await _load_judges(services, principal, asked.with_)
    first_ns = int(seen.column("first_ns").min())
    snapshot = await asyncio.to_thread(services.inventory.timeline.as_known().at, first_ns)

    def work() -> explanation.Answer:
        side, outside = _sides(services, judges, snapshot)
        note = f"ends as of {format_time(first_ns)}, policies as enforced now"
        observed = connections_of(seen, snapshot)
        return explanation.explain_all(side, observed, (note,), outside)

    return await _response(services, await asyncio.to_thread(work), live=asked.live)


async def _response(services: Services, answer: explanation.Answer, *, live: bool) -> WhyResponse:
    asked = [end.asked if live else None for one in answer.connections for end in one.ends]
    kernel = iter(await judging(services.inspections, asked))
    return WhyResponse(
        allowed=answer.allowed,
        connections=[
            ConnectionResponse(
                text=one.text,
                allowed=one.allowed,
                ends=[_end(end, next(kernel)) for end in one.ends],
                kept_out=one.kept_out or None,
            )
            for one in answer.connections
        ],
        notes=list(answer.notes),
    )


def decision_response(decision: Decision) -> DecisionResponse:
    """A decision as the API tells it."""
    return DecisionResponse(
        layer=decision.layer,
        stage=decision.stage,
        scope=decision.scope,
        workspace=decision.workspace,
        version=decision.version,
        policy=decision.policy,
        place=decision.place,
        action=decision.action,
        rule=decision.rule,
    )


def _end(end: explanation.ExplainedEnd, kernel: Judging | None) -> EndResponse:
    verdict = end.verdict
    return EndResponse(
        role=verdict.role,
        direction=verdict.direction,
        workload=end.workload,
        deciding=decision_response(verdict.deciding) if verdict.deciding else None,
        matching=[decision_response(decision) for decision in verdict.matching],
        fail_safe=end.fail_safe or None,
        kernel=_judging(kernel) if kernel else None,
    )


def _judging(kernel: Judging) -> JudgingResponse:
    return JudgingResponse(
        rules=[
            LiveRuleResponse(
                **kernel_rule(one.rule).model_dump(),
                elements=[
                    ElementResponse(
                        set=held.set, element=held.element, denied_packets=held.denied_packets
                    )
                    for held in one.elements
                ],
            )
            for one in kernel.rules
        ],
        problem=kernel.problem or None,
    )
