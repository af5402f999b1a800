"""The fields of Kubernetes' policy objects that are read, as their APIs name and type them.

networking.k8s.io/v1; policy.networking.k8s.io/v1alpha1, v1alpha2 and v1beta1, which has the fields
of v1alpha2. Peers of the latter group stay untyped: one of a kind that is not known here is told
from one that says nothing.
"""

from typing import Any

import msgspec


class _Struct(msgspec.Struct, rename="camel", frozen=True):
    pass


class Metadata(_Struct, frozen=True):
    """ObjectMeta."""

    name: str
    namespace: str | None = None


class LabelSelectorRequirement(_Struct, frozen=True):
    """An item of matchExpressions."""

    key: str
    operator: str
    values: list[str] | None = None


class LabelSelector(_Struct, frozen=True):
    """A query over labels; empty, it selects all."""

    match_labels: dict[str, str] | None = None
    match_expressions: list[LabelSelectorRequirement] | None = None


class IPBlock(_Struct, frozen=True):
    """Addresses, with holes."""

    cidr: str
    except_: list[str] | None = msgspec.field(name="except", default=None)


class NetworkPolicyPeer(_Struct, frozen=True):
    """One of selectors or ipBlock."""

    pod_selector: LabelSelector | None = None
    namespace_selector: LabelSelector | None = None
    ip_block: IPBlock | None = None


class NetworkPolicyPort(_Struct, frozen=True):
    """A port, a range, or all ports of a protocol."""

    protocol: str | None = None
    port: int | str | None = None
    end_port: int | None = None


class IngressRule(_Struct, frozen=True):
    """Who may connect to the pods."""

    from_: list[NetworkPolicyPeer] | None = msgspec.field(name="from", default=None)
    ports: list[NetworkPolicyPort] | None = None


class EgressRule(_Struct, frozen=True):
    """To whom the pods may connect."""

    to: list[NetworkPolicyPeer] | None = None
    ports: list[NetworkPolicyPort] | None = None


class NetworkPolicySpec(_Struct, frozen=True):
    """What a NetworkPolicy says."""

    pod_selector: LabelSelector = LabelSelector()
    policy_types: list[str] | None = None
    ingress: list[IngressRule] | None = None
    egress: list[EgressRule] | None = None


class NetworkPolicy(_Struct, frozen=True):
    """networking.k8s.io/v1."""

    metadata: Metadata
    spec: NetworkPolicySpec = NetworkPolicySpec()


class NamespacedPods(_Struct, frozen=True):
    """Pods of selected namespaces."""

    namespace_selector: LabelSelector = LabelSelector()
    pod_selector: LabelSelector = LabelSelector()


class Subject(_Struct, frozen=True):
    """One of namespaces or pods."""

    namespaces: LabelSelector | None = None
    pods: NamespacedPods | None = None


class PortRange(_Struct, frozen=True):
    """Ports start to end, both included."""

    start: int
    end: int
    protocol: str = "TCP"


class PortNumber(_Struct, frozen=True):
    """One port."""

    port: int
    protocol: str = "TCP"


class AdminPort(_Struct, frozen=True):
    """One of its fields (v1alpha1)."""

    port_number: PortNumber | None = None
    port_range: PortRange | None = None
    named_port: str | None = None


class DestinationPort(_Struct, frozen=True):
    """One of number or range."""

    number: int | None = None
    range: PortRange | None = None


class TransportPorts(_Struct, frozen=True):
    """Ports of a transport protocol, all where there are none."""

    destination_port: DestinationPort | None = None


class ClusterProtocol(_Struct, frozen=True):
    """One of its fields (v1alpha2)."""

    tcp: TransportPorts | None = None
    udp: TransportPorts | None = None
    sctp: TransportPorts | None = None
    destination_named_port: str | None = None


class TieredRule(_Struct, frozen=True):
    """A rule of either version: v1alpha1 has ports, v1alpha2 protocols."""

    action: str
    name: str = ""
    from_: list[dict[str, Any]] | None = msgspec.field(name="from", default=None)
    to: list[dict[str, Any]] | None = None
    ports: list[AdminPort] | None = None
    protocols: list[ClusterProtocol] | None = None


class TieredSpec(_Struct, frozen=True):
    """What a policy above or below NetworkPolicy says; a tier only in v1alpha2."""

    subject: Subject
    tier: str | None = None
    priority: int | None = None
    ingress: list[TieredRule] | None = None
    egress: list[TieredRule] | None = None


class TieredPolicy(_Struct, frozen=True):
    """A policy above or below NetworkPolicy."""

    metadata: Metadata
    spec: TieredSpec
