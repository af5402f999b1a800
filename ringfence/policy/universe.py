"""One inventory that stands for every inventory, as far as some documents can tell them apart.

It has a workload for each combination of what the documents ask about workloads: for each key a
value that they name, another one or none. What cannot be listed, such as a regular expression, is
asked of a made-up key instead, as if any answer could go with any other. CIDR blocks become blocks
of their own, one for each part of the address space that they tell apart, and each workload has an
address in each. Services have a port between any two that are named.

A policy that others shadow here is shadowed whatever the inventory, as long as a workload has one
value for each key. More may be shadowed in a real one. A DENY towards a Service is the exception:
every Service that is named is here, and where one is missing such a policy means everybody.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise, product
from math import prod

from ringfence.model import labels
from ringfence.model.address import Address, Network
from ringfence.model.errors import InputError
from ringfence.model.ids import NO_CLUSTER, item_key
from ringfence.model.policy import (
    AddressSetEnd,
    ApiServerEnd,
    CidrEnd,
    Cluster,
    End,
    FilterEnd,
    FqdnEnd,
    OutsideEnd,
    Policy,
    ServiceEnd,
    Workspace,
)
from ringfence.model.protocol import WITH_PORTS, PortRange
from ringfence.model.query import And, Compare, Not, Operator, Or, Query
from ringfence.model.workload import (
    WORKLOAD_KINDS,
    Item,
    ItemKind,
    ServicePort,
    ServiceSpec,
    ServiceType,
)
from ringfence.policy.document import Documents

LARGEST = 50_000
"""Addresses of workloads; documents that tell more apart are refused."""
_ELSE = "\0else"
"""A value that no document names."""
_YES = "yes"
_LISTED = frozenset({Operator.EQ, Operator.NE, Operator.IN, Operator.EXISTS})
_BLOCK = 64
"""The blocks' prefix length: each has more addresses than there are workloads."""


def universe(documents: Documents) -> tuple[Documents, list[Item]]:
    """The documents, rewritten, and the inventory that stands for all; raises InputError.

    Left out are policies of which nothing can be said without an inventory: those with address
    sets, names in DNS or of ports, with Services of one Kubernetes cluster among several, API
    servers, and hosts outside.
    """
    kept = tuple(
        replace(one, policies=tuple(filter(_is_sayable, one.policies)))
        for one in documents.workspaces
    )
    rewriting = _Rewriting(kept)
    scopes = tuple(replace(scope, query=rewriting.query(scope.query)) for scope in documents.scopes)
    filters = tuple(replace(one, query=rewriting.query(one.query)) for one in documents.filters)
    workspaces = tuple(map(rewriting.workspace, kept))
    return Documents(scopes, workspaces, filters), [
        *rewriting.workloads(),
        *_services(kept),
    ]


def _is_sayable(policy: Policy) -> bool:
    ends = policy.consumer, policy.provider
    untold = FqdnEnd | AddressSetEnd | ApiServerEnd | OutsideEnd
    return all(isinstance(port, PortRange) for port in policy.ports) and not any(
        isinstance(end, untold) or (isinstance(end, ServiceEnd) and end.kubernetes_cluster)
        for end in ends
    )


