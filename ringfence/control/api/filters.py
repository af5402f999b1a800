"""Named filters, and who is in them."""

from fastapi import APIRouter
from pydantic import BaseModel, Field

from ringfence.control.auth import PrincipalDep
from ringfence.control.policies import load_tree
from ringfence.control.services import ServicesDep
from ringfence.model.protocol import format_protocol

router = APIRouter(tags=["filters"])


class PublicPortsResponse(BaseModel):
    """What members provide to everybody; no ports means all of the protocol."""

    protocol: str
    ports: list[str]


class FilterResponse(BaseModel):
    """A named filter."""

    name: str
    scope: str
    query: str
    restricted: bool
    public: list[PublicPortsResponse]
    workloads: int = Field(description="How many workloads are in it now.")


class FiltersResponse(BaseModel):
    """Filters by name."""

    items: list[FilterResponse]


@router.get("/filters")
async def list_filters(services: ServicesDep, principal: PrincipalDep) -> FiltersResponse:
    """List the named filters."""
    async with services.database.read() as connection:
        tree = await load_tree(connection, principal.tenant)
    snapshot = services.inventory.timeline.latest()
    return FiltersResponse(
        items=[
            FilterResponse(
                name=one.name,
                scope=one.scope,
                query=str(one.query),
                restricted=one.restricted,
                public=[
                    PublicPortsResponse(
                        protocol=format_protocol(provided.protocol),
                        ports=list(map(str, provided.ports)),
                    )
                    for provided in one.public
                ],
                workloads=len(snapshot.select(tree.filter_query(one.name)) & snapshot.subjects),
            )
            for one in sorted(tree.filters.values(), key=lambda one: one.name)
        ]
    )
