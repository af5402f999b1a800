"""Who is asking: people and programs by their token, agents and connectors by their certificate."""

from dataclasses import dataclass
from enum import StrEnum

from ringfence.model.client import ClientKind
from ringfence.model.ids import ClusterId, TenantId

ITSELF = "ringfence"
"""The name under which the control plane itself stands in the audit trail."""


class Role(StrEnum):
    """What the bearer of an API token may do."""

    ADMIN = "admin"
    VIEWER = "viewer"


@dataclass(frozen=True, slots=True)
class Principal:
    """The bearer of an API token. `expires_ns` is epoch ns, None for a token without an end."""

    actor: str
    tenant: TenantId
    role: Role
    expires_ns: int | None


@dataclass(frozen=True, slots=True)
class ClientIdentity:
    """An agent or a connector, as its certificate says.

    `name` is the node's name for an agent; `kubernetes_cluster` is empty outside Kubernetes.
    """

    kind: ClientKind
    name: str
    kubernetes_cluster: ClusterId
    tenant: TenantId
