"""What discovery goes by: conversations as the flow store adds them up.

One row tells of a conversation in one slot of time, so that there are as many as there are distinct
conversations and slots, however many flows. Of a long time the roll-ups tell, hour by hour.
"""

import asyncio

from ringfence.flows.connections import Records, conversations
from ringfence.model.ids import TenantId
from ringfence.store.flows import FlowStore
from ringfence.store.flows.conversations import HOUR_CONVERSATIONS, SLOT_CONVERSATIONS

SLOT_NS = 300 * 10**9
LONG_NS = 3 * 3600 * 10**9
"""From how long a time on it is told by hours."""


async def observed(store: FlowStore, tenant: TenantId, since_ns: int, until_ns: int) -> Records:
    """The conversations of a time, epoch ns; of a long one its first and last hour are whole."""
    window = {"tenant": tenant, "since": since_ns, "until": until_ns}
    if until_ns - since_ns > LONG_NS:
        rows = await store.query(HOUR_CONVERSATIONS, window)
    else:
        rows = await store.query(SLOT_CONVERSATIONS, window | {"every": SLOT_NS})
    return await asyncio.to_thread(conversations, rows)
