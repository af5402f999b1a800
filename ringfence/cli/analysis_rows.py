"""Records of analysis as JSON, a hundred thousand a second: what recurs is written once.

They read as `control.api.analysis.RecordView` has them.
"""

import json
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ringfence.control.analysis import Judged
from ringfence.control.api.flow_views import ProcessView, ServiceView, Views, end_view, item_of
from ringfence.control.api.why import decision_response
from ringfence.flows.connections import Records
from ringfence.inventory.timeline import Timeline
from ringfence.model.address import Address
from ringfence.model.flow import Category
from ringfence.model.protocol import format_protocol
from ringfence.model.verdict import Decision, EndRole

_AT_ONCE = 50_000
_COUNTS = ("opened", "answered", "refused")


class RecordTexts:
    """Writes records of conversations that were judged; `dispositions` are as people see them."""

    def __init__(
        self, seen: Records, judged: Judged, dispositions: NDArray[np.str_], timeline: Timeline
    ) -> None:
        self._seen, self._judged, self._dispositions = seen, judged, dispositions
        self._timeline, self._views = timeline, Views(timeline)
        self._end, self._service = cache(self._write_end), cache(self._write_service)
        self._deciding = cache(self._write_deciding)

    def of(self, category: Category, rows: NDArray[np.intp]) -> Iterator[str]:
        """The records of some conversations, all of one category."""
        for start in range(0, len(rows), _AT_ONCE):
            at = rows[start : start + _AT_ONCE]
            some = self._seen.take(at)
            columns = [
                self._ends(some, "consumer", "first_consumer"),
                self._ends(some, "provider", "provider"),
                self._traffic(some),
                self._services(some),
                (f'"{one}"' for one in self._dispositions[at].tolist()),
                self._decided(at),
            ]
            for consumer, provider, traffic, service, disposition, decided in zip(
                *columns, strict=True
            ):
                yield (
                    f'{{"category":"{category}","flow":{{"consumer":{consumer},'
                    f'"provider":{provider},{traffic},"service":{service},'
                    f'"disposition":{disposition},"related":[]}},{decided}}}'
                )

    def _ends(self, some: Records, name: str, column: str) -> Iterator[str]:
        api_servers = self._timeline.api_servers().among(
            some.column("kubernetes_cluster"), some.column(column), some.column("last_ns")
        )
        process = [f"{name}_{part}" for part in ("process", "pid", "container")]
        told = [some.table[one].to_pylist() for one in (column, f"{column}_revision", *process)]
        names = [""] * len(some)
        if name == "provider":
            names = some.table["provider_dns_name"].to_pylist()
        return map(self._end, *told, names, api_servers.tolist())

    def _write_end(
        self,
        address: bytes,
        revision: int,
        process: str,
        pid: int,
        container: str,
        dns_name: str,
        api_server: bool,
    ) -> str:
        item = item_of(self._timeline, revision)
        held = ProcessView(name=process, pid=pid, container=container) if pid else None
        view = end_view(item, Address(address), held, dns_name, api_server=api_server)
        return _json(view.model_dump(mode="json"))

    def _traffic(self, some: Records) -> Iterator[str]:
        """All that is counted and dated, between the ends and the Service."""
        rows = pa.table(
            {
                "protocol": some.table["protocol"],
                "port": some.table["provider_port"],
                "method": some.table["method"],
                **{
                    f"{way}_{name}": some.table[f"{way}_{name}"]
                    for way in ("forward", "reverse")
                    for name in ("packets", "bytes", "retransmitted")
                },
                **{name: some.table[name] for name in _COUNTS},
                "dropped": pa.array(some.dropped),
                **{name: some.table[f"rtt_{name}"] for name in ("samples", "min_ns", "sum_ns")},
                "first": _times(some.column("first_ns")),
                "last": _times(some.column("last_ns")),
                "connection": some.table["connection_id"],
            }
        )
        return map(_write_traffic, *(column.to_pylist() for column in rows.columns))

    def _services(self, some: Records) -> Iterator[str]:
        names = ("dialled_revision", "dialled", "protocol", "dialled_port")
        return map(self._service, *(some.table[name].to_pylist() for name in names))

    def _write_service(self, revision: int, dialled: bytes, protocol: int, port: int) -> str:
        item = self._views.service(revision, dialled, protocol, port)
        if item is None:
            return "null"
        view = ServiceView(namespace=item.namespace, name=item.name, key=item.key)
        return _json(view.model_dump())

    def _decided(self, at: NDArray[np.intp]) -> Iterator[str]:
        numbers = [self._judged.deciding.numbers[role][at].tolist() for role in EndRole]
        logged = [tuple(self._judged.logged[row]) for row in at.tolist()]
        return map(self._deciding, *numbers, logged, self._judged.allowed[at].tolist())

    def _write_deciding(
        self,
        consumer: int,
        provider: int,
        node: int,
        logged: tuple[Decision, ...],
        allowed: bool,
    ) -> str:
        rules = [*self._judged.deciding.rules, None]  # nobody's number, -1, finds the last one
        deciding = {
            role: told_decision(rules[number])
            for role, number in zip(EndRole, (consumer, provider, node), strict=True)
        }
        told = {
            "deciding": deciding,
            "logged": [told_decision(one) for one in logged],
            "allowed": allowed,
        }
        return _json(told)[1:-1]


def told_decision(decision: Decision | None) -> dict[str, Any] | None:
    """A decision as the API tells it."""
    return decision_response(decision).model_dump(mode="json") if decision else None


def _write_traffic(  # noqa: PLR0913, PLR0917 -- one row's values
    protocol: int, port: int, method: str,
    forward_packets: int, forward_bytes: int, forward_again: int,
    reverse_packets: int, reverse_bytes: int, reverse_again: int,
    opened: int, answered: int, refused: int, dropped: int,
    samples: int, min_ns: int, sum_ns: int,
    first: str, last: str, connection: str,
) -> str:  # fmt: skip
    rtt = (
        f'{{"samples":{samples},"min_ns":{min_ns},"mean_ns":{sum_ns // samples}}}'
        if samples
        else "null"
    )
    return (
        f'"protocol":"{_protocol(protocol)}","port":{port},"consumer_ports":[],'
        f'"method":{_text(method)},'
        f'"forward":{{"packets":{forward_packets},"bytes":{forward_bytes},"flags":[],"syn":0,'
        f'"fin":0,"rst":0,"retransmitted":{forward_again}}},'
        f'"reverse":{{"packets":{reverse_packets},"bytes":{reverse_bytes},"flags":[],"syn":0,'
        f'"fin":0,"rst":0,"retransmitted":{reverse_again}}},'
        f'"opened":{opened},"answered":{answered},"refused":{refused},"dropped":{dropped},'
        f'"carries":0,"rtt":{rtt},"first":"{first}","last":"{last}",'
        f'"connection":{_json(connection)}'
    )


def _times(at_ns: NDArray[np.int64]) -> pa.Array:
    """As `control.api.times.format_time` has them."""
    written = np.datetime_as_string((at_ns // 10**6).astype("datetime64[ms]"), timezone="UTC")
    return pa.array(written.astype(object), pa.string())


def _json(value: Any) -> str:
    """In ASCII: names may be hostile."""
    return json.dumps(value, separators=(",", ":"))


_protocol, _text = cache(format_protocol), cache(_json)
