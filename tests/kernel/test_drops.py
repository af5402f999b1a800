"""Drops by rules that are not ours, as the kernel tells of them."""

import contextlib
import socket
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from ringfence.kernel.bpf import object_path
from ringfence.kernel.drops import DropCapture
from ringfence.kernel.netns import inode
from tests.kernel.frames import ethernet, ipv6, packed, udp
from tests.kernel.netns import Namespace, Node, node_with_pods
from tests.kernel.traffic import open_socket, ping
from tests.kernel.txring import TxRing

PORTS = {"output": 7001, "input": 7002, "forward": 7003}


@pytest.fixture
def drops() -> Iterator[DropCapture]:
    capture = DropCapture(object_path("drop"))
    capture.open()
    yield capture
    capture.close()


@pytest.fixture
def node() -> Iterator[Node]:
    """Pod 1 drops what it sends to 7001, pod 2 what it gets on 7002, the node forwards no 7003."""
    with node_with_pods(2) as node:
        for where, hook in zip((*node.pods, node), PORTS, strict=True):
            where.nft(
                f"""
                table inet t {{
                    chain c {{
                        type filter hook {hook} priority 0
                        udp dport {PORTS[hook]} drop
                    }}
                }}
                """
            )
        yield node


def of(drops: np.ndarray[Any, Any], where: Namespace) -> list[Any]:
    return [
        (int(row["protocol"]), row["src"].tobytes(), row["dst"].tobytes(),
         int(row["dport"]), int(row["packets"]), int(row["bytes"]))
        for row in drops[drops["netns"] == inode(where.path)]
    ]  # fmt: skip


@pytest.mark.parametrize("version", [4, 6])
def test_a_drop_is_told_with_its_namespace_and_tuple(
    version: int, node: Node, drops: DropCapture
) -> None:
    client, server = node.pods
    source, target = [p.address if version == 4 else p.address6 for p in node.pods]
    header = 28 if version == 4 else 48
    with open_socket(client, target, socket.SOCK_DGRAM) as sender:
        sender.bind((source, 5555))
        for port in PORTS.values():
            for size in (10, 20):
                try:
                    sender.sendto(bytes(size), (target, port))
                except PermissionError:  # what an output drop says to its own sender
                    assert port == PORTS["output"]
    assert ping(client, target)
    time.sleep(0.1)
    found = drops.drain()
    for where, hook in zip((client, server, node), PORTS, strict=True):
        assert of(found, where) == [
            (17, packed(source), packed(target), PORTS[hook], 2, 30 + 2 * header)
        ]
    assert set(found[found["netns"] == inode(node.path)]["sport"]) == {5555}
    assert not any(of(drops.drain(), where) for where in (node, client, server))


def test_ports_that_stand_outside_of_the_first_piece_are_not_made_up(
    node: Node, drops: DropCapture
) -> None:
    # Before routing, which pulls ports into the first piece.
    node.nft("add table ip6 t; add chain ip6 t c { type filter hook prerouting priority 0; }; "
             "add rule ip6 t c udp dport 7004 drop")  # fmt: skip
    to_all = b"\x33\x33" + ethernet(0x86DD, ipv6(17, udp(5555, 7004)))[2:]
    with contextlib.closing(TxRing(node.pods[0], "eth0", [to_all] * 512)) as ring:
        ring.send()
        time.sleep(0.1)
    assert of(drops.drain(), node) == []
    assert drops.losses().unparsed >= 512


def test_what_cannot_be_parsed_is_a_loss_of_the_namespace_that_dropped_it(
    node: Node, drops: DropCapture
) -> None:
    """Whether it is ours: the kernel tells the drops of the whole machine."""
    pod, other = node.pods
    pod.nft("add table netdev t; add chain netdev t c "
            "{ type filter hook egress device eth0 priority 0; }; "
            "add rule netdev t c ether type 0x88b5 drop")  # fmt: skip
    with pod.call(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)) as sender:
        pod.call(lambda: sender.bind(("eth0", 0)))
        for _ in range(3):
            with contextlib.suppress(OSError):
                sender.send(ethernet(0x88B5, bytes(60)))
    time.sleep(0.1)
    assert of(drops.drain(), pod) == []
    assert drops.losses({inode(pod.path)}).unparsed == 3
    assert drops.losses({inode(node.path), inode(other.path)}).unparsed == 0


def test_drops_beyond_the_room_are_counted(node: Node) -> None:
    drops = DropCapture(object_path("drop"), max_drops=32)
    drops.open()
    try:
        for port in range(6000, 6100):
            with open_socket(node.pods[0], node.pods[1].address, socket.SOCK_DGRAM) as sender:
                sender.bind((node.pods[0].address, port))
                sender.sendto(b"x", (node.pods[1].address, PORTS["forward"]))
        time.sleep(0.1)
        kept = len(of(drops.drain(), node))
        assert 0 < kept < 100
        assert drops.losses().full >= 100 - kept
    finally:
        drops.close()
