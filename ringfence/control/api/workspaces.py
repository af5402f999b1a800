"""Workspaces, their versions and policies."""

import json
from collections.abc import Iterable
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, Field

from ringfence.control.api.numbers import VersionNumber
from ringfence.control.auth import PrincipalDep
from ringfence.control.policies import load_version
from ringfence.control.services import ServicesDep
from ringfence.control.times import format_time
from ringfence.model.icmp import format_icmp_type
from ringfence.model.ids import Version, WorkspaceName
from ringfence.model.policy import (
    Action,
    AddressSetEnd,
    ApiServerEnd,
    CidrEnd,
    ClusterEnd,
    Denied,
    Direction,
    End,
    FilterEnd,
    FqdnEnd,
    NamedFilterEnd,
    OutsideEnd,
    OwnNodeEnd,
    Policy,
    Rank,
    ScopeEnd,
    ServiceEnd,
    Workspace,
)
from ringfence.model.protocol import format_protocol
from ringfence.model.verdict import Stage
from ringfence.policy.kubernetes.held import HeldPolicy
from ringfence.policy.kubernetes.imported import ImportedWorkspace
from ringfence.store.relational.enforcement import enforced_now
from ringfence.store.relational.workspaces import heads

router = APIRouter(prefix="/workspaces", tags=["workspaces"])


class CatchAllResponse(BaseModel):
    """What happens to connections that no policy matches."""

    inbound: Action
    outbound: Action


class WorkspaceSummary(BaseModel):
    """A workspace in short; `enforced` is the version in force, null for none.

    One that holds the policies of a Kubernetes cluster has no scope, no catch-all, and drops what
    is denied.
    """

    name: str
    kubernetes_cluster: str | None
    scope: str
    primary: bool
    version: int
    enforced: int | None
    policies: int = Field(description="How many there are.")
    catch_all: CatchAllResponse | None
    denied: Denied


class WorkspacesResponse(BaseModel):
    """Workspaces by name, as of their latest versions."""

    items: list[WorkspaceSummary]


class ClusterResponse(BaseModel):
    """A named query over workloads."""

    name: str
    query: str


class PolicyResponse(BaseModel):
    """A policy, its ends as text; no ports means all of the protocol's."""

    id: str
    description: str
    rank: Rank
    priority: int
    action: Action
    consumer: str
    provider: str
    protocol: str
    ports: list[str]
    owner: str
    ticket: str
    expires_at: str | None
    approved: bool
    icmp: list[str] = Field(description="Types, or type/code; none means all.")


class KubernetesPolicyResponse(BaseModel):
    """A policy of a Kubernetes cluster."""

    id: str = Field(description="KIND/NAMESPACE/NAME, or KIND/NAME.")
    tier: Stage
    priority: int | None
    rules: int = Field(description="How many there are.")
    isolates: list[Direction]
    problem: str | None = Field(description="Why it cannot be read, so that it denies all.")
    manifest: dict[str, Any]


class WorkspaceResponse(BaseModel):
    """One version of a workspace, its policies in the order they are read.

    `kubernetes_policies` are those of a Kubernetes cluster; beside them there are no others.
    """

    name: str
    kubernetes_cluster: str | None
    scope: str
    primary: bool
    version: int
    enforced: int | None
    catch_all: CatchAllResponse | None
    denied: Denied
    clusters: list[ClusterResponse]
    policies: list[PolicyResponse]
    kubernetes_policies: list[KubernetesPolicyResponse]


@router.get("")
async def list_workspaces(services: ServicesDep, principal: PrincipalDep) -> WorkspacesResponse:
    """List the workspaces by name."""
    async with services.database.read() as connection:
        enforced = dict((await enforced_now(connection, principal.tenant)).workspaces)
        items = []
        for head in await heads(connection, principal.tenant):
            workspace, version = await load_version(connection, principal.tenant, head.name)
            items.append(_summary(workspace, version, enforced.get(head.name)))
    return WorkspacesResponse(items=items)


