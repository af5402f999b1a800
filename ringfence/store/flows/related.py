"""All that was observed of some connections, observer by observer."""

# ruff: noqa: S608 -- only this room's own fragments are put together

from ringfence.store.flows.queries import BETWEEN, OBSERVED, TUPLE

_TUPLES = f"""
SELECT {TUPLE} FROM flows WHERE {BETWEEN} AND connection IN {{connections:Array(UInt64)}}
UNION DISTINCT
SELECT {TUPLE} FROM drops WHERE {BETWEEN} AND connection IN {{connections:Array(UInt64)}}
"""

# An observer away from the consumer's node does not know of translation: what it saw of the same
# tuple stands under another connection.
OBSERVATIONS = f"""
SELECT * FROM ({OBSERVED})
WHERE ({TUPLE}) IN ({_TUPLES}) AND (remote OR connection IN {{connections:Array(UInt64)}})
LIMIT {{limit:UInt32}}
"""
"""One row per observer and hop: an interface of a node, its rank, and the tuple before NAT.

Parameters: those of HOPS, `connections`, `limit`.
"""

DROP_REPORTS = f"""
SELECT {TUPLE}, node, pod, direction, source, rule, reason, sum(packets) AS packets,
    any(connection) AS connection, min(first_ns) AS first_ns,
    max(consumer_revision) AS consumer_revision, max(provider_revision) AS provider_revision
FROM drops WHERE {BETWEEN} AND ({TUPLE}) IN ({_TUPLES})
GROUP BY {TUPLE}, node, pod, direction, source, rule, reason
LIMIT {{limit:UInt32}}
"""
"""The drops of the same tuples, by who reported them. The same parameters."""
