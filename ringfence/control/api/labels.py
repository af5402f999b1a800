"""Labels that people upload for addresses and networks."""

import asyncio
from collections.abc import Iterable
from typing import Annotated

from fastapi import APIRouter, Query, Response, status
from pydantic import BaseModel, ConfigDict, Field, SkipValidation, ValidationError

from ringfence.control.api.answers import answered
from ringfence.control.auth import AuthorDep
from ringfence.control.services import ServicesDep
from ringfence.control.times import format_time
from ringfence.inventory.uploaded import (
    MOST_BYTES,
    MOST_NETWORKS,
    Upload,
    check_together,
    make_upload,
)
from ringfence.model.address import parse_network
from ringfence.model.errors import InputError
from ringfence.model.words import named
from ringfence.store.relational.uploads import Uploaded

LARGEST_BODY = MOST_BYTES + 4096
"""Bytes of a request's body: all that may be uploaded, and what stands around it."""

router = APIRouter(prefix="/labels", tags=["labels"])


class AddressLabels(BaseModel):
    """What is said of an address or a network."""

    model_config = ConfigDict(extra="forbid")

    address: str = Field(description="An address, or a network as a CIDR block.")
    name: str = Field(default="", description="What flows call it; else its address.")
    labels: dict[str, str] = Field(
        default_factory=dict, description="Filters have each KEY as user.KEY."
    )


class AddressLabelsResponse(AddressLabels):
    """What is said of it, by whom and since when."""

    actor: str
    since: str


class LabelsResponse(BaseModel):
    """All uploaded labels, in the order of addresses."""

    items: list[AddressLabelsResponse]


class LabelsRequest(BaseModel):
    """Labels in the place of those that these addresses had; others keep theirs."""

    # Checked beside the event loop: `_checked`.
    items: list[SkipValidation[AddressLabels]] = Field(max_length=MOST_NETWORKS)
    replace: bool = Field(default=False, description="Remove the labels of all other addresses.")


class UploadResponse(BaseModel):
    """How many addresses got labels, other ones, or lost theirs."""

    added: int
    changed: int
    removed: int
    notes: list[str] = Field(
        description="Addresses that an inventory item holds: while it does, its labels count."
    )


@router.get("", response_model=LabelsResponse)
async def list_labels(services: ServicesDep) -> Response:
    """List the labels that are uploaded now."""
    held = services.labels.all()
    return await answered(lambda: LabelsResponse(items=[_response(one) for one in held]))


@router.post("", max_body_size=LARGEST_BODY)
async def upload_labels(
    request: LabelsRequest, services: ServicesDep, author: AuthorDep
) -> UploadResponse:
    """Take in labels, all of them or none."""
    uploads = await asyncio.to_thread(_checked, request.items)
    outcome = await services.labels.upload(uploads, author, replace=request.replace)
    return UploadResponse(
        added=len(outcome.added),
        changed=len(outcome.changed),
        removed=len(outcome.removed),
        notes=services.labels.shadowed(one.network for one in uploads),
    )


@router.delete("", status_code=status.HTTP_204_NO_CONTENT)
async def remove_labels(
    services: ServicesDep,
    author: AuthorDep,
    address: Annotated[list[str], Query(min_length=1, description="Each as it was uploaded.")],
) -> None:
    """Forget the labels of addresses, of all of them or none."""
    networks = dict.fromkeys(parse_network(one) for one in address)
    await services.labels.remove(networks, author)


def _checked(items: Iterable[object]) -> list[Upload]:
    uploads, wrong = [], []
    for number, item in enumerate(items):
        place = f"items.{number}"
        try:
            given = AddressLabels.model_validate(item)
            uploads.append((place, make_upload(given.address, given.name, given.labels)))
        except ValidationError as error:
            wrong += [
                f"{'.'.join(map(str, (place, *one['loc'])))}: {one['msg']}"
                for one in error.errors(include_input=False)
            ]
        except InputError as error:
            wrong.append(f"{place}: {error}")
    if wrong:
        raise InputError(named(wrong, "; "))
    return check_together(uploads)


def _response(one: Uploaded) -> AddressLabelsResponse:
    return AddressLabelsResponse(
        address=one.upload.address,
        name=one.upload.name,
        labels=dict(one.upload.labels),
        actor=one.actor,
        since=format_time(one.changed_ns),
    )
