"""Kafka messages through a real broker, that is away, comes back, and asks for a password."""

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from confluent_kafka import Consumer

from ringfence.control.pki import Authority
from ringfence.export.delivery import Delivery
from ringfence.export.errors import ExportError
from ringfence.export.kinds import make_exporter
from ringfence.export.url import parse_url
from ringfence.model.backoff import Backoff
from tests.integration.export.receivers import free_port, running, until
from tests.unit.export.conversations import batch, conversation

PASSWORD = "s3cret"  # of the test's own broker
SETTINGS = """
process.roles=broker,controller
node.id=1
listeners=PLAINTEXT://127.0.0.1:{plain},SASL_SSL://127.0.0.1:{tls},CONTROLLER://127.0.0.1:{quorum}
controller.quorum.voters=1@127.0.0.1:{quorum}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
log.dirs={directory}/data
offsets.topic.replication.factor=1
sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=\
org.apache.kafka.common.security.scram.ScramLoginModule required;
ssl.keystore.type=PEM
ssl.keystore.location={directory}/server.pem
"""


@dataclass
class Broker:
    """Apache Kafka, one node, with a listener for anybody and one that asks for TLS and a user."""

    jars: Path
    directory: Path
    plain: int
    tls: int

    @contextlib.asynccontextmanager
    async def run(self, program: str = "kafka.Kafka", *words: str) -> AsyncIterator[None]:
        settings = str(self.directory / "server.properties")
        java = ("java", "-Xmx256m", "-cp", f"{self.jars}/*", program, *words, settings)
        async with running(self.directory / "log", *java) as process:
            yield
            if program != "kafka.Kafka":
                assert await process.wait() == 0, (self.directory / "log").read_text()


@pytest.fixture
async def broker(kafka_jars: Path, tmp_path: Path) -> Broker:
    plain, tls, quorum = (free_port(socket.SOCK_STREAM) for _ in range(3))
    ports = {"plain": plain, "tls": tls, "quorum": quorum}
    text = SETTINGS.format(directory=tmp_path, **ports)
    (tmp_path / "server.properties").write_text(text)
    now_ns = time.time_ns()
    certificate, key = Authority.load(tmp_path, now_ns).server_certificate(["127.0.0.1"], now_ns)
    (tmp_path / "server.pem").write_bytes(key + certificate)
    made = Broker(kafka_jars, tmp_path, plain, tls)
    user = f"SCRAM-SHA-512=[name=ringfence,password={PASSWORD}]"
    tool = ("format", "-t", "A" * 22, "--add-scram", user, "-c")
    async with made.run("kafka.tools.StorageTool", *tool):
        pass
    return made


def read(broker: Broker, topic: str, count: int) -> list[int]:
    consumer = Consumer(
        {
            "bootstrap.servers": f"127.0.0.1:{broker.plain}",
            "group.id": "test",
            "auto.offset.reset": "earliest",
        }
    )
    consumer.subscribe([topic])
    try:
        messages = consumer.consume(count, timeout=30)
        return [json.loads(message.value() or b"")["opened"] for message in messages]
    finally:
        consumer.close()


@pytest.mark.timeout(300)
async def test_a_broker_that_comes_back_gets_everything_once(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ringfence.export.kafka._TIMEOUT_SECONDS", 2)
    exporter = make_exporter(parse_url(f"kafka://127.0.0.1:{broker.plain}/flows"))
    delivery = Delivery("kafka", exporter, Backoff(first=0.1, most=0.1))
    await delivery.start()
    try:
        delivery.offer(batch(conversation(opened=1)))
        await until(lambda: not delivery.up)
        async with broker.run():
            await until(lambda: delivery.sent == 1)
        delivery.offer(batch(conversation(opened=2), conversation(opened=3)))
        await until(lambda: not delivery.up)
        async with broker.run():
            await until(lambda: delivery.sent == 3)
            assert await asyncio.to_thread(read, broker, "flows", 3) == [1, 2, 3]
    finally:
        await delivery.stop()
    assert not delivery.dropped.total()


@pytest.mark.timeout(300)
async def test_tls_and_a_password_out_of_a_file(
    broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ringfence.export.kafka._TIMEOUT_SECONDS", 5)
    right, wrong = tmp_path / "right", tmp_path / "wrong"
    right.write_text(f"{PASSWORD}\n")
    wrong.write_text("guessed")
    place = f"kafka+tls://127.0.0.1:{broker.tls}/secured"
    trust = f"ca-file={tmp_path / 'ca.pem'}"
    async with broker.run():
        exporter = make_exporter(
            parse_url(f"{place}?{trust}&username=ringfence&password-file={right}")
        )
        delivery = Delivery("kafka", exporter, Backoff(first=0.1, most=0.1))
        await delivery.start()
        delivery.offer(batch(conversation(opened=7)))
        await until(lambda: delivery.sent == 1)
        await delivery.stop()
        assert await asyncio.to_thread(read, broker, "secured", 1) == [7]
        stranger = make_exporter(
            parse_url(f"{place}?{trust}&username=ringfence&password-file={wrong}")
        )
        with pytest.raises(ExportError, match="Authentication failed") as raised:
            await stranger.send(batch(conversation(opened=8)))
        await stranger.close()
        assert "guessed" not in str(raised.value)
