"""Conversations as JSON objects, one a row, put together column by column."""

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ringfence.export.record import TCP_COUNTS, address_text, dictionary
from ringfence.model.flow import TCP_FLAGS
from ringfence.model.protocol import format_protocol

_NULL = pa.scalar("null")


def lines(conversations: pa.RecordBatch) -> pa.Array:
    """CONVERSATIONS as a column of JSON objects, named as the API's flows are.

    All strings come from the JSON encoder: names of a cluster cannot break out of their quotes.
    """
    protocols = pa.array([format_protocol(number) for number in range(256)]).take(
        conversations["protocol"]
    )
    original = _object(
        {
            "consumer": _end(conversations, "first_consumer"),
            "provider": _end(conversations, "dialled"),
            "port": _number(conversations["dialled_port"]),
        }
    )
    return _object(
        {
            "first": _time(conversations["first_ns"]),
            "last": _time(conversations["last_ns"]),
            "kubernetes_cluster": _quoted(conversations["kubernetes_cluster"]),
            "node": _quoted(conversations["node"]),
            "protocol": _quoted(protocols),
            "consumer": _end(conversations, "consumer", _local(conversations, "consumer")),
            "consumer_port": _number(conversations["consumer_port"]),
            "provider": _end(
                conversations,
                "provider",
                _local(conversations, "provider")
                | {"dns_name": _quoted(conversations["provider_dns_name"])},
            ),
            "port": _number(conversations["provider_port"]),
            "original": pc.if_else(conversations["translated"], original, _NULL),
            "method": _quoted(conversations["method"]),
            "forward": _way(conversations, "forward"),
            "reverse": _way(conversations, "reverse"),
            **{name: _number(conversations[name]) for name in ("opened", "answered", "refused")},
            "rtt": _rtt(conversations),
        }
    )


def _object(members: Mapping[str, pa.Array]) -> pa.Array:
    pieces: list[pa.Array | str] = []
    for name, value in members.items():
        pieces += [f'{"," if pieces else "{"}"{name}":', value]
    return pc.binary_join_element_wise(*pieces, "}", "")


def _end(
    conversations: pa.RecordBatch, end: str, local: Mapping[str, pa.Array] | None = None
) -> pa.Array:
    described = {
        what: _quoted(conversations[f"{end}_{what}"])
        for what in ("name", "kind", "namespace", "owner")
    }
    address = _quoted(address_text(conversations[end]))
    return _object({"address": address, **described, **(local or {})})


def _local(conversations: pa.RecordBatch, end: str) -> dict[str, pa.Array]:
    """What is known of an end on the wire: its node, and its process, null where none is known."""
    pid = conversations[f"{end}_pid"]
    process = _object(
        {
            "name": _quoted(conversations[f"{end}_process"]),
            "pid": _number(pid),
            "container": _quoted(conversations[f"{end}_container"]),
        }
    )
    return {
        "node": _quoted(conversations[f"{end}_node"]),
        "process": pc.if_else(pc.greater(pid, 0), process, _NULL),
    }


def _way(conversations: pa.RecordBatch, way: str) -> pa.Array:
    flags = dictionary(conversations[f"{way}_flags"])
    names = [
        [name for bit, name in enumerate(TCP_FLAGS) if seen >> bit & 1]
        for seen in flags.dictionary.to_pylist()
    ]
    return _object(
        {
            "packets": _number(conversations[f"{way}_packets"]),
            "bytes": _number(conversations[f"{way}_bytes"]),
            "flags": _encoded(names).take(flags.indices),
            **{what: _number(conversations[f"{way}_{what}"]) for what in TCP_COUNTS},
        }
    )


def _rtt(conversations: pa.RecordBatch) -> pa.Array:
    samples = conversations["rtt_samples"]
    members = {
        "samples": samples,
        "min_ns": conversations["rtt_min_ns"],
        "mean_ns": pc.divide(conversations["rtt_sum_ns"], pc.max_element_wise(samples, 1)),
    }
    told = _object({name: _number(column) for name, column in members.items()})
    return pc.if_else(pc.greater(samples, 0), told, _NULL)


def _quoted(column: pa.Array) -> pa.Array:
    """Strings as JSON strings; each distinct one is encoded once."""
    joined = dictionary(column)
    return _encoded(joined.dictionary.to_pylist()).take(joined.indices)


def _encoded(values: Sequence[object]) -> pa.Array:
    return pa.array([msgspec.json.encode(value).decode() for value in values], pa.string())


def _number(column: pa.Array) -> pa.Array:
    return column.cast(pa.string())


def _time(column: pa.Array) -> pa.Array:
    """RFC 3339 in UTC with nanoseconds."""
    moments = np.datetime_as_string(column.to_numpy().view("M8[ns]"), timezone="UTC")
    return pc.binary_join_element_wise('"', pa.array(moments, pa.string()), '"', "")
