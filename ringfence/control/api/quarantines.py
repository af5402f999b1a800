"""Quarantines: to see them, to put a workload in one, and to lift it."""

from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, Field

from ringfence.control.auth import AuthorDep
from ringfence.control.quarantine import Asked
from ringfence.control.services import Services, ServicesDep
from ringfence.control.times import format_time
from ringfence.model.ids import ClusterId
from ringfence.model.override import Override
from ringfence.model.quarantine import Quarantine
from ringfence.policy.quarantine import holders_of

router = APIRouter(prefix="/quarantines", tags=["quarantines"])

_NS = 10**9
_LONGEST_SECONDS = 10 * 366 * 86_400


class QuarantineRequest(BaseModel):
    """Whom to cut off, and what to leave; null `for_seconds` means until it is lifted."""

    workload: str = Field(
        max_length=512,
        description="namespace/name of a pod or of what owns pods; the name of a node or host.",
    )
    kubernetes_cluster: str | None = None
    allow: list[Annotated[str, Field(max_length=512)]] = Field(
        default=[],
        max_length=16,
        description="dns, probes, namespace/name of a Service, an address or a CIDR block.",
    )
    for_seconds: int | None = Field(default=None, ge=1, le=_LONGEST_SECONDS)
    reason: str = Field(default="", max_length=1024)
    dry_run: bool = False
    override: list[Override] = Field(default=[], description="Words that refusals name.")


class QuarantineResponse(BaseModel):
    """A quarantine; null `expires` means until it is lifted. `workloads` are those of now."""

    kubernetes_cluster: str
    workload: str
    allow: list[str]
    reason: str
    actor: str
    since: str
    expires: str | None
    workloads: list[str]


class QuarantinePlan(QuarantineResponse):
    """What is to be known of a quarantine; `refused` is why it ought not to be, empty if it may.

    `problem` is why nodes are not told of it yet, empty if they are: it is kept all the same.
    """

    notes: list[str]
    refused: str
    problem: str


class QuarantineLifted(QuarantineResponse):
    """A quarantine that is over; `problem` is as of one that was set."""

    problem: str


class QuarantinesResponse(BaseModel):
    """The quarantines in force, the latest first."""

    items: list[QuarantineResponse]


@router.get("")
async def list_quarantines(services: ServicesDep) -> QuarantinesResponse:
    """List the quarantines in force."""
    held = await services.quarantines.all()
    return QuarantinesResponse(items=[_response(services, one) for one in held])


@router.post("")
async def quarantine(
    request: QuarantineRequest, services: ServicesDep, author: AuthorDep
) -> QuarantinePlan:
    """Cut a workload off, in place of the quarantine that it is in."""
    cluster = request.kubernetes_cluster
    asked = Asked(
        request.workload,
        ClusterId(cluster) if cluster is not None else None,
        tuple(request.allow),
        request.reason,
        request.for_seconds * _NS if request.for_seconds is not None else None,
    )
    if request.dry_run:
        actor = author.principal.actor
        outcome = services.quarantines.plan(asked, request.override, actor)
    else:
        outcome = await services.quarantines.put(asked, request.override, author)
    held = _response(services, outcome.quarantine)
    return QuarantinePlan(
        **held.model_dump(),
        notes=list(outcome.notes),
        refused=outcome.refused,
        problem="" if request.dry_run else services.enforcement.problem,
    )


@router.delete("")
async def lift_quarantine(
    services: ServicesDep, author: AuthorDep, workload: str, kubernetes_cluster: str | None = None
) -> QuarantineLifted:
    """End the quarantine of a workload."""
    cluster = ClusterId(kubernetes_cluster) if kubernetes_cluster is not None else None
    lifted = _response(services, await services.quarantines.lift(workload, cluster, author))
    return QuarantineLifted(**lifted.model_dump(), problem=services.enforcement.problem)


def _response(services: Services, one: Quarantine) -> QuarantineResponse:
    snapshot = services.inventory.timeline.latest()
    return QuarantineResponse(
        kubernetes_cluster=one.kubernetes_cluster,
        workload=one.workload,
        allow=list(one.allow),
        reason=one.reason,
        actor=one.actor,
        since=format_time(one.since_ns),
        expires=format_time(one.expires_ns) if one.expires_ns is not None else None,
        workloads=holders_of(snapshot, one, lambda _: True),
    )
