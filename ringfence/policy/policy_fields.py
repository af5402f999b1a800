"""A policy and its ends as fields of a document."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from ringfence.model.address import Network, parse_network
from ringfence.model.errors import InputError
from ringfence.model.evidence import Evidence
from ringfence.model.fqdn import parse_fqdn
from ringfence.model.icmp import format_icmp_type, parse_icmp_type
from ringfence.model.ids import AddressSetName, FilterName, PolicyId, ScopeName
from ringfence.model.keys import parse_filter
from ringfence.model.policy import (
    SPOKEN_BY_POLICIES,
    Action,
    AddressSetEnd,
    ApiServerEnd,
    CidrEnd,
    ClusterEnd,
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
)
from ringfence.model.protocol import Port, PortRange, format_protocol, parse_port, parse_protocol
from ringfence.policy.fields import Field, format_instant, suggest
from ringfence.policy.yaml_text import Flow, Inline

DEFAULT_NAMESPACE = "default"
"""The namespace of a Service that is named without one, as for kubectl."""
OWN = "own"
"""The node, or the API server, that the other end's place says."""
OUTSIDE = "outside"

_BESIDE = {"kubernetesCluster": "service", "except": "cidr"}
DEFAULT_PRIORITY = 100
_POLICY_FIELDS = (
    "id",
    "description",
    "owner",
    "ticket",
    "expires",
    "approved",
    "review",
    "rank",
    "priority",
    "action",
    "consumer",
    "provider",
    "protocol",
    "ports",
    "icmp",
    "evidence",
)


@dataclass(frozen=True, slots=True)
class Reference:
    """A name in a document, of a scope, a filter or an address set that must be somewhere."""

    kind: str
    name: str
    field: Field


def refer(kind: str, field: Field, references: list[Reference]) -> str:
    """The name that a field has of a document, noted as a reference."""
    name = field.name()
    references.append(Reference(kind, name, field))
    return name


def read_policy(field: Field, clusters: Sequence[str], references: list[Reference]) -> Policy:
    """Read a policy of a workspace with these clusters, noting its references.

    Raises DocumentError.
    """
    needed = ("id", "action", "consumer", "provider", "protocol")
    given = field.required(_POLICY_FIELDS, *needed)
    consumer, provider = (
        _end(given[end], clusters, references) for end in ("consumer", "provider")
    )
    protocol = given["protocol"].read(parse_protocol, given["protocol"].word())
    ports = tuple(port.read(parse_port, port.word()) for port in listed(given, "ports"))
    parse_icmp = partial(parse_icmp_type, protocol)
    icmp = tuple(one.read(parse_icmp, one.word()) for one in listed(given, "icmp"))
    said = PolicyId(given["id"].name()), consumer, provider, protocol, ports
    action = Action(given["action"].choice(SPOKEN_BY_POLICIES))
    rank = Rank(given["rank"].choice(Rank)) if "rank" in given else Rank.DEFAULT
    priority = given["priority"].integer() if "priority" in given else DEFAULT_PRIORITY
    description, owner, ticket = (
        given[name].text() if name in given else "" for name in ("description", "owner", "ticket")
    )
    review = given["review"].text() if "review" in given else ""
    evidence = _evidence(given["evidence"]) if "evidence" in given else None
    expires_ns = given["expires"].instant() if "expires" in given else None
    approved = "approved" in given and given["approved"].boolean()
    try:
        return Policy(
            *said,
            action,
            rank,
            priority,
            description,
            icmp,
            owner,
            ticket,
            expires_ns,
            approved,
            review,
            evidence,
        )
    except InputError as error:
        raise field.error(str(error)) from error


def _evidence(field: Field) -> Evidence:
    needed = ("conversations", "intervals", "sources", "bytes", "first", "last", "confidence")
    given = field.required((*needed, "why"), *needed)
    try:
        return Evidence(
            conversations=given["conversations"].count(),
            intervals=given["intervals"].count(),
            sources=given["sources"].count(),
            bytes=given["bytes"].count(),
            first_ns=given["first"].instant(),
            last_ns=given["last"].instant(),
            confidence=given["confidence"].fraction(),
            why=given["why"].text() if "why" in given else "",
        )
    except InputError as error:
        raise field.error(str(error)) from error


def _evidence_spec(evidence: Evidence) -> Inline:
    return Inline(
        conversations=evidence.conversations,
        intervals=evidence.intervals,
        sources=evidence.sources,
        bytes=evidence.bytes,
        first=format_instant(evidence.first_ns),
        last=format_instant(evidence.last_ns),
        confidence=evidence.confidence,
        **({"why": evidence.why} if evidence.why else {}),
    )


def listed(given: Mapping[str, Field], name: str) -> list[Field]:
    """The entries of an optional list; one that is there must not be empty, lest it mean all."""
    entries = list(given[name].one_or_more()) if name in given else []
    if name in given and not entries:
        raise given[name].error("is an empty list; leave it out or name something")
    return entries


def _end(field: Field, clusters: Sequence[str], references: list[Reference]) -> End:
    given = field.fields((*_END_KINDS, *_BESIDE))
    kinds = [kind for kind in _END_KINDS if kind in given]
    if len(kinds) != 1:
        raise field.error(f"an end is exactly one of {', '.join(_END_KINDS)}")
    value = given[kinds[0]]
    for beside, owner in _BESIDE.items():
        if beside in given and owner not in given:
            raise given[beside].error(f"goes with {owner!r} only")
    return _END_KINDS[kinds[0]](_Written(value, given, clusters, references))


