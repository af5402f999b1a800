"""`address.type` of an end as SQL: ranges of addresses, where no item of Kubernetes holds it.

What SQL is written of is fixed; API servers are a bound parameter.
"""

from collections.abc import Iterable
from typing import Any

from ringfence.inventory.outside import (
    CLOUD_METADATA,
    CLOUDS,
    KINDS,
    KUBE_APISERVER,
    PUBLIC,
    TYPES,
    ApiServer,
)
from ringfence.model.address import Address, Network, format_address
from ringfence.model.ids import NETWORK_KEYS

API_SERVERS = "api_servers"
"""The parameter that is bound where an API server is asked for: `as_parameter`."""

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
    if wanted == PUBLIC:
        special = (network for networks in KINDS.values() for network in networks)
        kind = f"NOT ({_within(address, special)})"
    else:
        kind = _within(address, CLOUDS if wanted == CLOUD_METADATA else KINDS[wanted])
    item = f"{address}_item"
    return f"({item} = '' OR startsWith({item}, '{NETWORK_KEYS}')) AND ({kind})"


def all_types(address: str) -> str:
    """The types of such an end, sorted and joined by commas; empty for none."""
    each = [f"if({has_type(address, one)}, '{one}', '')" for one in sorted(TYPES)]
    return f"arrayStringConcat(arrayFilter(one -> one != '', [{', '.join(each)}]), ',')"


def as_parameter(known: Iterable[ApiServer]) -> list[tuple[Any, ...]]:
    """API_SERVERS."""
    return [(one.cluster, format_address(one.address), one.from_ns, one.to_ns) for one in known]


def _within(address: str, networks: Iterable[Network]) -> str:
    ranges = [
        f"{address} BETWEEN toIPv6('{_written(one.first)}') AND toIPv6('{_written(one.last)}')"
        for one in networks
    ]
    return " OR ".join(ranges)


def _written(address: int) -> str:
    return format_address(Address(address.to_bytes(16)))
