"""The HTTP API as one application: every route, and the guard before it."""

from http import HTTPStatus

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel

from ringfence import __version__
from ringfence.control import problems
from ringfence.control.api import (
    address_sets,
    agents,
    alerts,
    analyses,
    analysis,
    changes,
    discover,
    documents,
    enforcement,
    enrolment,
    experiments,
    filters,
    flow_export,
    flow_groups,
    flow_related,
    flow_watch,
    flows,
    imports,
    inventory,
    kubernetes,
    labels,
    lint,
    promotions,
    quarantines,
    reach,
    recommendations,
    removal,
    requests,
    rules,
    scope_preview,
    scopes,
    tokens,
    versions,
    what_if,
    whoami,
    why,
    workspaces,
)
from ringfence.control.auth import authenticate
from ringfence.control.metrics import MeasureRequests
from ringfence.control.problems import Problem
from ringfence.control.services import Services, ServicesDep
from ringfence.store.relational.tokens import any_token

GUARDED = (
    whoami.router,
    tokens.router,
    enrolment.router,
    agents.router,
    inventory.router,
    labels.router,
    flows.router,
    flow_groups.router,
    flow_export.router,
    flow_watch.router,
    flow_related.router,
    scopes.router,
    scope_preview.router,
    filters.router,
    address_sets.router,
    workspaces.router,
    versions.router,
    lint.router,
    documents.router,
    removal.router,
    imports.router,
    discover.router,
    analysis.router,
    what_if.router,
    analyses.router,
    experiments.router,
    recommendations.router,
    promotions.router,
    alerts.router,
    alerts.sinks,
    enforcement.router,
    kubernetes.router,
    quarantines.router,
    requests.router,
    why.router,
    rules.router,
    reach.router,
    changes.router,
)
"""Every router here demands an API token; a new noun's router goes here."""

PREFIX = "/api/v1"
LARGEST_BODY = 16 << 20
"""Bytes of a request's body; a larger one is answered with 413."""


class Health(BaseModel):
    """That the process is there."""

    status: str


class Presence(Health):
    """That the process is there, and where agents and connectors dial it."""

    grpc_port: int


_open = APIRouter(tags=["health"])
_operations = APIRouter(tags=["operations"])


@_open.get("/healthz")
async def healthz(services: ServicesDep) -> Presence:
    """Say that the process lives."""
    return Presence(status="ok", grpc_port=services.grpc_port)


@_open.get("/readyz", responses={503: {"model": Problem}})
async def readyz(services: ServicesDep) -> Health:
    """Say whether requests can be served: the database answers, and there is an administrator."""
    async with services.database.read() as connection:
        if not await any_token(connection):
            raise HTTPException(HTTPStatus.SERVICE_UNAVAILABLE, "the first start is under way")
    return Health(status="ready")


@_operations.get("/metrics", response_class=PlainTextResponse)
async def metrics(services: ServicesDep) -> Response:
    """Give the control plane's metrics in Prometheus' text format."""
    return Response(services.metrics.render(), media_type=CONTENT_TYPE_LATEST)


def make_app(services: Services) -> FastAPI:
    """The application. Open are health and enrolment, which takes an enrolment token instead."""
    app = FastAPI(
        title="Ringfence",
        version=__version__,
        openapi_url=None,  # served below, behind the guard as all the rest
        max_body_size=LARGEST_BODY,  # bodies are read before tokens are looked at
        responses={status: {"model": Problem} for status in (401, 403, 422)},
    )
    app.state.services = services
    problems.install(app)
    app.add_middleware(MeasureRequests, metrics=services.metrics)
    app.include_router(_open)
    app.include_router(enrolment.enrol_router, prefix=PREFIX)
    guard = [Depends(authenticate)]
    app.include_router(_operations, dependencies=guard)
    for router in GUARDED:
        app.include_router(router, prefix=PREFIX, dependencies=guard)

    @app.get(f"{PREFIX}/openapi.json", dependencies=guard, tags=["operations"])
    async def openapi() -> dict[str, object]:
        """Describe this API (OpenAPI 3.1)."""
        return app.openapi()

    return app
