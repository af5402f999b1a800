"""`address.type` of an end as SQL: ranges of addresses, where no item of Kubernetes holds it.

What SQL is written of is fixed; API servers are a bound parameter.
"""

from collections.abc import Iterable
from typing import Any

from ringfence.inventory.outside import (
    CLOUD_METADATA,
    CLOUDS,
    KUBE_APISERVER,
    RANGES,
    ApiServer,
)
from ringfence.model.address import format_address
from ringfence.model.ids import NETWORK_KEYS

API_SERVERS = "api_servers"
"""The parameter that is bound where an API server is asked for: `as_parameter`."""

_KINDS = [kind for _, kind in RANGES]
_STARTS = f"CAST({[format_address(start) for start, _ in RANGES]}, 'Array(IPv6)')"
_CLOUDS = f"CAST({[format_address(address) for address in CLOUDS]}, 'Array(IPv6)')"
_ANSWERED = f"""
arrayExists(
    one -> one.1 = kubernetes_cluster AND one.2 = {{address}}
        AND one.3 <= last_ns AND last_ns < one.4,
    {{{{{API_SERVERS}:Array(Tuple(String, IPv6, Int64, Int64))}}}}
)"""


def has_type(address: str, wanted: str) -> str:
    """Whether the end whose address is in that column is of a type; a condition on its row.

    The row is a hop's, a conversation's or a drop's.
    """
    if wanted == KUBE_APISERVER:
        return _ANSWERED.format(address=address)
    if wanted == CLOUD_METADATA:
        return f"{_outside(address)} AND has({_CLOUDS}, {address})"
    return f"{_outside(address)} AND {_kind(address)} = '{wanted}'"


def all_types(address: str) -> str:
    """The types of such an end, sorted and joined by commas; empty for none."""
    special = [
        f"if({has_type(address, one)}, '{one}', '')" for one in (CLOUD_METADATA, KUBE_APISERVER)
    ]
    each = [f"if({_outside(address)}, {_kind(address)}, '')", *special]
    known = f"arrayFilter(one -> one != '', [{', '.join(each)}])"
    return f"arrayStringConcat(arraySort({known}), ',')"


def _outside(address: str) -> str:
    """Whether no item of Kubernetes holds the end."""
    return f"({address}_item = '' OR startsWith({address}_item, '{NETWORK_KEYS}'))"


def _kind(address: str) -> str:
    """The kind of address by the range that it lies in."""
    return f"{_KINDS}[arrayCount(start -> start <= {address}, {_STARTS})]"


def as_parameter(known: Iterable[ApiServer]) -> list[tuple[Any, ...]]:
    """API_SERVERS."""
    return [(one.cluster, format_address(one.address), one.from_ns, one.to_ns) for one in known]
