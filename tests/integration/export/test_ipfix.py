"""IPFIX as others read it: nfdump over UDP, python-ipfix over TCP, and message by message."""

import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest

from ringfence.export.delivery import Delivery
from ringfence.export.errors import ExportError
from ringfence.export.ipfix import Ipfix
from ringfence.export.url import parse_url
from ringfence.model.backoff import Backoff
from ringfence.model.protocol import ICMP, ICMPV6, UDP
from tests.integration.export.receivers import free_port, running, said, until
from tests.unit.export.conversations import batch, conversation

COLLECTOR = Path(__file__).with_name("collect_ipfix.py")
PYTHON = Path("/usr/bin/python3")
ROWS = batch(
    conversation(opened=2**40),
    conversation("fd00::2", "fd00::3", protocol=UDP, consumer_port=40_000, provider_port=53),
    conversation(protocol=ICMP, provider_port=0x0801, forward_flags=0, reverse_flags=0),
    conversation("fd00::2", "203.0.113.9", protocol=ICMPV6, provider_port=0x8000),
)


def exporter(transport: str, port: int, host: str = "127.0.0.1", **more: Any) -> Ipfix:
    return Ipfix(parse_url(f"ipfix+{transport}://{host}:{port}"), **more)


async def test_nfdump_reads_tuples_and_counts_over_udp(tmp_path: Path) -> None:
    port, log = free_port(socket.SOCK_DGRAM), tmp_path / "log"
    flows = tmp_path / "flows"
    flows.mkdir()
    argv = ["nfcapd", "-w", str(flows), "-b", "127.0.0.1", "-p", str(port), "-t", "3600"]
    async with running(log, *argv):
        await until(said(log, "Startup nfcapd"))
        sent = exporter("udp", port)
        for _ in range(3):
            await sent.send(ROWS)
        await sent.close()
        await asyncio.sleep(0.5)  # nfcapd tells nobody what it has read
    assert "Flows: 12, " in log.read_text()
    assert "Sequence Errors: 0, Bad Packets: 0" in log.read_text()
    told = await asyncio.create_subprocess_exec(
        "nfdump", "-R", flows, "-o", "json", stdout=asyncio.subprocess.PIPE
    )
    records = json.loads((await told.communicate())[0])
    (tcp, *_), (udp, *_), (icmp, *_), (icmp6, *_) = (
        [record for record in records if record["proto"] == number]
        for number in (6, UDP, ICMP, ICMPV6)
    )
    for record in (tcp, udp, icmp, icmp6):
        assert (record["first"], record["last"]) == (
            "2030-03-17T17:46:40.000",
            "2030-03-17T17:46:41.500",
        )
        assert (record["in_packets"], record["in_bytes"]) == (5, 500)
        assert (record["out_packets"], record["out_bytes"]) == (4, 4_000_000_000_000)
    assert (tcp["src4_addr"], tcp["dst4_addr"], tcp["dst_port"]) == ("10.1.1.2", "10.1.1.3", 8080)
    assert tcp["tcp_flags"] == "...AP.SF"
    assert (udp["src6_addr"], udp["dst6_addr"]) == ("fd00::2", "fd00::3")
    assert (udp["src_port"], udp["dst_port"]) == (40_000, 53)
    assert (icmp["icmp_type"], icmp["icmp_code"]) == (8, 1)
    assert (icmp6["icmp_type"], icmp6["dst6_addr"]) == (128, "::ffff:203.0.113.9")


def records(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]


async def test_another_collector_reads_every_element_over_tcp(tmp_path: Path) -> None:
    port, log = free_port(socket.SOCK_STREAM), tmp_path / "log"
    many = batch(*(conversation() for _ in range(2000)))
    async with running(log, PYTHON, COLLECTOR, str(port)):
        await until(said(log, "ready"))
        sent = exporter("tcp", port)
        await sent.send(ROWS)
        await sent.send(many)
        await sent.close()
        await until(said(log, "messages"))
    tcp, *others, session = records(log)
    assert tcp == {
        "sourceIPv4Address": "10.1.1.2",
        "destinationIPv4Address": "10.1.1.3",
        "sourceTransportPort": 0,
        "destinationTransportPort": 8080,
        "protocolIdentifier": 6,
        "biflowDirection": 1,
        "flowStartMilliseconds": "2030-03-17 17:46:40",
        "flowEndMilliseconds": "2030-03-17 17:46:41.500000",
        "octetDeltaCount": 500,
        "packetDeltaCount": 5,
        "tcpControlBits": 0x1B,
        "reverseOctetDeltaCount": 4_000_000_000_000,
        "reversePacketDeltaCount": 4,
        "reverseTcpControlBits": 0x12,
        "connectionCountNew": 2**32 - 1,
        "tcpSynTotalCount": 3,
        "tcpFinTotalCount": 1,
        "tcpRstTotalCount": 0,
        "reverseTcpSynTotalCount": 2,
        "reverseTcpFinTotalCount": 0,
        "reverseTcpRstTotalCount": 0,
    }
    assert len(others) == 3 + 2000
    assert {record.get("icmpTypeCodeIPv4") for record in others} == {None, 0x0801}
    assert {record.get("icmpTypeCodeIPv6") for record in others} == {None, 0x8000}
    before = 0
    for sequence, rows, length in session["messages"]:
        assert sequence == before, "each message counts the data records before it"
        assert length <= 65_535
        before += rows


