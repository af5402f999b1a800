"""The scope tree."""

import asyncio
from collections.abc import Mapping

from fastapi import APIRouter
from pydantic import BaseModel, Field

from ringfence.control.auth import PrincipalDep
from ringfence.control.policies import load_tree
from ringfence.control.services import ServicesDep
from ringfence.inventory.snapshot import Snapshot
from ringfence.model.ids import ScopeName, WorkspaceName
from ringfence.model.scope import ScopeTree
from ringfence.policy.ends import members
from ringfence.policy.scope_checks import divided_clusters, overlaps
from ringfence.store.relational.workspaces import heads

router = APIRouter(tags=["scopes"])


class SharedResponse(BaseModel):
    """A sibling with workloads in common, and how many they are."""

    scope: str
    workloads: int


class ScopeResponse(BaseModel):
    """A scope with its place in the tree, the root having depth 0."""

    name: str
    parent: str | None
    depth: int
    query: str
    full_query: str
    workloads: int = Field(description="How many workloads match the full query now.")
    workspace: str | None = Field(description="The scope's primary workspace.")
    overlaps: list[SharedResponse]


class ScopesResponse(BaseModel):
    """Scopes from the highest priority to the lowest: parents before their children."""

    items: list[ScopeResponse]
    warnings: list[str] = Field(description="Kubernetes clusters that unrelated scopes divide.")


@router.get("/scopes")
async def list_scopes(services: ServicesDep, principal: PrincipalDep) -> ScopesResponse:
    """List the scopes in the order of their priority."""
    async with services.database.read() as connection:
        tree = await load_tree(connection, principal.tenant)
        workspaces = await heads(connection, principal.tenant)
    primary = {one.scope: one.name for one in workspaces if one.primary}
    return await asyncio.to_thread(_response, services.inventory.timeline.latest(), tree, primary)


def _response(
    snapshot: Snapshot, tree: ScopeTree, primary: Mapping[ScopeName, WorkspaceName]
) -> ScopesResponse:
    shared = overlaps(snapshot, tree)
    return ScopesResponse(
        items=[
            ScopeResponse(
                name=scope.name,
                parent=scope.parent,
                depth=len(tree.path(scope.name)) - 1,
                query=str(scope.query),
                full_query=str(tree.full_query(scope.name)),
                workloads=len(members(tree, snapshot, scope.name)),
                workspace=primary.get(scope.name),
                overlaps=[
                    SharedResponse(scope=other, workloads=len(one.workloads))
                    for one in shared
                    for mine, other in ((one.first, one.second), (one.second, one.first))
                    if mine == scope.name
                ],
            )
            for scope in tree.preorder()
        ],
        warnings=[str(one) for one in divided_clusters(snapshot, tree)],
    )
