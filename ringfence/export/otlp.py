"""OpenTelemetry log records over OTLP/HTTP in protobuf, one for each conversation.

Attributes have the names that OpenTelemetry's own network flows have (OBI), where it has them.
"""

import asyncio
import ssl
import time
from collections.abc import Iterator
from http import HTTPStatus

import httpx
import pyarrow as pa
import pyarrow.compute as pc
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, SeverityNumber

from ringfence import __version__
from ringfence.export.errors import ExportError, RefusedError
from ringfence.export.interface import Exporter
from ringfence.export.record import TCP_COUNTS, address_text, dictionary
from ringfence.export.url import ExportUrl
from ringfence.model.errors import InputError
from ringfence.model.protocol import format_protocol

_PATH = "/v1/logs"
_TIMEOUT_SECONDS = 30.0
_LARGEST_INT = 2**63 - 1
_TOLD = 200  # characters of what a stranger says

_AGAIN = frozenset(
    {
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.SERVICE_UNAVAILABLE,
        HTTPStatus.GATEWAY_TIMEOUT,
    }
)
"""Answers after which the same request may be made again (OTLP specification, failures)."""


_NUMBERS = {
    "src.port": "consumer_port",
    "dst.port": "provider_port",
    "src.process.pid": "consumer_pid",
    "dst.process.pid": "provider_pid",
    **{
        f"ringfence.{way}.{what}": f"{way}_{what}"
        for way in ("forward", "reverse")
        for what in ("packets", "bytes", "flags", *TCP_COUNTS)
    },
    "ringfence.opened": "opened",
    "ringfence.answered": "answered",
    "ringfence.refused": "refused",
    "ringfence.rtt.samples": "rtt_samples",
    "ringfence.rtt.sum_nano": "rtt_sum_ns",
    "ringfence.rtt.min_nano": "rtt_min_ns",
    "ringfence.first_unix_nano": "first_ns",
}
"""Attribute: column."""


class Otlp(Exporter):
    """`otlp+http://HOST:4318` or `otlp+https://HOST`, `?headers-file=PATH&ca-file=PATH`.

    The file of headers has lines `Name: value`, for tokens.
    """

    options = frozenset({"headers-file", "ca-file"})

    def __init__(self, url: ExportUrl) -> None:
        scheme = url.scheme.removeprefix("otlp+")
        host, port = url.host(443 if scheme == "https" else 4318)
        place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._url = f"{scheme}://{place}{url.path.removesuffix(_PATH).rstrip('/')}{_PATH}"
        self._headers = {"content-type": "application/x-protobuf", **dict(_headers(url))}
        if "ca-file" in url.options and scheme != "https":
            raise InputError(f"export {url}: ca-file is for otlp+https")
        try:
            self._trusted = ssl.create_default_context(cafile=url.options.get("ca-file"))
        except OSError as error:  # SSLError is one
            raise InputError(f"export {url}: ca-file is no file of certificates in PEM") from error
        self._client: httpx.AsyncClient | None = None

    async def send(self, conversations: pa.RecordBatch) -> None:
        """Post one request."""
        body = await asyncio.to_thread(encode, conversations)
        if self._client is None:
            self._client = httpx.AsyncClient(
                headers=self._headers,
                verify=self._trusted,
                timeout=_TIMEOUT_SECONDS,
                trust_env=False,
            )
        try:
            answer = await self._client.post(self._url, content=body)
        except httpx.HTTPError as error:
            raise ExportError(f"{self._url}: {str(error) or type(error).__name__}") from error
        self._judge(answer, len(conversations))

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    def _judge(self, answer: httpx.Response, records: int) -> None:
        told = f"{self._url}: {answer.status_code} {answer.reason_phrase}"
        if answer.status_code in _AGAIN:
            after = answer.headers.get("retry-after", "")
            raise ExportError(told, after=float(after) if after.isdecimal() else 0.0)
        if not answer.is_success:
            raise RefusedError(told, records)
        try:
            partial = ExportLogsServiceResponse.FromString(answer.content).partial_success
        except DecodeError as error:
            raise ExportError(f"{self._url}: the answer is not OTLP's") from error
        if partial.rejected_log_records:
            raise RefusedError(
                f"{self._url}: {partial.error_message[:_TOLD]!r}", partial.rejected_log_records
            )


def _headers(url: ExportUrl) -> Iterator[tuple[str, str]]:
    for line in url.content("headers-file").splitlines():
        name, colon, value = line.partition(":")
        if not (colon and name.strip().isascii() and name.strip() and value.isascii()):
            raise InputError(f"export {url}: a line of headers-file is not 'Name: value'")
        yield name.strip(), value.strip()