@router.get("/{name}")
async def show_workspace(
    name: str,
    services: ServicesDep,
    principal: PrincipalDep,
    version: VersionNumber | None = None,
) -> WorkspaceResponse:
    """Show one version of a workspace, the latest unless another is asked for."""
    wanted = Version(version) if version is not None else None
    async with services.database.read() as connection:
        enforced = dict((await enforced_now(connection, principal.tenant)).workspaces)
        workspace, found = await load_version(
            connection, principal.tenant, WorkspaceName(name), wanted
        )
    summary = _summary(workspace, found, enforced.get(workspace.name))
    same = {key: value for key, value in summary if key != "policies"}
    if isinstance(workspace, ImportedWorkspace):
        held = _kubernetes_policies(workspace.policies)
        return WorkspaceResponse(**same, clusters=[], policies=[], kubernetes_policies=held)
    return WorkspaceResponse(
        **same,
        clusters=[
            ClusterResponse(name=cluster.name, query=str(cluster.query))
            for cluster in workspace.clusters
        ],
        policies=[_policy(policy) for policy in _in_order(workspace.policies)],
        kubernetes_policies=[],
    )


def _summary(
    workspace: Workspace | ImportedWorkspace, version: int, enforced: int | None
) -> WorkspaceSummary:
    return WorkspaceSummary(
        name=workspace.name,
        kubernetes_cluster=workspace.cluster if isinstance(workspace, ImportedWorkspace) else None,
        scope=workspace.scope,
        primary=workspace.primary,
        version=version,
        enforced=enforced,
        policies=len(workspace.policies),
        catch_all=_catch_all(workspace) if isinstance(workspace, Workspace) else None,
        denied=workspace.denied if isinstance(workspace, Workspace) else Denied.DROP,
    )


_TIERS = (Stage.ADMIN, Stage.NETWORK_POLICY, Stage.BASELINE)


def _kubernetes_policies(held: Iterable[HeldPolicy]) -> list[KubernetesPolicyResponse]:
    """Tier by tier, in a tier by priority and name."""

    def place(one: HeldPolicy) -> tuple[int, int, str]:
        return _TIERS.index(one.policy.stage), one.policy.priority, one.policy.display

    return [
        KubernetesPolicyResponse(
            id=one.policy.display,
            tier=one.policy.stage,
            priority=None if one.policy.isolates else one.policy.priority,
            rules=len(one.policy.rules),
            isolates=sorted(one.policy.isolates),
            problem=one.problem or None,
            manifest=json.loads(one.manifest),
        )
        for one in sorted(held, key=place)
    ]


def _catch_all(workspace: Workspace) -> CatchAllResponse:
    return CatchAllResponse(
        inbound=workspace.catch_all.inbound, outbound=workspace.catch_all.outbound
    )


def _in_order(policies: Iterable[Policy]) -> list[Policy]:
    """Absolute before default, the smaller priority first, then by position."""
    return sorted(policies, key=lambda one: (one.rank is not Rank.ABSOLUTE, one.priority))


def _policy(policy: Policy) -> PolicyResponse:
    return PolicyResponse(
        id=policy.id,
        description=policy.description,
        rank=policy.rank,
        priority=policy.priority,
        action=policy.action,
        consumer=_end(policy.consumer),
        provider=_end(policy.provider),
        protocol=format_protocol(policy.protocol),
        ports=[str(ports) for ports in policy.ports],
        owner=policy.owner,
        ticket=policy.ticket,
        expires_at=None if policy.expires_ns is None else format_time(policy.expires_ns),
        approved=policy.approved,
        icmp=[format_icmp_type(policy.protocol, one) for one in policy.icmp],
    )


def _end(end: End) -> str:
    match end:
        case ServiceEnd(namespace, name, cluster):
            return f"service {namespace}/{name}{f' of {cluster}' if cluster else ''}"
        case CidrEnd(networks, exceptions):
            text = ", ".join(map(str, networks))
            return f"{text} except {', '.join(map(str, exceptions))}" if exceptions else text
        case OwnNodeEnd():
            return "own node"
        case ApiServerEnd(cluster):
            return f"API server{f' of {cluster}' if cluster else ''}"
        case OutsideEnd():
            return "any host outside"
        case _:
            return _named(end)


def _named(
    end: ScopeEnd | ClusterEnd | FilterEnd | NamedFilterEnd | AddressSetEnd | FqdnEnd,
) -> str:
    match end:
        case ScopeEnd(scope):
            return f"scope {scope}"
        case ClusterEnd(name):
            return f"cluster {name}"
        case FilterEnd(query):
            return str(query)
        case NamedFilterEnd(filter_name):
            return f"filter {filter_name}"
        case AddressSetEnd(set_name):
            return f"address set {set_name}"
        case FqdnEnd(name):
            return name