async def test_a_collector_that_comes_back_over_tcp_gets_everything(tmp_path: Path) -> None:
    port, log = free_port(socket.SOCK_STREAM), tmp_path / "log"
    delivery = Delivery("ipfix", exporter("tcp", port), Backoff(first=0.05, most=0.05))
    await delivery.start()
    try:
        delivery.offer(batch(conversation(opened=1)))
        await until(lambda: not delivery.up)
        for opened in (2, 3):
            async with running(log, PYTHON, COLLECTOR, str(port)):
                await until(lambda: delivery.up and not delivery.queued_bytes)
                await until(said(log, f'"connectionCountNew": {opened - 1}'))
            delivery.offer(batch(conversation(opened=opened)))
            await until(lambda: not delivery.up)
        assert delivery.sent == 2
        got = [row["connectionCountNew"] for row in records(log) if "connectionCountNew" in row]
        assert got == [1, 2]
    finally:
        await delivery.stop()
    assert delivery.dropped["stopped"] == 1


async def test_a_collector_that_does_not_read_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ringfence.export.ipfix._TIMEOUT_SECONDS", 0.2)
    many = batch(*(conversation() for _ in range(2000)))
    with socket.create_server(("127.0.0.1", 0)) as held:
        sent = exporter("tcp", held.getsockname()[1])

        async def fill_buffers() -> None:
            for _ in range(200):
                await sent.send(many)

        with pytest.raises(ExportError, match="it does not read"):
            await fill_buffers()
        await sent.close()


@contextlib.contextmanager
def listening(host: str = "127.0.0.1") -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as held:
        held.bind((host, 0))
        held.settimeout(5)
        yield held


def message(held: socket.socket, domain: int = crc32(b"lab")) -> tuple[int, int, int]:
    """Length, sequence number and set id of the next message."""
    data = held.recv(65_536)
    version, length, _, sequence, of, set_id, set_length = struct.unpack_from("!HHIIIHH", data)
    assert (version, length, of, set_length) == (10, len(data), domain, len(data) - 16)
    return length, sequence, set_id


async def test_udp_repeats_templates_counts_on_and_fits_the_path(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ringfence.export.ipfix._largest_datagram", lambda _: 1472)
    now = 1_000.0
    with listening() as held:
        sent = exporter("udp", held.getsockname()[1], clock=lambda: now)
        await sent.send(batch(*(conversation() for _ in range(41))))
        seen = [message(held) for _ in range(4)]
        assert [told[1:] for told in seen] == [(0, 2), (0, 256), (15, 256), (30, 256)]
        assert all(length <= 1472 for length, _, _ in seen)
        now += 59
        await sent.send(batch(conversation()))
        assert message(held)[1:] == (41, 256)
        now += 1
        await sent.send(batch(conversation()))
        assert message(held)[1:] == (42, 2)
        assert message(held)[1:] == (42, 256)
        await sent.send(batch(conversation(kubernetes_cluster="")))
        assert [message(held, domain=0)[1:] for _ in range(2)] == [(0, 2), (0, 256)]
        await sent.close()


MTU = int(Path("/sys/class/net/lo/mtu").read_text())


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_a_datagram_is_as_large_as_the_path_takes_whole(host: str) -> None:
    with listening(host) as held:
        sent = exporter("udp", held.getsockname()[1], f"[{host}]" if ":" in host else host)
        await sent.send(batch(*(conversation() for _ in range(2000))))
        messages = [message(held) for _ in range(4)]
        await sent.close()
    assert max(length for length, _, _ in messages) in range(min(MTU, 65_535) - 48 - 94, MTU - 27)


@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_nobody_there_is_an_error_that_names_the_receiver(transport: str) -> None:
    kind = socket.SOCK_DGRAM if transport == "udp" else socket.SOCK_STREAM
    port = free_port(kind)
    sent = exporter(transport, port)
    if transport == "udp":  # a datagram's fate is known when the next one is sent
        with contextlib.suppress(ExportError):
            await sent.send(ROWS)
        await asyncio.sleep(0.05)
    with pytest.raises(ExportError, match=f"127.0.0.1 port {port}: Connection refused"):
        await sent.send(ROWS)
    await sent.close()
