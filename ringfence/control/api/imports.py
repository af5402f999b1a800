"""Policies of Kubernetes, imported as workspaces."""

from fastapi import APIRouter
from pydantic import BaseModel, Field

from ringfence.control.api.documents import File
from ringfence.control.auth import AuthorDep
from ringfence.control.imports import Source, import_policies
from ringfence.control.services import ServicesDep
from ringfence.model.ids import ClusterId, WorkspaceName
from ringfence.policy.document import NAME

router = APIRouter(tags=["imports"])


class ImportRequest(BaseModel):
    """What to import; the Kubernetes cluster may be left out where there is one only."""

    workspace: str = Field(pattern=f"^{NAME}$")
    kubernetes_cluster: str = ""
    files: list[File] | None = Field(
        default=None, description="Manifests; null takes the cluster's policies of now."
    )
    dry_run: bool = False


class ImportResponse(BaseModel):
    """What became of the workspace; no `diff` means that it holds just this already."""

    workspace: str
    kubernetes_cluster: str
    version: int
    policies: int
    diff: list[str]
    warnings: list[str]


@router.post("/imports")
async def make_import(
    request: ImportRequest, services: ServicesDep, author: AuthorDep
) -> ImportResponse:
    """Keep the policies of a Kubernetes cluster, or of manifests, as a version of a workspace."""
    given = request.files
    files = None if given is None else tuple((one.name, one.documents) for one in given)
    source = Source(ClusterId(request.kubernetes_cluster), files)
    name = WorkspaceName(request.workspace)
    made = await import_policies(services, name, source, author, dry_run=request.dry_run)
    return ImportResponse(
        workspace=name,
        kubernetes_cluster=made.workspace.cluster,
        version=made.version,
        policies=len(made.workspace.policies),
        diff=list(map(str, made.changed)),
        warnings=list(made.warnings),
    )
