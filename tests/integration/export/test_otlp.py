"""OTLP as others read it: a real OpenTelemetry Collector, and the official classes."""

import asyncio
import contextlib
import re
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsPartialSuccess,
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)

from ringfence.export.delivery import Delivery
from ringfence.export.errors import ExportError, RefusedError
from ringfence.export.kinds import make_exporter
from ringfence.export.url import parse_url
from ringfence.model.backoff import Backoff
from tests.integration.export.receivers import free_port, running, said, until
from tests.unit.export.conversations import START, batch, conversation

HOSTILE = 'a\n     -> src.address: Str(6.6.6.6)\x00"'
SILENT = "yaml:service::telemetry::metrics::level: none"


def collector(
    program: Path, log: Path, port: int
) -> contextlib.AbstractAsyncContextManager[object]:
    settings = (
        f"yaml:receivers::otlp::protocols::http::endpoint: 127.0.0.1:{port}",
        "yaml:exporters::debug::verbosity: detailed",
        "yaml:service::pipelines::logs::receivers: [otlp]",
        "yaml:service::pipelines::logs::exporters: [debug]",
        SILENT,
    )
    return running(log, program, *(f"--config={setting}" for setting in settings))


@pytest.mark.timeout(900)
async def test_a_collector_that_comes_up_later_gets_everything(
    otelcol: Path, tmp_path: Path
) -> None:
    port, log = free_port(socket.SOCK_STREAM), tmp_path / "log"
    exporter = make_exporter(parse_url(f"otlp+http://127.0.0.1:{port}"))
    delivery = Delivery("otlp", exporter, Backoff(first=0.1, most=0.1))
    await delivery.start()
    try:
        delivery.offer(batch(conversation(dialled="10.100.0.9", opened=2**64 - 1)))
        await until(lambda: not delivery.up)
        async with collector(otelcol, log, port):
            await until(lambda: delivery.sent == 1)
            delivery.offer(batch(*(conversation() for _ in range(2500))))
            await until(lambda: delivery.sent == 2501)
            await until(said(log, '"log records": 500'))
    finally:
        await delivery.stop()
    assert not delivery.dropped.total()
    told = log.read_text()
    assert sum(map(int, re.findall(r'"log records": (\d+)', told))) == 2501
    first = told.split("LogRecord #0")[1].split("ResourceLog")[0]
    attributes = dict(re.findall(r"^     -> (\S+): (.*)$", first, re.MULTILINE))
    assert attributes == {
        "k8s.cluster.name": "Str(lab)",
        "k8s.node.name": "Str(node1)",
        "transport": "Str(tcp)",
        "src.address": "Str(10.1.1.2)",
        "src.port": "Int(0)",
        "k8s.src.type": "Str(pod)",
        "k8s.src.namespace": "Str(shop)",
        "k8s.src.name": "Str(front-end-1)",
        "k8s.src.owner.name": "Str(front-end)",
        "k8s.src.node.name": "Str(node1)",
        "k8s.src.container.name": "Str(front-end)",
        "src.process.name": "Str(node)",
        "src.process.pid": "Int(71)",
        "dst.address": "Str(10.1.1.3)",
        "dst.port": "Int(8080)",
        "k8s.dst.type": "Str(pod)",
        "k8s.dst.namespace": "Str(shop)",
        "k8s.dst.name": "Str(carts-1)",
        "k8s.dst.owner.name": "Str(carts)",
        "k8s.dst.node.name": "Str(node2)",
        "dst.process.pid": "Int(0)",
        "original.src.address": "Str(10.1.1.2)",
        "k8s.original.src.type": "Str(pod)",
        "k8s.original.src.namespace": "Str(shop)",
        "k8s.original.src.name": "Str(front-end-1)",
        "k8s.original.src.owner.name": "Str(front-end)",
        "original.dst.address": "Str(10.100.0.9)",
        "original.dst.port": "Int(80)",
        "k8s.original.dst.type": "Str(service)",
        "k8s.original.dst.namespace": "Str(shop)",
        "k8s.original.dst.name": "Str(carts)",
        "k8s.original.dst.owner.name": "Str(carts)",
        "ringfence.method": "Str(syn)",
        "ringfence.forward.packets": "Int(5)",
        "ringfence.forward.bytes": "Int(500)",
        "ringfence.forward.flags": "Int(27)",
        "ringfence.forward.syn": "Int(3)",
        "ringfence.forward.fin": "Int(1)",
        "ringfence.forward.rst": "Int(0)",
        "ringfence.forward.retransmitted": "Int(7)",
        "ringfence.reverse.packets": "Int(4)",
        "ringfence.reverse.bytes": "Int(4000000000000)",
        "ringfence.reverse.flags": "Int(18)",
        "ringfence.reverse.syn": "Int(2)",
        "ringfence.reverse.fin": "Int(0)",
        "ringfence.reverse.rst": "Int(0)",
        "ringfence.reverse.retransmitted": "Int(0)",
        "ringfence.opened": f"Int({2**63 - 1})",
        "ringfence.answered": "Int(1)",
        "ringfence.refused": "Int(0)",
        "ringfence.rtt.samples": "Int(0)",
        "ringfence.rtt.sum_nano": "Int(0)",
        "ringfence.rtt.min_nano": "Int(0)",
        "ringfence.first_unix_nano": f"Int({START + 1})",
    }
    assert "Timestamp: 2030-03-17 17:46:41.5 +0000 UTC" in first
    assert "SeverityNumber: Info(9)" in first


