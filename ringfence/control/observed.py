"""What discovery goes by: conversations as the flow store adds them up.

There are as many rows as there are distinct edges in each part of the time, however many flows.
Of a long time the roll-ups tell, hour by hour.
"""

import asyncio

import pyarrow as pa

from ringfence.discovery.behaviour import SLOT_NS
from ringfence.discovery.observed import last_fifth
from ringfence.flows.connections import Records, conversations
from ringfence.model.ids import TenantId
from ringfence.store.flows import FlowStore
from ringfence.store.flows.conversations import (
    HOUR_EDGES,
    HOUR_PARTS,
    HOUR_TIME,
    PARTS,
    SLOT_EDGES,
    TIME,
)

HOUR_NS = 3600 * 10**9
LONG_NS = 3 * HOUR_NS
"""From how long a time on it is told by hours."""
_PART_NS = 6 * HOUR_NS
"""Of how long a time the flow store is asked at once: the hours of a longer one fill its memory."""
_SHORT_PART_NS = HOUR_NS // 2
"""As _PART_NS where flows are told one by one: a longer one may take longer than is allowed."""


async def observed(store: FlowStore, tenant: TenantId, since_ns: int, until_ns: int) -> Records:
    """The conversations of a time, epoch ns; of a long one its first and last hour are whole."""
    window = {"tenant": tenant, "since": since_ns, "until": until_ns, "every": SLOT_NS}
    is_long = until_ns - since_ns > LONG_NS
    edges, time, held, part_ns = (
        (HOUR_EDGES, HOUR_TIME, HOUR_PARTS, _PART_NS)
        if is_long
        else (SLOT_EDGES, TIME, PARTS, _SHORT_PART_NS)
    )
    found = await store.query(held, window | {"part": part_ns})
    starts = [part * part_ns for part in sorted(found["part"].to_pylist())] or [since_ns]
    parts = [
        window | {"since": max(start, since_ns), "until": min(start + part_ns, until_ns)}
        for start in starts
    ]
    (seen,) = (await store.query(time, window)).to_pylist()
    how = {"interval": SLOT_NS, "late": last_fifth(seen["first_ns"], seen["last_ns"])}
    rows = pa.concat_tables([await store.query(edges, part | how) for part in parts])
    return await asyncio.to_thread(conversations, rows)
