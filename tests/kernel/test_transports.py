"""Packets that no ordinary socket sends, at a pod's rules: fragments, and SCTP."""

import socket
import struct
from collections.abc import Iterator

import pytest

from ringfence.agent.mechanisms import Mechanism
from ringfence.model.policy import Action
from ringfence.model.protocol import SCTP, UDP, PortRange
from ringfence.policy.program import Rule
from tests.kernel.netns import Node, Pod, node_with_pods
from tests.kernel.test_backends import FRIENDS, drops, inbound, load
from tests.kernel.traffic import family, open_socket

OPEN, CLOSED = 5353, 5354
LARGE = bytes(6000)
"""Five fragments on a veth, of which only the first has ports."""


@pytest.fixture
def node() -> Iterator[Node]:
    with node_with_pods(2) as made:
        yield made


def allowed(protocol: int) -> Rule:
    ports = (PortRange(OPEN, OPEN),)
    return Rule("default/shop/p1/friends", Action.ALLOW, protocol, ports, FRIENDS)


@pytest.mark.parametrize("version", ["address", "address6"])
def test_fragments_are_judged_by_the_ports_of_the_whole(
    mechanism: Mechanism, node: Node, version: str
) -> None:
    client, server = node.pods
    mine, its = getattr(client, version), getattr(server, version)
    loaded = inbound(mechanism, server, mine, allowed=allowed(UDP))
    load(mechanism, server, loaded)
    for port, passes in ((OPEN, True), (CLOSED, False)):
        with (
            open_socket(server, its, socket.SOCK_DGRAM) as listening,
            open_socket(client, its, socket.SOCK_DGRAM) as sending,
        ):
            listening.bind((its, port))
            listening.settimeout(3 if passes else 0.3)
            sending.sendto(LARGE, (its, port))
            if passes:
                assert listening.recv(len(LARGE) + 1) == LARGE
            else:
                with pytest.raises(TimeoutError):
                    listening.recv(1)
    assert drops(mechanism, server, loaded) == {(mine, its, UDP, CLOSED): 1}


@pytest.mark.parametrize("version", ["address", "address6"])
def test_sctp_is_judged_by_its_ports(mechanism: Mechanism, node: Node, version: str) -> None:
    """Its INIT, from a raw socket and to one: whether or not the kernel has SCTP itself."""
    client, server = node.pods
    mine, its = getattr(client, version), getattr(server, version)
    loaded = inbound(mechanism, server, mine, allowed=allowed(SCTP))
    load(mechanism, server, loaded)
    with raw(server, its) as listening, raw(client, its) as sending:
        for port in (CLOSED, OPEN):
            sending.sendto(sctp_init(port), (its, 0))
        packet = listening.recv(2048)
        assert struct.unpack("!HH", packet[-24 - 8 :][:4]) == (1000, OPEN)
    assert drops(mechanism, server, loaded) == {(mine, its, SCTP, CLOSED): 1}


def raw(where: Pod, address: str) -> socket.socket:
    opened = where.call(lambda: socket.socket(family(address), socket.SOCK_RAW, SCTP))
    opened.settimeout(3)
    return opened


def sctp_init(port: int) -> bytes:
    """A chunk INIT (RFC 9260), 32 bytes with its header."""
    header, chunk = (
        struct.pack("!HHI", 1000, port, 0),
        struct.pack("!BBHIIHHI", 1, 0, 20, 1, 1500, 1, 1, 1),
    )
    checksum = crc32c(header + bytes(4) + chunk)
    return header + struct.pack("<I", checksum) + chunk


def crc32c(data: bytes) -> int:
    """RFC 9260, appendix A."""
    found = 0xFFFFFFFF
    for byte in data:
        found ^= byte
        for _ in range(8):
            found = found >> 1 ^ (0x82F63B78 if found & 1 else 0)
    return found ^ 0xFFFFFFFF
