"""Alerts, and the sinks that hear of them."""

import re
from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from ringfence.control.alert_delivery import try_sink
from ringfence.control.alerts import notice
from ringfence.control.auth import AuthorDep, PrincipalDep
from ringfence.control.errors import NotFoundError
from ringfence.control.services import ServicesDep
from ringfence.control.times import format_time, parse_time
from ringfence.export.alerts.interface import TEST, Notice
from ringfence.export.alerts.kinds import make_sink
from ringfence.model.errors import InputError
from ringfence.store.relational.alerts import (
    HeldSink,
    all_sinks,
    load_alerts,
    put_sink,
    remove_sink,
)

router = APIRouter(prefix="/alerts", tags=["alerts"])
sinks = APIRouter(prefix="/alert-sinks", tags=["alerts"])

_NAME = re.compile("[A-Za-z0-9][-._A-Za-z0-9]{0,62}")


class AlertsResponse(BaseModel):
    """Alerts, the latest first."""

    items: list[Notice]


class SinkRequest(BaseModel):
    """A sink; the secret is kept and never told again."""

    name: str
    url: str
    secret: str = Field(default="", repr=False)


class SinkView(BaseModel):
    """A sink, and how its last attempt went; `problem` is empty if that went well."""

    name: str
    url: str
    has_secret: bool
    actor: str
    changed: str
    refused: int = Field(description="Notices that it would not take.")
    problem: str


class AddedSinkView(SinkView):
    """A sink as it is now."""

    replaced: bool = Field(description="Whether it stands in place of one of its name.")


class SinksResponse(BaseModel):
    """Sinks by name."""

    items: list[SinkView]


class TestResponse(BaseModel):
    """Why a sink did not take a notice, empty if it did."""

    problem: str


@router.get("")
async def list_alerts(
    services: ServicesDep,
    principal: PrincipalDep,
    since: Annotated[str | None, Query(description="Also those resolved since then.")] = None,
) -> AlertsResponse:
    """List the open alerts."""
    since_ns = None if since is None else parse_time(since, services.clock())
    async with services.database.read() as connection:
        found = await load_alerts(connection, principal.tenant, since_ns)
    return AlertsResponse(items=list(map(notice, found)))


@sinks.get("")
async def list_sinks(services: ServicesDep, principal: PrincipalDep) -> SinksResponse:
    """List the sinks, without their secrets."""
    async with services.database.read() as connection:
        found = await all_sinks(connection, principal.tenant)
    return SinksResponse(items=list(map(_view, found)))


@sinks.post("")
async def add_sink(request: SinkRequest, services: ServicesDep, author: AuthorDep) -> AddedSinkView:
    """Add a sink, or put it in place of the one of its name."""
    if not _NAME.fullmatch(request.name):
        raise InputError(f"{request.name!r}: write letters, digits, and - . _ between them")
    make_sink(request.url, request.secret)
    now_ns, actor = services.clock(), author.principal.actor
    sink = HeldSink(request.name, request.url, "", actor, now_ns)
    sink = replace(sink, secret=services.alert_delivery.secrets.seal(request.secret, sink.place))
    async with services.database.write() as connection:
        held = await all_sinks(connection, author.principal.tenant)
        replaced = sink.name in {one.name for one in held}
        await put_sink(connection, author.principal.tenant, sink)
        what = f"{'changed' if replaced else 'made'} alert sink {sink.name}: {sink.url}"
        await author.note(connection, now_ns, what, about=f"alert-sink/{sink.name}")
    services.alert_delivery.renew()
    return AddedSinkView(**dict(_view(sink)), replaced=replaced)


@sinks.delete("/{name}")
async def delete_sink(name: str, services: ServicesDep, author: AuthorDep) -> None:
    """Remove a sink; what it has not had yet it never gets."""
    async with services.database.write() as connection:
        if not await remove_sink(connection, author.principal.tenant, name):
            raise _missing(name)
        what = f"removed alert sink {name}"
        await author.note(connection, services.clock(), what, about=f"alert-sink/{name}")
    services.alert_delivery.renew()


@sinks.post("/{name}/test")
async def send_test(name: str, services: ServicesDep, author: AuthorDep) -> TestResponse:
    """Send a notice of an alert that there is not."""
    async with services.database.read() as connection:
        found = {one.name: one for one in await all_sinks(connection, author.principal.tenant)}
    if name not in found:
        raise _missing(name)
    now = format_time(services.clock())
    made = Notice(
        "test", "opened", TEST, "nobody", "nobody", "TCP", "0", [], 0, now, now
    )  # fmt: skip
    return TestResponse(problem=await try_sink(found[name], services.alert_delivery.secrets, made))


def _missing(name: str) -> NotFoundError:
    return NotFoundError(f"there is no alert sink {name!r}; see `ringfence alerts sink list`")


def _view(sink: HeldSink) -> SinkView:
    return SinkView(
        name=sink.name,
        url=sink.url,
        has_secret=bool(sink.secret),
        actor=sink.actor,
        changed=format_time(sink.changed_ns),
        refused=sink.refused,
        problem=sink.problem,
    )
