"""Conversations as rows of fixed width, which a query streams without ever holding them all.

Of the engine's formats only those without a header stream block by block, and of these only
fixed-width rows become columns without work on each value. So words are told by their number.
"""

# ruff: noqa: S608 -- only this file's own fragments and `filter.Condition` are put together

from collections.abc import Mapping

import numpy as np

from ringfence.flows.dns import LONGEST_NAME
from ringfence.model.flow import Disposition, Method
from ringfence.store.flows.conversations import CONVERSATIONS, SLOT_CONVERSATIONS

PROCESS_BYTES = 48
"""Of a process's name: 15 bytes, where none of them is UTF-8 thrice as many."""
CONTAINER_BYTES = 64
"""Of a container's name, which is a DNS label."""
METHODS = ("", *Method)
"""By their number in a row."""

_METHODS = ", ".join(f"'{method}'" for method in Method)
_AGENT = "indexOf({{agents:Array(String)}}, concat(kubernetes_cluster, '/', {end}node))"


def _process(end: str) -> dict[str, tuple[str, str]]:
    sizes = {f"{end}_process": PROCESS_BYTES, f"{end}_container": CONTAINER_BYTES}
    fixed = {
        name: (f"S{size}", f"toFixedString(substring({name}, 1, {size}), {size})")
        for name, size in sizes.items()
    }
    return fixed | {f"{end}_pid": ("u4", f"{end}_pid")}


_COLUMNS = {
    "connection": ("u8", "connection"),
    "cluster": ("u4", "toUInt32(indexOf({clusters:Array(String)}, kubernetes_cluster) - 1)"),
    "consumer_agent": ("u4", f"toUInt32({_AGENT.format(end='consumer_')})"),
    "provider_agent": ("u4", f"toUInt32({_AGENT.format(end='provider_')})"),
    "agent": ("u4", f"toUInt32({_AGENT.format(end='')})"),
    "method": ("u1", f"toUInt8(indexOf([{_METHODS}], method))"),
    "protocol": ("u1", "protocol"),
    "provider_port": ("u2", "provider_port"),
    "dialled_port": ("u2", "dialled_port"),
    "first_consumer": ("16u1", "first_consumer"),
    "provider": ("16u1", "provider"),
    "dialled": ("16u1", "dialled"),
    "first_consumer_revision": ("u8", "first_consumer_revision"),
    "provider_revision": ("u8", "provider_revision"),
    "dialled_revision": ("u8", "dialled_revision"),
    **{
        name: ("u8", name)
        for name in (
            "forward_packets", "forward_bytes", "reverse_packets", "reverse_bytes",
            "opened", "answered", "refused", "dropped", "forward_retransmitted",
            "reverse_retransmitted", "rtt_samples", "rtt_sum_ns", "rtt_min_ns",
        )
    },
    **_process("consumer"),
    **_process("provider"),
    "provider_dns_name": (
        f"S{LONGEST_NAME}",
        f"toFixedString(provider_dns_name, {LONGEST_NAME})",
    ),
    "reached": ("u1", "toUInt8(reached)"),
    "dispositions": ("u1", "dispositions"),
    "first_ns": ("i8", "first_ns"),
    "last_ns": ("i8", "last_ns"),
}  # fmt: skip

EXPORTED = np.dtype([(name, kind) for name, (kind, _) in _COLUMNS.items()]).newbyteorder("<")
"""One conversation. `cluster` is a position in `clusters`; an agent counts from 1, 0 is none.

`dispositions` has a bit (`DISPOSITION_BITS`) for each one with which it satisfies the filter: which
one it has is known only to whoever reads the row.
"""

DISPOSITION_BITS = {disposition: 1 << number for number, disposition in enumerate(Disposition)}

CLUSTERS = """
SELECT DISTINCT kubernetes_cluster FROM batches WHERE tenant = {tenant:String}
ORDER BY kubernetes_cluster
"""


def exported(where: Mapping[Disposition, str], *, in_slots: bool = False) -> str:
    """Conversations that satisfy the condition on those of some disposition, as EXPORTED.

    Parameters besides those of HOPS: `clusters`, and `agents`, each written `CLUSTER/NODE`;
    `in_slots`, `every` as well, for a row of each slot of time.
    """
    told_of = SLOT_CONVERSATIONS if in_slots else CONVERSATIONS
    told = ", ".join(f"{column} AS {name}" for name, (_, column) in _COLUMNS.items())
    bits = " + ".join(f"if({where[one]}, {bit}, 0)" for one, bit in DISPOSITION_BITS.items())
    return f"""
SELECT {told} FROM (SELECT *, toUInt8({bits}) AS dispositions FROM ({told_of}))
WHERE has({{clusters:Array(String)}}, kubernetes_cluster) AND dispositions > 0
"""