@dataclass(frozen=True)
class _Written:
    """An end in the making: its value, what is beside it, and the workspace's clusters."""

    value: Field
    beside: Mapping[str, Field]
    clusters: Sequence[str]
    references: list[Reference]

    def scope(self) -> End:
        return ScopeEnd(ScopeName(self._refer("scope")))

    def named_filter(self) -> End:
        return NamedFilterEnd(FilterName(self._refer("filter")))

    def address_set(self) -> End:
        return AddressSetEnd(AddressSetName(self._refer("address set")))

    def _refer(self, kind: str) -> str:
        return refer(kind, self.value, self.references)

    def cluster(self) -> End:
        name = self.value.name()
        if name not in self.clusters:
            mend = suggest(name, self.clusters)
            raise self.value.error(f"the workspace has no cluster {name!r}{mend}")
        return ClusterEnd(name)

    def service(self) -> End:
        namespace, slash, name = self.value.name().rpartition("/")
        if not name or "/" in namespace or (slash and not namespace):
            raise self.value.error("write a Service as name or namespace/name")
        where = self.beside.get("kubernetesCluster")
        return ServiceEnd(namespace or DEFAULT_NAMESPACE, name, where.name() if where else "")

    def cidr(self) -> End:
        return CidrEnd(self._networks("cidr"), self._networks("except"))

    def api_server(self) -> End:
        name = self.value.name()
        return ApiServerEnd("" if name == OWN else name)

    def node(self) -> End:
        self.value.choice([OWN])
        return OwnNodeEnd()

    def host(self) -> End:
        self.value.choice([OUTSIDE])
        return OutsideEnd()

    def _networks(self, name: str) -> tuple[Network, ...]:
        return tuple(one.read(parse_network, one.text()) for one in listed(self.beside, name))


_END_KINDS: Mapping[str, Callable[[_Written], End]] = {
    "scope": _Written.scope,
    "cluster": _Written.cluster,
    "filter": lambda written: FilterEnd(written.value.read(parse_filter, written.value.text())),
    "namedFilter": _Written.named_filter,
    "service": _Written.service,
    "cidr": _Written.cidr,
    "addressSet": _Written.address_set,
    "fqdn": lambda written: FqdnEnd(written.value.read(parse_fqdn, written.value.text())),
    "node": _Written.node,
    "apiServer": _Written.api_server,
    "host": _Written.host,
}


def policy_spec(policy: Policy) -> dict[str, Any]:
    """What stands for the policy in its workspace."""
    ports = Flow(map(format_ports, policy.ports))
    icmp = Flow(_number_or_text(format_icmp_type(policy.protocol, one)) for one in policy.icmp)
    return {
        "id": policy.id,
        **({"description": policy.description} if policy.description else {}),
        **({"owner": policy.owner} if policy.owner else {}),
        **({"ticket": policy.ticket} if policy.ticket else {}),
        **({} if policy.expires_ns is None else {"expires": format_instant(policy.expires_ns)}),
        **({"approved": True} if policy.approved else {}),
        **({"review": policy.review} if policy.review else {}),
        **({"rank": str(policy.rank)} if policy.rank is not Rank.DEFAULT else {}),
        **({"priority": policy.priority} if policy.priority != DEFAULT_PRIORITY else {}),
        "action": str(policy.action),
        "consumer": _end_spec(policy.consumer),
        "provider": _end_spec(policy.provider),
        "protocol": format_protocol(policy.protocol),
        **({"ports": ports} if ports else {}),
        **({"icmp": icmp} if icmp else {}),
        **({"evidence": _evidence_spec(policy.evidence)} if policy.evidence else {}),
    }


def _end_spec(end: End) -> Inline:
    match end:
        case ServiceEnd(namespace, name, kubernetes_cluster):
            where = {"kubernetesCluster": kubernetes_cluster} if kubernetes_cluster else {}
            return Inline(service=f"{namespace}/{name}", **where)
        case CidrEnd(networks, exceptions):
            excepted = {"except": _one_or_list(exceptions)} if exceptions else {}
            return Inline(cidr=_one_or_list(networks), **excepted)
        case OwnNodeEnd():
            return Inline(node=OWN)
        case ApiServerEnd(kubernetes_cluster):
            return Inline(apiServer=kubernetes_cluster or OWN)
        case OutsideEnd():
            return Inline(host=OUTSIDE)
        case _:
            return _named_spec(end)


def _named_spec(
    end: ScopeEnd | ClusterEnd | FilterEnd | NamedFilterEnd | AddressSetEnd | FqdnEnd,
) -> Inline:
    match end:
        case ScopeEnd(scope):
            return Inline(scope=scope)
        case ClusterEnd(name):
            return Inline(cluster=name)
        case FilterEnd(query):
            return Inline(filter=str(query))
        case NamedFilterEnd(filter_name):
            return Inline(namedFilter=filter_name)
        case AddressSetEnd(set_name):
            return Inline(addressSet=set_name)
        case FqdnEnd(name):
            return Inline(fqdn=name)


def format_ports(port: Port) -> str | int:
    """Ports as they stand in a document."""
    return port.first if isinstance(port, PortRange) and port.first == port.last else str(port)


def _number_or_text(text: str) -> str | int:
    return int(text) if text.isdecimal() else text


def _one_or_list(networks: tuple[Network, ...]) -> str | Flow:
    return str(networks[0]) if len(networks) == 1 else Flow(map(str, networks))