@dataclass
class Receiver:
    """An HTTP server of one answer, and what it was sent."""

    port: int = 0
    status: str = "200 OK"
    body: bytes = b""
    heads: list[str] = field(default_factory=list)
    requests: list[ExportLogsServiceRequest] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = re.search(r"(?i)content-length: (\d+)", head)
        assert length
        self.heads.append(head)
        self.requests.append(
            ExportLogsServiceRequest.FromString(await reader.readexactly(int(length[1])))
        )
        answer = f"HTTP/1.1 {self.status}\r\nContent-Length: {len(self.body)}\r\n\r\n"
        writer.write(answer.encode() + self.body)
        await writer.drain()
        writer.close()
        await writer.wait_closed()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    made = Receiver()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    async with server:
        yield made


ROWS = batch(conversation(consumer_name=HOSTILE), conversation("fd00::2", provider_name=""))


async def test_names_are_values_and_headers_come_from_a_file(
    receiver: Receiver, tmp_path: Path
) -> None:
    secret = tmp_path / "headers"
    secret.write_text("Authorization: Bearer s3cret\nX-Scope-OrgID:shop\n")
    url = parse_url(f"otlp+http://127.0.0.1:{receiver.port}/otlp/?headers-file={secret}")
    exporter = make_exporter(url)
    await exporter.send(ROWS)
    await exporter.close()
    (head,) = receiver.heads
    assert head.startswith("POST /otlp/v1/logs HTTP/1.1\r\n")
    assert "\r\nauthorization: bearer s3cret\r\n" in head.lower()
    assert "\r\nx-scope-orgid: shop\r\n" in head.lower()
    assert "\r\ncontent-type: application/x-protobuf\r\n" in head.lower()
    (resource,) = receiver.requests[0].resource_logs
    first, second = (
        {one.key: one.value.string_value or one.value.int_value for one in record.attributes}
        for record in resource.scope_logs[0].log_records
    )
    assert (first["k8s.src.name"], first["src.address"]) == (HOSTILE, "10.1.1.2")
    assert (second["k8s.src.name"], second["src.address"]) == ("front-end-1", "fd00::2")
    assert "k8s.dst.name" not in second
    assert not any("original" in key for key in first)


@pytest.mark.parametrize(
    ("status", "after"),
    [("503 Unavailable\r\nRetry-After: 7", 7), ("429 Slow", 0), ("502 Bad", 0), ("504 Late", 0)],
)
async def test_a_busy_receiver_is_asked_again(
    receiver: Receiver, status: str, after: float
) -> None:
    receiver.status = status
    exporter = make_exporter(parse_url(f"otlp+http://127.0.0.1:{receiver.port}"))
    with pytest.raises(ExportError, match=status[:3]) as raised:
        await exporter.send(ROWS)
    await exporter.close()
    assert not isinstance(raised.value, RefusedError)
    assert raised.value.after == after


@pytest.mark.parametrize(
    ("status", "body", "lost", "says"),
    [
        ("400 Bad Request", b"", 2, "400 Bad Request"),
        ("401 Unauthorized", b"", 2, "401"),
        ("302 Found\r\nLocation: http://127.0.0.1:1/", b"", 2, "302"),
        (
            "200 OK",
            ExportLogsServiceResponse(
                partial_success=ExportLogsPartialSuccess(
                    rejected_log_records=1, error_message="too\nold"
                )
            ).SerializeToString(),
            1,
            r"'too\\nold'",
        ),
    ],
)
async def test_what_a_receiver_refuses_is_lost_and_counted(
    receiver: Receiver, status: str, body: bytes, lost: int, says: str
) -> None:
    receiver.status, receiver.body = status, body
    exporter = make_exporter(parse_url(f"otlp+http://127.0.0.1:{receiver.port}"))
    with pytest.raises(RefusedError, match=says) as refused:
        await exporter.send(ROWS)
    await exporter.close()
    assert refused.value.records == lost
    assert len(receiver.requests) == 1


async def test_what_does_not_speak_otlp_is_an_error(receiver: Receiver) -> None:
    receiver.body = b"<html>hello</html>"
    exporter = make_exporter(parse_url(f"otlp+http://127.0.0.1:{receiver.port}"))
    with pytest.raises(ExportError, match="the answer is not OTLP's"):
        await exporter.send(ROWS)
    await exporter.close()
