"""Enforcing the own policies of Kubernetes clusters."""

from fastapi import APIRouter
from pydantic import BaseModel, Field

from ringfence.control.api.enforcement import ConfirmSeconds, asked_to_confirm
from ringfence.control.auth import AuthorDep
from ringfence.control.kubernetes import enforce_cluster
from ringfence.control.services import ServicesDep
from ringfence.model.ids import ClusterId

router = APIRouter(tags=["enforcement"])


class KubernetesEnforcementRequest(BaseModel):
    """The Kubernetes cluster whose policies are to be enforced, or with `off` no more."""

    kubernetes_cluster: str
    off: bool = False
    dry_run: bool = False
    confirm_seconds: ConfirmSeconds = None


class KubernetesPlanResponse(BaseModel):
    """What changes; no `changes` mean that it is so already."""

    changes: list[str]
    pods: list[str] = Field(description="Those that some policy denies something.")
    warnings: list[str]


@router.post("/enforcement/kubernetes")
async def enforce_kubernetes(
    request: KubernetesEnforcementRequest, services: ServicesDep, author: AuthorDep
) -> KubernetesPlanResponse:
    """Enforce the policies of a Kubernetes cluster as they stand; a dry run tells the changes."""
    cluster = ClusterId(request.kubernetes_cluster)
    asked = asked_to_confirm(request.confirm_seconds)
    plan = await enforce_cluster(
        services, cluster, author, asked, off=request.off, dry_run=request.dry_run
    )
    return KubernetesPlanResponse(
        changes=list(plan.changes), pods=list(plan.pods), warnings=list(plan.warnings)
    )
