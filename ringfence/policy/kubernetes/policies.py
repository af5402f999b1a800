"""Kubernetes' policies in one form, whatever kind and version they were written in.

What upstream leaves to defaults is written out here: an absent list of peers is `None`, which is
everyone, an empty selector one without requirements, which selects all.
"""

from dataclasses import dataclass
from enum import StrEnum

from ringfence.model.address import Network
from ringfence.model.policy import Action, Direction
from ringfence.model.protocol import PortRange
from ringfence.model.verdict import Stage


class Requires(StrEnum):
    """The operators of a label selector; EQUALS is what matchLabels ask."""

    EQUALS = "="
    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"


@dataclass(frozen=True, slots=True, order=True)
class Requirement:
    """One requirement of a label selector; NOT_IN holds also where the key is absent."""

    key: str
    operator: Requires
    values: tuple[str, ...] = ()


Selector = tuple[Requirement, ...]
"""All of the requirements; none select everything."""


@dataclass(frozen=True, slots=True)
class Pods:
    """Pods with an address of their own, in one namespace or in the selected ones."""

    namespaces: str | Selector
    pods: Selector = ()


@dataclass(frozen=True, slots=True)
class Nodes:
    """Nodes, and the host-network pods that share their addresses."""

    nodes: Selector


@dataclass(frozen=True, slots=True)
class Networks:
    """Addresses, those of pods and nodes too."""

    networks: tuple[Network, ...]
    exceptions: tuple[Network, ...] = ()


@dataclass(frozen=True, slots=True)
class UnknownPeer:
    """A peer of which nothing is known: a field of a later version, or a domain name.

    An ALLOW of it matches nothing; a DENY or PASS of it denies all (network-policy-api: fail
    closed).
    """


Peer = Pods | Nodes | Networks | UnknownPeer


@dataclass(frozen=True, slots=True)
class Ports:
    """Any of the ranges of a protocol, all its ports where there are none."""

    protocol: int
    ranges: tuple[PortRange, ...] = ()


@dataclass(frozen=True, slots=True)
class NamedPort:
    """The container port of that name at the destination pod; `protocol` None is any."""

    protocol: int | None
    name: str


@dataclass(frozen=True, slots=True)
class PolicyRule:
    """A rule of a policy; `name` tells where it stands in it, such as `ingress[0]`.

    `peers` and `ports` None are everyone and everything; `()` is nobody and nothing. `title` is
    what its author calls it, for the kinds that have a place for that.
    """

    name: str
    direction: Direction
    action: Action
    peers: tuple[Peer, ...] | None
    ports: tuple[Ports | NamedPort, ...] | None
    title: str = ""


@dataclass(frozen=True, slots=True)
class KubernetesPolicy:
    """A policy of any kind: `stage` is ADMIN, NETWORK_POLICY or BASELINE.

    `isolates` has the directions in which a NetworkPolicy denies what no NetworkPolicy allows; it
    is empty, and `priority` counts, for the other kinds.
    """

    stage: Stage
    kind: str
    namespace: str
    name: str
    subject: Pods
    rules: tuple[PolicyRule, ...]
    priority: int = 0
    isolates: frozenset[Direction] = frozenset()

    @property
    def display(self) -> str:
        """`kind/namespace/name`, or `kind/name` of one that is in no namespace."""
        return "/".join(part for part in (self.kind, self.namespace, self.name) if part)
