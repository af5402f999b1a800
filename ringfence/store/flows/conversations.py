"""Each connection told once, from its first consumer to its last provider.

What adds connections up reads this, so that a Service's two hops are not counted as two.
"""

# ruff: noqa: S608 -- only this file's own fragments and `filter.Condition` are put together

from ringfence.flows.told import TOLD
from ringfence.store.flows.outside import all_types
from ringfence.store.flows.queries import BETWEEN, HOPS, HOUR_HOPS, IN_HOURS, SLOT_HOPS, hourly


# As `flows.connections.records` has it: the translated hops where there are any, of several to
# the same provider the fullest, with the drops at the first hop; no tunnels, whose packets are
# those of what they carry.
def _conversations(hops: str, by: str) -> str:
    return f"""
SELECT * EXCEPT (goes_on, at_first, place)
    REPLACE (if(translated, dropped + at_first, dropped) AS dropped)
FROM (
    SELECT *, row_number() OVER (
            PARTITION BY {by}, provider_item, provider_port, provider
            ORDER BY forward_packets DESC
        ) AS place
    FROM (
        SELECT *, max(translated) OVER (PARTITION BY {by}) AS goes_on,
            sumIf(dropped, NOT translated) OVER (PARTITION BY {by}) AS at_first
        FROM (
            SELECT *, (consumer, provider, provider_port)
                != (first_consumer, dialled, dialled_port) AS translated
            FROM ({hops})
        )
    ) WHERE translated OR NOT goes_on
) WHERE place = 1 AND carries = 0
"""


CONVERSATIONS = _conversations(HOPS, "connection")
"""The columns of HOPS, the last hop's, and `translated`.

Parameters: tenant, since, until (epoch ns).
"""
SLOT_CONVERSATIONS = _conversations(SLOT_HOPS, "connection, slot")
"""As CONVERSATIONS, one row for each slot of `every` ns; see `queries.SLOT_HOPS`."""
HOUR_CONVERSATIONS = _conversations(HOUR_HOPS, "connection, slot")
"""As SLOT_CONVERSATIONS in slots of an hour, from the roll-ups: those partly in range are whole."""

_SUMS = (
    "forward_packets",
    "forward_bytes",
    "reverse_packets",
    "reverse_bytes",
    "opened",
    "answered",
    "refused",
    "dropped",
)
_EDGE = (
    "kubernetes_cluster",
    "node",
    "protocol",
    *(
        f"{end}{part}"
        for end in ("first_consumer", "provider", "dialled")
        for part in ("", "_revision")
    ),
    "dialled_port",
    "provider_port",
    "provider_dns_name",
    "consumer_process",
    "provider_process",
    "translated",
)
# As discovery has it: conversations of one kind are added up, so that none hides the others.
_KINDS = (
    "if(protocol = 6, answered > 0 OR reverse_packets > 0 AND refused = 0, reverse_packets > 0)",
    "refused > 0 OR dropped > 0",
    "first_ns < {late:Int64}",
)


def _by_edge(conversations: str) -> str:
    return f"""
SELECT {", ".join(_EDGE)}, {", ".join(f"sum({name}) AS {name}" for name in _SUMS)},
    sum(greatest(opened, 1)) AS conversations,
    groupUniqArray(intDiv(first_ns, {{interval:Int64}})) AS intervals,
    min(first_ns) AS first_ns, max(last_ns) AS last_ns
FROM ({conversations}) GROUP BY {", ".join([*_EDGE, *_KINDS])}
"""


SLOT_EDGES = _by_edge(SLOT_CONVERSATIONS)
"""SLOT_CONVERSATIONS added up over the slots: as many rows as there are distinct edges.

Apart are those that were answered, that were turned away, and that began before `late`, epoch ns:
eight rows of an edge at most. `intervals` are the distinct ones of `interval` ns in which rows
began, `conversations` how many were opened, one at least for each row.
"""
HOUR_EDGES = _by_edge(HOUR_CONVERSATIONS)
"""As SLOT_EDGES, from the roll-ups."""

TIME = f"SELECT min(first_ns) AS first_ns, max(last_ns) AS last_ns FROM flows WHERE {BETWEEN}"
"""When the first was seen, and the last."""
HOUR_TIME = hourly(TIME)
"""As TIME, from the roll-ups."""
HOUR_PARTS = " UNION DISTINCT ".join(
    f"SELECT intDiv(toUnixTimestamp(hour) * 1000000000, {{part:Int64}}) AS part FROM {table}"
    f" WHERE {IN_HOURS}"
    for table in ("flows_hourly", "drops_hourly")
)
"""The parts of a time, each of `part` ns, in which the roll-ups have anything, by number."""
PARTS = " UNION DISTINCT ".join(
    f"SELECT intDiv(window_end_ns - 1, {{part:Int64}}) AS part FROM {table} WHERE {BETWEEN}"
    for table in ("flows", "drops")
)
"""As HOUR_PARTS, from what is rolled up: parts of whole slots share none."""

_KEYS = {
    "consumer_revision": "first_consumer_revision",
    "consumer_address": "first_consumer",
    "provider_revision": "provider_revision",
    "provider_address": "provider",
    "dialled_revision": "dialled_revision",
    "dialled_address": "dialled",
    "protocol": "protocol",
    "port": "provider_port",
    "dialled_port": "dialled_port",
    "method": "method",
    **{column: column for column in TOLD.values()},
    "consumer_type": all_types("first_consumer"),
    "provider_type": all_types("provider"),
    "dialled_type": all_types("dialled"),
}
_NOBODY = "toIPv6('::')"


def summed(where: str, keys: list[str], whole_addresses: set[str]) -> str:
    """Sums of the conversations that satisfy `where`, one row per distinct value of `keys`.

    Keys are `revision`, `address` and `type` (its `address.type`, which needs the parameter
    `outside.API_SERVERS`) of `consumer_`, `provider_` or `dialled_`, the columns in TOLD,
    `protocol`, `port`, `dialled_port` and `method`.
    Addresses that an item held are told only for the columns in `whole_addresses`: a workload's
    replicas are few, and the addresses that it had may be many. At most `limit` rows.
    """
    chosen = {key: _key(key, key in whole_addresses) for key in keys}
    grouped = f"GROUP BY {', '.join(chosen.values())}" if chosen else ""
    told = [f"{column} AS {key}" for key, column in chosen.items()]
    sums = [f"sum({name}) AS {name}" for name in _SUMS]
    return f"""
SELECT {", ".join([*told, *sums])}, count() AS connections,
    min(first_ns) AS first_ns, max(last_ns) AS last_ns
FROM ({CONVERSATIONS}) WHERE {where} {grouped}
LIMIT {{limit:UInt64}}
"""


def _key(key: str, whole: bool) -> str:
    column = _KEYS[key]
    if not key.endswith("_address") or whole:
        return column
    return f"if({column}_revision = 0, {column}, {_NOBODY})"
