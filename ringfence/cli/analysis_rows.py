"""Records of analysis as JSON, hundreds of thousands a second: by columns, not row by row.

They read as `control.api.analysis.RecordView` has them.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ringfence.control.analysis import Judged
from ringfence.control.api.flow_views import (
    ProcessView,
    ServiceView,
    Views,
    end_view,
    item_of,
    received_at,
)
from ringfence.control.api.why import decision_response
from ringfence.control.deciding import NOBODY
from ringfence.flows.connections import Records
from ringfence.inventory.holders import distinct_rows
from ringfence.inventory.timeline import Timeline
from ringfence.model.address import Address
from ringfence.model.flow import Category
from ringfence.model.protocol import format_protocol
from ringfence.model.verdict import Decision, EndRole

_AT_ONCE = 8_192
_MOST_KNOWN = 50_000
_BETWEEN = ",\n"
_TCP_FLAGS = '"flags":[],"syn":0,"fin":0,"rst":0'
"""Which files do not tell."""


class RecordTexts:
    """Writes records of conversations that were judged; `dispositions` are as people see them."""

    def __init__(
        self, seen: Records, judged: Judged, dispositions: NDArray[np.str_], timeline: Timeline
    ) -> None:
        self._seen, self._judged, self._dispositions = seen, judged, dispositions
        self._timeline, self._views = timeline, Views(timeline)
        self._known = {name: _Known() for name in ("consumer", "provider", "service", "rules")}
        self._words = {
            name: seen.table[name].combine_chunks().dictionary_encode()
            for name in (*_PROCESSES, "provider_dns_name", "node", "kubernetes_cluster")
        }

    def of(
        self, category: Category, rows: NDArray[np.intp], conversations: NDArray[np.int64]
    ) -> Iterator[memoryview]:
        """The records of some rows with conversations of one category, many at a time.

        In ASCII, commas between.
        """
        for start in range(0, len(rows), _AT_ONCE):
            at = rows[start : start + _AT_ONCE]
            some = self._seen.take(at)
            records = _joined(
                f'{{"category":"{category}","conversations":',
                pa.array(conversations[at]),
                ',"flow":{"consumer":',
                self._ends(at, some, "consumer", "first_consumer"),
                ',"provider":',
                self._ends(at, some, "provider", "provider"),
                *_traffic(some),
                ',"service":',
                self._services(at, some),
                ',"disposition":"',
                pa.array(self._dispositions[at].astype(object), pa.string()),
                '","related":[]},',
                self._decided(at, some),
                "}" + _BETWEEN,
            )
            yield memoryview(records.buffers()[2])[: -len(_BETWEEN)]

    def _ends(self, at: NDArray[np.intp], some: Records, name: str, column: str) -> pa.Array:
        """What is told of one end."""
        addresses, revisions = some.column(column), some.column(f"{column}_revision")
        api_servers = self._timeline.api_servers().among(
            some.column("kubernetes_cluster"), addresses, some.column("last_ns")
        )
        pids = some.column(f"{name}_pid")
        words = [self._words[one].take(at) for one in self._words if one.startswith(name)]

        def write(row: int) -> str:
            item = item_of(self._timeline, int(revisions[row]))
            process, container, *found_by = (word[row].as_py() for word in words)
            pid = int(pids[row])
            held = ProcessView(name=process, pid=pid, container=container) if pid else None
            address, dns_name = Address(addresses[row].tobytes()), "".join(found_by)
            view = end_view(item, address, held, dns_name, api_server=bool(api_servers[row]))
            return _json(view.model_dump(mode="json"))

        codes = (np.asarray(word.indices) for word in words)
        return self._known[name].written(write, addresses, revisions, pids, api_servers, *codes)

    def _services(self, at: NDArray[np.intp], some: Records) -> pa.Array:
        names = ("dialled_revision", "dialled", "protocol", "dialled_port")
        revisions, addresses, protocols, ports = map(some.column, names)
        clusters = self._words["kubernetes_cluster"].take(at)

        def write(row: int) -> str:
            socket = addresses[row].tobytes(), int(protocols[row]), int(ports[row])
            item = self._views.service(int(revisions[row]), *socket, clusters[row].as_py())
            if item is None:
                return "null"
            view = ServiceView(namespace=item.namespace, name=item.name, key=item.key)
            return _json(view.model_dump())

        homes = np.asarray(clusters.indices)
        return self._known["service"].written(write, revisions, addresses, protocols, ports, homes)

    def _decided(self, at: NDArray[np.intp], some: Records) -> pa.Array:
        """The deciding rules, those that log, and the verdict, without the braces around."""
        numbers = {role: of[at] for role, of in self._judged.deciding.numbers.items()}
        rules = [*self._judged.deciding.rules, None]  # nobody's number, -1, finds the last one
        logged, logging = self._judged.logged.rules, self._judged.logged.numbers[at]
        allowed = self._judged.allowed[at]
        node_decides = numbers[EndRole.NODE] != NOBODY
        dialled = some.column("dialled_revision") * node_decides
        nodes = some.table["node"]

        def write(row: int) -> str:
            deciding = {role: told_decision(rules[of[row]]) for role, of in numbers.items()}
            node = received_at(self._timeline, int(dialled[row]), nodes[row].as_py() or "")
            told = {
                "deciding": deciding,
                "node": node if node_decides[row] else "",
                "logged": [told_decision(one) for one in logged[logging[row]]],
                "allowed": bool(allowed[row]),
            }
            return _json(told)[1:-1]

        told_by = np.asarray(self._words["node"].take(at).indices.fill_null(0)) * node_decides
        values = (*numbers.values(), logging, allowed, dialled, told_by)
        return self._known["rules"].written(write, *values)


_PROCESSES = (
    *("consumer_process", "consumer_container"),
    *("provider_process", "provider_container"),
)


class _Known:
    """Texts by the values that they are of, the same columns every time."""

    def __init__(self) -> None:
        self._texts: dict[bytes, str] = {}

    def written(self, write: Callable[[int], str], *columns: NDArray[Any]) -> pa.Array:
        """As `_written`, of values that were asked for before too."""
        if len(self._texts) > _MOST_KNOWN:
            self._texts.clear()
        keys, places, which = _distinct(columns)
        for key, row in zip(keys, places.tolist(), strict=True):
            if key not in self._texts:
                self._texts[key] = write(row)
        return pa.array([self._texts[key] for key in keys], pa.string()).take(pa.array(which))


def told_decision(decision: Decision | None) -> dict[str, Any] | None:
    """A decision as the API tells it."""
    return decision_response(decision).model_dump(mode="json") if decision else None


def _traffic(some: Records) -> Iterator[str | pa.Array]:
    """What is counted and dated, between the ends and the Service."""
    protocols = some.column("protocol")
    methods, ids = (some.table[name].combine_chunks() for name in ("method", "connection_id"))
    yield ',"protocol":"'
    yield _written(lambda row: format_protocol(int(protocols[row])), protocols)
    yield '","port":'
    yield some.table["provider_port"]
    yield ',"consumer_ports":[],"method":'
    yield _quoted(methods)
    for way in ("forward", "reverse"):
        yield f',"{way}":{{"packets":'
        yield some.table[f"{way}_packets"]
        yield ',"bytes":'
        yield some.table[f"{way}_bytes"]
        yield f',{_TCP_FLAGS},"retransmitted":'
        yield some.table[f"{way}_retransmitted"]
        yield "}"
    for name in ("opened", "answered", "refused"):
        yield f',"{name}":'
        yield some.table[name]
    yield ',"dropped":'
    yield pa.array(some.dropped)
    yield ',"carries":0,"rtt":'
    samples = some.column("rtt_samples")
    mean = some.column("rtt_sum_ns") // np.maximum(samples, 1)
    least = some.table["rtt_min_ns"]
    told = _joined(
        '{"samples":', pa.array(samples), ',"min_ns":', least, ',"mean_ns":', pa.array(mean), "}"
    )
    yield pc.if_else(pa.array(samples > 0), told, "null")
    for name in ("first", "last"):
        yield f',"{name}":"'
        yield _times(some.column(f"{name}_ns"))
        yield '"'
    yield ',"connection":'
    yield _quoted(ids)


def _joined(*parts: str | pa.Array) -> pa.Array:
    """Texts, and columns of texts or numbers, one after the other in every row."""
    texts = [part if isinstance(part, str) else part.cast(pa.string()) for part in parts]
    found = pc.binary_join_element_wise(*texts, "")
    return found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found


def _written(write: Callable[[int], str], *columns: NDArray[Any]) -> pa.Array:
    """A text for each row; `write` is asked for one row of all that have the same values."""
    _, places, which = _distinct(columns)
    return pa.array([write(row) for row in places.tolist()], pa.string()).take(pa.array(which))


def _distinct(
    columns: Sequence[NDArray[Any]],
) -> tuple[list[bytes], NDArray[np.intp], NDArray[np.int64]]:
    """The distinct values of columns, a row of each, and which of them each row has."""
    octets = [np.ascontiguousarray(one).view(np.uint8).reshape(len(one), -1) for one in columns]
    rows = np.concatenate(octets, axis=1)
    places, which = distinct_rows(rows)
    return [row.tobytes() for row in rows[places]], places, which


def _codes(words: pa.Array) -> NDArray[np.int32]:
    return np.asarray(words.dictionary_encode().indices)


def _quoted(words: pa.Array) -> pa.Array:
    return _written(lambda row: _json(words[row].as_py()), _codes(words))


def _times(at_ns: NDArray[np.int64]) -> pa.Array:
    """As `control.api.times.format_time` has them."""
    written = np.datetime_as_string((at_ns // 10**6).astype("datetime64[ms]"), timezone="UTC")
    return pa.array(written.astype(object), pa.string())


def _json(value: Any) -> str:
    """In ASCII: names may be hostile."""
    return json.dumps(value, separators=(",", ":"))
