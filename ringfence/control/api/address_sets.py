"""Address sets: what they hold, how their lists fare, and uploads."""

from typing import Any

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from ringfence.control.api.answers import answered
from ringfence.control.auth import AuthorDep
from ringfence.control.services import Services, ServicesDep
from ringfence.control.times import format_time
from ringfence.inventory.contents import unpack
from ringfence.model.address_set import (
    MOST_BYTES,
    Fetched,
    Uploaded,
    Written,
    format_range,
)
from ringfence.model.duration import format_duration
from ringfence.model.ids import AddressSetName
from ringfence.store.relational.address_sets import HeldSet

LARGEST_BODY = 2 * MOST_BYTES
"""Bytes of a request's body: the list as a JSON text, in which line ends take two letters."""

router = APIRouter(prefix="/address-sets", tags=["address sets"])


class AddressSetResponse(BaseModel):
    """A set; `problem` is why its list could not be read when last asked for, empty if it could."""

    name: str
    source: str = Field(description="A URL, or `written` or `uploaded`.")
    every: str = Field(description="How often the URL is asked for; else empty.")
    ranges: int = Field(description="How many stretches of addresses it holds.")
    held_since: str | None = Field(description="Since when it holds them, null for nothing yet.")
    refreshed_at: str | None = Field(description="When its list was last read.")
    tried_at: str | None = Field(description="When its list was last asked for.")
    problem: str


class AddressSetsResponse(BaseModel):
    """Sets by name."""

    items: list[AddressSetResponse]


class ContentResponse(AddressSetResponse):
    """A set with what it holds: addresses, CIDR blocks and ranges, in order."""

    addresses: list[str]


class UploadListRequest(BaseModel):
    """A list of addresses as text: one on each line, or a JSON list."""

    text: str


@router.get("")
async def list_address_sets(services: ServicesDep) -> AddressSetsResponse:
    """List the address sets, and how their lists fare."""
    keeper = services.inventory.address_sets
    return AddressSetsResponse(
        items=[AddressSetResponse(**_told(services, one)) for one in keeper.all()]
    )


@router.get("/{name}", response_model=ContentResponse)
async def get_address_set(name: str, services: ServicesDep) -> Response:
    """Give a set with all that it holds."""
    keeper = services.inventory.address_sets
    one = keeper.get(AddressSetName(name))
    content, told = keeper.contents.latest(one.address_set.name), _told(services, one)

    def work() -> ContentResponse:
        ranges = unpack(content.packed) if content else ()
        return ContentResponse(**told, addresses=list(map(format_range, ranges)))

    return await answered(work)


@router.post("/{name}/upload", max_body_size=LARGEST_BODY)
async def upload_list(
    name: str, request: UploadListRequest, services: ServicesDep, author: AuthorDep
) -> AddressSetResponse:
    """Have a set that is `uploaded: true` hold the addresses of a list, and no others."""
    keeper = services.inventory.address_sets
    one = await keeper.upload(AddressSetName(name), request.text, author)
    return AddressSetResponse(**_told(services, one))


@router.post("/{name}/refresh")
async def refresh_list(name: str, services: ServicesDep) -> AddressSetResponse:
    """Fetch a set's list now; `problem` says how that went."""
    one = await services.inventory.address_sets.refresh(AddressSetName(name))
    return AddressSetResponse(**_told(services, one))


def _told(services: Services, one: HeldSet) -> dict[str, Any]:
    """The fields of an AddressSetResponse."""
    content = services.inventory.address_sets.contents.latest(one.address_set.name)
    match one.address_set.source:
        case Fetched(url, every_seconds):
            source, every = url, format_duration(every_seconds)
        case Written():
            source, every = "written", ""
        case Uploaded():
            source, every = "uploaded", ""
    return {
        "name": one.address_set.name,
        "source": source,
        "every": every,
        "ranges": content.count if content else 0,
        "held_since": format_time(content.from_ns) if content else None,
        "refreshed_at": _time(one.refreshed.refreshed_ns),
        "tried_at": _time(one.refreshed.tried_ns),
        "problem": one.refreshed.problem,
    }


def _time(at_ns: int | None) -> str | None:
    return None if at_ns is None else format_time(at_ns)