@dataclass
class _Rewriting:
    """Rewrites documents, and learns which workloads they tell apart."""

    workspaces: tuple[Workspace, ...]
    _values: dict[str, set[str]] = field(default_factory=dict)
    _made_up: dict[Compare, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        cuts: set[int] = set()
        for end in _ends(self.workspaces):
            if isinstance(end, CidrEnd):
                for first, last in end.ranges:
                    cuts |= {first, last + 1}
        self._parts = list(pairwise(sorted(cuts)))

    def workspace(self, workspace: Workspace) -> Workspace:
        """The workspace, asking what can be answered."""
        return replace(
            workspace,
            clusters=tuple(Cluster(one.name, self.query(one.query)) for one in workspace.clusters),
            policies=tuple(
                replace(one, consumer=self._end(one.consumer), provider=self._end(one.provider))
                for one in workspace.policies
            ),
        )

    def query(self, query: Query) -> Query:
        """The query, asking what can be answered."""
        match query:
            case And(parts):
                return And(tuple(map(self.query, parts)))
            case Or(parts):
                return Or(tuple(map(self.query, parts)))
            case Not(inner):
                return Not(self.query(inner))
            case Compare(key, operator, values) if key != labels.ADDRESS and operator in _LISTED:
                self._values.setdefault(key, set()).update(values)
                return query
            case Compare():
                key = self._made_up.setdefault(query, f"made-up.{len(self._made_up)}")
                return Compare(key, Operator.EQ, (_YES,))
            case _:
                return query

    def workloads(self) -> Iterator[Item]:
        """Each combination of answers, with an address in each block and one in none."""
        kinds = sorted(WORKLOAD_KINDS)
        asked: dict[str, list[str | None]] = {
            key: [*sorted(values), _ELSE, None]
            for key, values in self._values.items()
            if key != labels.KIND
        }
        asked |= {key: [_YES, None] for key in self._made_up.values()}
        blocks = len(self._parts) + 1
        if len(kinds) * prod(map(len, asked.values())) * blocks > LARGEST:
            raise InputError(
                "filters and CIDR blocks tell too many workloads apart to go through them all: "
                "give an inventory"
            )
        for number, (kind, answers) in enumerate(product(kinds, product(*asked.values()))):
            answered = zip(asked, answers, strict=True)
            pairs = [(key, answer) for key, answer in answered if answer is not None]
            yield Item(
                item_key(NO_CLUSTER, kind, str(number)),
                kind,
                NO_CLUSTER,
                "",
                str(number),
                tuple(_address(block, number) for block in range(blocks)),
                labels.make_labels([(labels.KIND, kind), *pairs]),
            )

    def _end(self, end: End) -> End:
        match end:
            case FilterEnd(query):
                return FilterEnd(self.query(query))
            case CidrEnd():
                return CidrEnd(tuple(self._blocks(end)))
            case _:
                return end

    def _blocks(self, end: CidrEnd) -> Iterator[Network]:
        ranges = end.ranges
        for block, (first, after) in enumerate(self._parts, start=1):
            if any(low <= first and after - 1 <= high for low, high in ranges):
                yield Network(_address(block, 0), _BLOCK)


def _ends(workspaces: Iterable[Workspace]) -> Iterator[End]:
    for workspace in workspaces:
        for policy in workspace.policies:
            yield policy.consumer
            yield policy.provider


def _address(block: int, number: int) -> Address:
    return Address(((0x2001 << 112) + (block << _BLOCK) + number).to_bytes(16))


def _services(workspaces: Iterable[Workspace]) -> Iterator[Item]:
    """Each Service that is named, with ports so that any two that are named apart differ."""
    cuts: dict[tuple[str, str], set[int]] = {}
    for workspace in workspaces:
        for policy in workspace.policies:
            if isinstance(policy.provider, ServiceEnd):
                named = policy.provider.namespace, policy.provider.name
                bounds = cuts.setdefault(named, {0})
                ranges = [part for part in policy.ports if isinstance(part, PortRange)]
                bounds |= {part.first for part in ranges}
                bounds |= {part.last + 1 for part in ranges if part.last < 65535}  # noqa: PLR2004
    for number, ((namespace, name), ports) in enumerate(sorted(cuts.items())):
        yield Item(
            item_key(NO_CLUSTER, ItemKind.SERVICE, f"{namespace}/{name}"),
            ItemKind.SERVICE,
            NO_CLUSTER,
            namespace,
            name,
            (Address(((0x2002 << 112) + number).to_bytes(16)),),
            {},
            service=ServiceSpec(
                ServiceType.CLUSTER_IP,
                tuple(
                    ServicePort(f"{protocol}-{port}", protocol, port)
                    for protocol in sorted(WITH_PORTS)
                    for port in sorted(ports)
                ),
            ),
        )