def encode(conversations: pa.RecordBatch) -> bytes:
    """CONVERSATIONS as an ExportLogsServiceRequest.

    A protobuf message is the concatenation of its fields (Protocol Buffers, Encoding), so that a
    record is its columns' encodings joined. Of a column's strings each distinct one is encoded.
    """
    protocols = [format_protocol(number).lower() for number in range(256)]
    fields = [
        _numbers(conversations),
        _attributes("k8s.cluster.name", conversations["kubernetes_cluster"]),
        _attributes("k8s.node.name", conversations["node"]),
        _attributes("transport", pa.array(protocols).take(conversations["protocol"])),
        *_end("src", conversations, "consumer"),
        *_local("src", conversations, "consumer"),
        *_end("dst", conversations, "provider"),
        *_local("dst", conversations, "provider"),
        _attributes("dns.question.name", conversations["provider_dns_name"]),
        *_end("original.src", conversations, "first_consumer"),
        *_end("original.dst", conversations, "dialled"),
        _original(conversations, "original.dst.port", conversations["dialled_port"]),
        _attributes("ringfence.method", conversations["method"]),
    ]
    request = ExportLogsServiceRequest()
    logs = request.resource_logs.add()
    logs.resource.attributes.append(_attribute("service.name", "ringfence"))
    scope = logs.scope_logs.add()
    scope.scope.name, scope.scope.version = "ringfence.export", __version__
    for record in pc.binary_join_element_wise(*fields, b"").to_pylist():
        scope.log_records.add().ParseFromString(record)
    return request.SerializeToString()


def _numbers(conversations: pa.RecordBatch) -> pa.Array:
    """Times and counts, which seldom repeat: one record takes them all in turn."""
    attributes = [_attribute(key, 0) for key in _NUMBERS]
    record = LogRecord(
        observed_time_unix_nano=time.time_ns(),
        severity_number=SeverityNumber.SEVERITY_NUMBER_INFO,
        event_name="ringfence.conversation",
        attributes=attributes,
    )
    slots = [attribute.value for attribute in record.attributes]
    columns = [conversations[name].to_pylist() for name in _NUMBERS.values()]
    encoded = []
    for last_ns, *numbers in zip(conversations["last_ns"].to_pylist(), *columns, strict=True):
        record.time_unix_nano = max(0, last_ns)
        for slot, number in zip(slots, numbers, strict=True):
            slot.int_value = min(number, _LARGEST_INT)
        encoded.append(record.SerializeToString())
    return pa.array(encoded, pa.binary())


def _local(name: str, conversations: pa.RecordBatch, end: str) -> Iterator[pa.Array]:
    yield _attributes(f"k8s.{name}.node.name", conversations[f"{end}_node"])
    yield _attributes(f"{name}.process.name", conversations[f"{end}_process"])
    yield _attributes(f"k8s.{name}.container.name", conversations[f"{end}_container"])


def _end(name: str, conversations: pa.RecordBatch, end: str) -> Iterator[pa.Array]:
    columns = {
        f"{name}.address": address_text(conversations[end]),
        f"k8s.{name}.type": conversations[f"{end}_kind"],
        f"k8s.{name}.namespace": conversations[f"{end}_namespace"],
        f"k8s.{name}.name": conversations[f"{end}_name"],
        f"k8s.{name}.owner.name": conversations[f"{end}_owner"],
    }
    for key, column in columns.items():
        if name.startswith("original."):
            yield _original(conversations, key, column.cast(pa.string()))
        else:
            yield _attributes(key, column)


def _original(conversations: pa.RecordBatch, key: str, column: pa.Array) -> pa.Array:
    """An attribute of what was translated, absent where nothing was."""
    absent = pa.scalar(None, column.type)
    return _attributes(key, pc.if_else(conversations["translated"], column, absent))


def _attributes(key: str, column: pa.Array) -> pa.Array:
    """An attribute for each row, absent where null or empty."""
    joined = dictionary(column)
    encoded = [
        LogRecord(attributes=[_attribute(key, value)]).SerializeToString() if value != "" else b""
        for value in joined.dictionary.to_pylist()
    ]
    return pa.array(encoded, pa.binary()).take(joined.indices).fill_null(b"")


def _attribute(key: str, value: str | int) -> KeyValue:
    told = AnyValue(string_value=value) if isinstance(value, str) else AnyValue(int_value=value)
    return KeyValue(key=key, value=told)
