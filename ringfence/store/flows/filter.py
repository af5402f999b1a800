"""Filters over flows: the one grammar, turned into a condition on hops with bound parameters.

`consumer.KEY` and `provider.KEY` test one end's labels, a bare KEY either end's. Flow attributes
are protocol, port, bytes, packets, method, connection and disposition, drop attributes protocol,
port and packets. Labels become sets of inventory revisions, so that what a pod was called at the
time of the flow is what counts; dispositions become sets of connections, for `flows.disposition`
alone says what they are. `address.type` becomes ranges of addresses (`outside`). What agents tell
of a flow's ends (`flows.told`) is in the row.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ringfence.flows.told import TOLD, TOLD_OF_EITHER
from ringfence.inventory.outside import TYPES, ApiServer
from ringfence.model.address import Network, format_address, parse_network
from ringfence.model.errors import InputError
from ringfence.model.flow import Disposition, parse_connection
from ringfence.model.labels import ADDRESS, ADDRESS_TYPE
from ringfence.model.protocol import parse_one_protocol
from ringfence.model.query import (
    And,
    Compare,
    Everything,
    Not,
    Operator,
    Or,
    Query,
    value_matches,
)
from ringfence.store.flows.outside import API_SERVERS, as_parameter, has_type

Revisions = Callable[[Query], Iterable[int]]
"""The inventory revisions whose labels satisfy a query."""

DISPOSITION = "disposition"
ENDS = ("consumer", "provider")
ATTRIBUTES = ("protocol", "port", "bytes", "packets", "method", "connection", DISPOSITION)
FLOW_KEYS = (*ATTRIBUTES, *TOLD, *TOLD_OF_EITHER)
"""All that flows are filtered by besides the labels of the inventory."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Where a kind of rows keeps what filters speak of.

    `ends` has for each end the address column and the revision columns, `attributes` the columns
    of all attributes but the disposition, `told` those of what agents tell of ends.
    """

    rows: str
    ends: Mapping[str, tuple[str, tuple[str, ...]]]
    attributes: Mapping[str, tuple[str, ...]]
    told: Mapping[str, str] = field(default_factory=dict)


OF_HOP = Columns(
    "flows",
    {
        "consumer": ("first_consumer", ("first_consumer_revision",)),
        "provider": ("provider", ("provider_revision", "dialled_revision")),
    },
    {
        "protocol": ("protocol",),
        "port": ("provider_port", "dialled_port"),
        "bytes": ("forward_bytes + reverse_bytes",),
        "packets": ("forward_packets + reverse_packets",),
        "method": ("method",),
        "connection": ("connection",),
    },
    TOLD,
)
OF_DROP = Columns(
    "drops",
    {
        "consumer": ("consumer", ("consumer_revision",)),
        "provider": ("provider", ("provider_revision",)),
    },
    {"protocol": ("protocol",), "port": ("provider_port",), "packets": ("packets",)},
)
_V4 = parse_network("0.0.0.0/0")
"""Lies within `::/0` in the columns, but no address is of both families."""
_COMPARED = {
    Operator.EQ: "=",
    Operator.LT: "<",
    Operator.LE: "<=",
    Operator.GT: ">",
    Operator.GE: ">=",
}


class Condition:
    """A filter as SQL over the columns of a hop or a drop, with the parameters it binds.

    `connections` are those of each disposition; only a filter with that key needs them, as one
    with `address.type` needs `api_servers`.
    """

    def __init__(
        self,
        query: Query,
        revisions: Revisions,
        columns: Columns,
        connections: Mapping[Disposition, Iterable[int]] | None = None,
        api_servers: Iterable[ApiServer] = (),
    ) -> None:
        self.parameters: dict[str, Any] = {}
        self._columns = columns
        self._revisions = revisions
        self._connections = connections
        self._api_servers = api_servers
        self.sql = self._write(query)

    def also(self, query: Query) -> str:
        """Another filter as SQL, with parameters beside the first one's."""
        return self._write(query)

    def _write(self, query: Query) -> str:
        match query:
            case Everything():
                return "true"
            case And(queries):
                return " AND ".join(f"({self._write(part)})" for part in queries)
            case Or(queries):
                return " OR ".join(f"({self._write(part)})" for part in queries)
            case Not(inner):
                return f"NOT ({self._write(inner)})"
            case Compare(key, Operator.NE, values):
                return f"NOT ({self._compare(Compare(key, Operator.EQ, values))})"
            case Compare():
                return self._compare(query)

    def _compare(self, compare: Compare) -> str:
        end, _, key = compare.key.partition(".")
        if end in ENDS and key:
            return self._end(end, Compare(key, compare.operator, compare.values))
        if compare.key not in ATTRIBUTES:
            return self._any_of(self._end(end, compare) for end in ENDS)
        if compare.key == DISPOSITION and self._connections is not None:
            return self._any_of(self._disposed(value) for value in _words(compare))
        if compare.key not in self._columns.attributes:
            raise InputError(
                f"{self._columns.rows} have no {compare.key}: filter them by labels, "
                f"{', '.join(self._columns.attributes)}"
            )
        columns = self._columns.attributes[compare.key]
        if compare.key == "protocol":
            numbers = tuple(str(parse_one_protocol(value)) for value in _words(compare))
            compare = Compare(compare.key, Operator.IN, numbers)
        if compare.key == "method":
            return f"method IN {self._bind('Array(String)', list(_words(compare)))}"
        if compare.key == "connection":
            chosen = [parse_connection(value) for value in _words(compare)]
            return f"connection IN {self._bind('Array(UInt64)', chosen)}"
        return self._any_of(self._number(column, compare) for column in columns)

    def _disposed(self, value: str) -> str:
        known = self._connections or {}
        chosen = [int(one) for one in known.get(_disposition(value), ())]
        return f"connection IN {self._bind('Array(UInt64)', chosen)}"

    def _end(self, end: str, compare: Compare) -> str:
        if compare.key in TOLD_OF_EITHER:
            return self._told(end, compare)
        address, columns = self._columns.ends[end]
        if compare.key == ADDRESS_TYPE:
            return self._of_type(address, compare)
        if compare.key == ADDRESS and compare.operator in (
            Operator.EQ, Operator.IN, Operator.SUBNET,
        ):  # fmt: skip
            # An address outside the inventory has no labels, but is what it is.
            return self._any_of(self._within(address, value) for value in compare.values)
        chosen = self._bind("Array(UInt64)", [int(one) for one in self._revisions(compare)])
        return self._any_of(f"{column} IN {chosen}" for column in columns)

    def _told(self, end: str, compare: Compare) -> str:
        if not self._columns.told:
            raise InputError(f"{self._columns.rows} have no {compare.key}")
        column = self._columns.told.get(f"{end}.{compare.key}")
        if column is None:
            return "false"
        known = f"{column} != defaultValueOfArgumentType({column})"
        if compare.operator is Operator.EXISTS:
            return known
        is_number = column.endswith("_pid")
        matches = self._number(column, compare) if is_number else self._text(column, compare)
        return f"{known} AND ({matches})"

    def _of_type(self, address: str, compare: Compare) -> str:
        if compare.operator in (Operator.EQ, Operator.IN):
            unknown = set(compare.values) - set(TYPES)
            if unknown:
                raise InputError(
                    f"{min(unknown)!r} is no type of address: write {', '.join(TYPES)}"
                )
        self.parameters[API_SERVERS] = as_parameter(self._api_servers)
        chosen = [has_type(address, one) for one in TYPES if value_matches(compare, one)]
        return self._any_of(chosen) or "false"

    def _within(self, column: str, value: str) -> str:
        network = parse_network(value)
        within = self._between(column, network)
        return within if network.is_v4 else f"{within} AND NOT ({self._between(column, _V4)})"

    def _between(self, column: str, network: Network) -> str:
        first, last = (
            self._bind("String", format_address(edge.to_bytes(16)))  # type: ignore[arg-type]
            for edge in (network.first, network.last)
        )
        return f"{column} BETWEEN toIPv6({first}) AND toIPv6({last})"

    def _text(self, column: str, compare: Compare) -> str:
        match compare.operator:
            case Operator.EQ | Operator.IN:
                return f"{column} IN {self._bind('Array(String)', list(compare.values))}"
            case Operator.CONTAINS:
                return f"position({column}, {self._bind('String', compare.values[0])}) > 0"
            case Operator.MATCHES:
                whole = f"^(?s:{compare.values[0]})$"
                return f"match({column}, {self._bind('String', whole)})"
        raise InputError(
            f"{compare.key!r} is text: compare it with = != in contains matches exists"
        )

    def _number(self, column: str, compare: Compare) -> str:
        if compare.operator is Operator.IN:
            bound = self._bind("Array(Float64)", [_float(compare, one) for one in compare.values])
            return f"{column} IN {bound}"
        if compare.operator not in _COMPARED:
            raise InputError(f"{compare.key!r} is a number: compare it with = != in < <= > >=")
        bound = self._bind("Float64", _float(compare, compare.values[0]))
        return f"{column} {_COMPARED[compare.operator]} {bound}"

    @staticmethod
    def _any_of(parts: Iterable[str]) -> str:
        return " OR ".join(f"({part})" for part in parts)

    def _bind(self, kind: str, value: Any) -> str:
        name = f"f{len(self.parameters)}"
        self.parameters[name] = value
        return f"{{{name}:{kind}}}"


