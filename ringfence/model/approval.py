"""Answers to requests between workspaces, given by people or by the rules that they made."""

from dataclasses import dataclass
from enum import StrEnum

from ringfence.model.ids import ScopeName, WorkspaceName
from ringfence.model.protocol import PortRange
from ringfence.model.query import Query


class State(StrEnum):
    """What became of a request."""

    PENDING = "pending"
    APPROVED = "approved"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True)
class ApprovalRule:
    """Approves what workspaces of `scope`, and below it, ask of a workspace.

    Only for their own workloads, and only where a catch-all denies: what a policy of the provider
    denies is for a person to decide. `provider` None means every workload; `protocol` None means
    any, empty `ports` all ports.
    """

    id: str
    provider_workspace: WorkspaceName
    scope: ScopeName
    provider: Query | None
    protocol: int | None
    ports: tuple[PortRange, ...]
    actor: str
    created_ns: int
