"""Conversations as JSON to a Kafka topic, one message each."""

import asyncio
import logging
from collections.abc import Iterable
from typing import Any

import pyarrow as pa
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from ringfence.export.errors import ExportError
from ringfence.export.interface import Exporter
from ringfence.export.lines import lines
from ringfence.export.url import ExportUrl
from ringfence.model.errors import InputError

_PORT = 9092
_MECHANISMS = ("SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN")
_TIMEOUT_SECONDS = 20
_FLUSH_SECONDS = 2.0 * _TIMEOUT_SECONDS

_SILENT = logging.getLogger("ringfence.export.kafka")
"""librdkafka writes to stderr, in a form of its own, if it is given no logger."""
_SILENT.addHandler(logging.NullHandler())
_SILENT.propagate = False


class Kafka(Exporter):
    """`kafka://HOST:9092,HOST…/TOPIC`, or `kafka+tls://` with `?ca-file=PATH&username=NAME&…`.

    With a user come `password-file=PATH` and `mechanism=SCRAM-SHA-512` (also SCRAM-SHA-256, PLAIN).
    """

    options = frozenset({"ca-file", "username", "password-file", "mechanism"})

    def __init__(self, url: ExportUrl) -> None:
        named, secured = "username" in url.options, "password-file" in url.options
        if url.scheme == "kafka+tls" and named != secured:
            raise InputError(f"export {url}: give both username and password-file, or neither")
        self._messages = Messages(url, url.content("password-file"))

    async def send(self, conversations: pa.RecordBatch) -> None:
        """Send all messages, and wait until all in-sync replicas have them."""
        await asyncio.to_thread(self._send, conversations)

    def _send(self, conversations: pa.RecordBatch) -> None:
        self._messages.send(lines(conversations).to_pylist())

    async def close(self) -> None:
        """Forget what is not delivered, and close the connections."""
        await self._messages.close()


class Messages:
    """Sends messages to the topic of a URL. Not for concurrent use."""

    def __init__(self, url: ExportUrl, password: str) -> None:
        """Inert; raises InputError where the URL does not fit."""
        brokers = url.hosts(_PORT)
        self._topic = url.path.removeprefix("/")
        if not self._topic or "/" in self._topic:
            raise InputError(f"export {url}: write kafka://HOST:PORT/TOPIC")
        self._name = str(url)
        self._settings = {
            "bootstrap.servers": ",".join(
                f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in brokers
            ),
            "client.id": "ringfence",
            "compression.type": "zstd",
            "enable.idempotence": True,  # the client's own retries make no duplicates
            "message.timeout.ms": _TIMEOUT_SECONDS * 1000,
            "error_cb": self._hear,
            **_security(url, password),
        }
        self._heard = ""
        self._producer: Producer | None = None

    def send(self, messages: Iterable[bytes | str], key: bytes | None = None) -> None:
        """Send all, and wait until all in-sync replicas have them; raises ExportError."""
        self._heard = ""
        lost: list[KafkaError] = []

        def delivered(error: KafkaError | None, _: Message) -> None:
            if error is not None:
                lost.append(error)

        try:
            producer = self._producer or Producer(self._settings, logger=_SILENT)
            self._producer = producer
            for one in messages:
                producer.produce(self._topic, one, key, on_delivery=delivered)
            waiting = producer.flush(_FLUSH_SECONDS)
        except (KafkaException, BufferError) as error:
            raise ExportError(f"{self._name}: {error}") from error
        if lost or waiting:
            told = self._heard or (lost[0].str() if lost else "no answer")
            raise ExportError(f"{self._name}: {told}")

    async def close(self) -> None:
        """Forget what is not delivered, and close the connections."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await asyncio.to_thread(_discard, producer)

    def _hear(self, error: KafkaError) -> None:
        """Keep what broke a connection: a message itself says only that it waited too long."""
        if error.code() != KafkaError._ALL_BROKERS_DOWN:  # noqa: SLF001 - librdkafka's own codes
            self._heard = error.str()


def _security(url: ExportUrl, password: str) -> dict[str, Any]:
    tls = url.scheme == "kafka+tls"
    if not tls and (url.options or password):
        wrong = min(url.options, default="a password")
        raise InputError(f"export {url}: {wrong} is for kafka+tls")
    if ("username" in url.options) != bool(password):
        raise InputError(f"export {url}: a username and a password go together")
    if not tls:
        return {}
    url.content("ca-file")  # librdkafka would open it later
    settings = {"security.protocol": "SSL", "ssl.ca.location": url.options.get("ca-file", "probe")}
    if "username" not in url.options:
        return settings
    mechanism = url.options.get("mechanism", _MECHANISMS[0])
    if mechanism not in _MECHANISMS:
        raise InputError(f"export {url}: mechanism is one of {', '.join(_MECHANISMS)}")
    return settings | {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": mechanism,
        "sasl.username": url.options["username"],
        "sasl.password": password,
    }


def _discard(producer: Producer) -> None:
    producer.purge()
    producer.flush(1.0)