def assuming(query: Query, disposition: Disposition) -> Query:
    """What is left of a filter where the disposition is known; raises InputError."""
    match query:
        case And(queries):
            return And(tuple(assuming(part, disposition) for part in queries))
        case Or(queries):
            return Or(tuple(assuming(part, disposition) for part in queries))
        case Not(inner):
            return Not(assuming(inner, disposition))
        case Compare(key, Operator.NE, values) if key == DISPOSITION:
            return assuming(Not(Compare(key, Operator.EQ, values)), disposition)
        case Compare(key) if key == DISPOSITION:
            holds = disposition in [_disposition(value) for value in _words(query)]
            return Everything() if holds else Not(Everything())
        case _:
            return query


def _words(compare: Compare) -> tuple[str, ...]:
    if compare.operator not in (Operator.EQ, Operator.IN):
        raise InputError(f"{compare.key!r} is a word: compare it with = != in")
    return compare.values


def _disposition(value: str) -> Disposition:
    if value not in set(Disposition):
        raise InputError(f"{value!r} is not a disposition: write {', '.join(Disposition)}")
    return Disposition(value)


def _float(compare: Compare, value: str) -> float:
    try:
        return float(value)
    except ValueError as error:
        raise InputError(f"{compare.key!r} is a number, and {value!r} is none") from error
