"""Flow capture on real traffic, held against the interfaces' own counters."""

import ctypes
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from ringfence.agent.capture import Capture
from ringfence.flows.record import Hook, Nat
from ringfence.kernel.capture import FlowCapture
from ringfence.kernel.errors import BpfError
from ringfence.kernel.interfaces import Interface
from tests.kernel.frames import packed
from tests.kernel.netns import Namespace, Node, Pod, ip, namespace, node_with_pods
from tests.kernel.observe import (
    COUNTERS,
    ICMP,
    TCP,
    UDP,
    Fields,
    attach,
    attach_quiet,
    only,
    pick,
    read_quiet,
)
from tests.kernel.traffic import in_order, open_socket, ping, tcp_echo, tcp_exchange
from tests.kernel.tun import open_tun


@pytest.mark.parametrize("version", [4, 6])
def test_a_tcp_exchange_is_counted_to_the_byte_at_all_four_hooks(
    version: int, capture: FlowCapture
) -> None:
    headers = {4: 40, 6: 60}[version] + 12  # TCP with its time stamp option
    payload = 300_000
    with node_with_pods(2) as node:
        client, server = node.pods
        source, target = [p.address if version == 4 else p.address6 for p in node.pods]
        attach(capture, node)
        started = time.time_ns()
        with in_order(client, server), tcp_echo(server, target, 8080):
            port = tcp_exchange(client, target, 8080, bytes(payload))
        time.sleep(0.05)
        flows = capture.drain()
    there: Fields = {"protocol": TCP, "src": source, "sport": port, "dst": target, "dport": 8080}
    back: Fields = {"protocol": TCP, "src": target, "sport": 8080, "dst": source, "dport": port}
    requests = [
        only(flows, client, Hook.INGRESS, **there), only(flows, server, Hook.EGRESS, **there),
    ]  # fmt: skip
    replies = [
        only(flows, server, Hook.INGRESS, **back), only(flows, client, Hook.EGRESS, **back),
    ]  # fmt: skip
    for record in requests + replies:
        # The handshake packet carries 8 bytes of options more than the others.
        assert record["bytes"] == payload + headers * record["packets"] + 8
        assert record["packets"] > payload // 1500
        assert record["fin"] == 1
        assert record["rst"] == 0
        assert started < record["first_ns"] < record["last_ns"] < time.time_ns()
    assert [(int(r["syn"]), int(r["synack"])) for r in requests] == [(1, 0)] * 2
    assert [(int(r["syn"]), int(r["synack"])) for r in replies] == [(0, 1)] * 2
    for records in (requests, replies):
        assert records[0]["packets"] == records[1]["packets"]


def test_icmp_udp_and_a_refused_port(capture: FlowCapture) -> None:
    with node_with_pods(2) as node:
        client, server = node.pods
        attach(capture, node)
        assert ping(client, server.address)
        with open_socket(client, server.address, socket.SOCK_DGRAM) as sender:
            sender.connect((server.address, 9))
            sender.send(bytes(72))
            with pytest.raises(ConnectionRefusedError):
                sender.recv(1)
        flows = capture.drain()
    echo = only(flows, client, Hook.INGRESS, protocol=ICMP, sport=8, dport=0)
    assert (echo["packets"], echo["bytes"]) == (1, 36)
    datagram = only(flows, server, Hook.EGRESS, protocol=UDP, dport=9)
    assert (datagram["packets"], datagram["bytes"]) == (1, 100)
    unreachable = only(flows, server, Hook.INGRESS, protocol=ICMP, sport=3, dport=3)
    assert (unreachable["packets"], unreachable["bytes"]) == (1, 20 + 8 + 100)


def test_the_audit_agrees_with_the_interfaces_and_with_the_records(capture: FlowCapture) -> None:
    """Design relation: ingress = rx_packets, egress = tx_packets + tx_dropped."""
    with node_with_pods(2) as node:
        client, server = node.pods
        for pod in node.pods:
            ip("-n", pod.name, "neigh", "flush", "all")
            for place, device in ((pod, "eth0"), (node, pod.host_device)):
                place.run("ethtool", "-K", device, "tso", "off", "gso", "off", "gro", "off")
        before = attach_quiet(capture, node)
        with tcp_echo(server, server.address, 80):
            tcp_exchange(client, server.address, 80, bytes(50_000))
        assert ping(client, server.address6)
        after, audit, flows = read_quiet(capture, node)
    for pod, start, end in zip(node.pods, before, after, strict=True):
        moved = {name: end[name] - start[name] for name in COUNTERS}
        rows = {Hook(r["hook"]): r for r in audit if r["ifindex"] == pod.host_ifindex}
        assert rows[Hook.INGRESS]["skbs"] == moved["rx_packets"]
        assert rows[Hook.INGRESS]["bytes"] == moved["rx_bytes"]
        assert rows[Hook.EGRESS]["skbs"] == moved["tx_packets"] + moved["tx_dropped"]
        assert rows[Hook.EGRESS]["bytes"] == moved["tx_bytes"]
        for hook, row in rows.items():
            records = pick(flows, pod, hook)
            assert row["non_ip"] >= 1  # ARP, 42 bytes a frame
            assert row["skbs"] == records["packets"].sum() + row["non_ip"]
            frames = records["bytes"].sum() + 14 * records["packets"].sum()
            assert row["bytes"] == frames + 42 * row["non_ip"]
            assert not any(row[name] for name in ("truncated", "bad_header", "bad_length"))
            assert not row["full_skbs"]


SERVICE = "10.96.0.10"


@pytest.fixture
def translated() -> Iterator[Node]:
    """A node that translates SERVICE:80 to pod 2, port 8080, and masquerades towards pod 2."""
    with node_with_pods(2) as node:
        node.nft(
            f"""
            table ip nat {{
                chain pre {{
                    type nat hook prerouting priority dstnat
                    ip daddr {SERVICE} tcp dport 80 dnat to {node.pods[1].address}:8080
                    ip daddr {SERVICE} udp dport 80 dnat to {node.pods[1].address}:8080
                }}
                chain post {{
                    type nat hook postrouting priority srcnat
                    tcp dport 8081 masquerade
                }}
            }}
            """
        )
        yield node


def original_of(client: Pod, sport: int, dst: str, dport: int) -> Fields:
    return {
        "nat": Nat.TRANSLATED,
        "original_src": client.address,
        "original_sport": sport,
        "original_dst": dst,
        "original_dport": dport,
    }


def test_both_records_of_a_dnat_connection_carry_its_original_tuple(
    translated: Node, capture: FlowCapture
) -> None:
    client, server = translated.pods
    attach(capture, translated)
    with tcp_echo(server, server.address, 8080):
        port = tcp_exchange(client, SERVICE, 80, b"hello")
    flows = capture.drain()
    original = original_of(client, port, SERVICE, 80)
    for pod, hook, reply, dst, dport in (
        (client, Hook.INGRESS, 0, SERVICE, 80),
        (server, Hook.EGRESS, 0, server.address, 8080),
        (server, Hook.INGRESS, 1, client.address, port),
        (client, Hook.EGRESS, 1, client.address, port),
    ):
        record = only(flows, pod, hook, protocol=TCP, dst=dst, dport=dport, **original)
        assert record["reply"] == reply
        assert record["packets"] >= 3


def test_a_masqueraded_connection_carries_its_original_tuple(
    translated: Node, capture: FlowCapture
) -> None:
    client, server = translated.pods
    attach(capture, translated)
    with tcp_echo(server, server.address, 8081):
        port = tcp_exchange(client, server.address, 8081, b"hello")
    flows = capture.drain()
    original = original_of(client, port, server.address, 8081)
    for pod, hook, reply, src, dst in (
        (client, Hook.INGRESS, 0, client.address, server.address),
        (server, Hook.EGRESS, 0, server.gateway, server.address),
        (server, Hook.INGRESS, 1, server.address, server.gateway),
        (client, Hook.EGRESS, 1, server.address, client.address),
    ):
        record = only(flows, pod, hook, protocol=TCP, src=src, dst=dst, **original)
        assert record["reply"] == reply


def test_one_datagram_has_no_entry_before_translation_and_one_after(
    translated: Node, capture: FlowCapture
) -> None:
    client, server = translated.pods
    attach(capture, translated)
    with open_socket(client, SERVICE, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"x", (SERVICE, 80))
        time.sleep(0.05)
        flows = capture.drain()
        assert only(flows, client, Hook.INGRESS, protocol=UDP, dst=SERVICE)["nat"] == Nat.UNKNOWN
        after = only(flows, server, Hook.EGRESS, protocol=UDP, dst=server.address, dport=8080)
        assert after["nat"] == Nat.TRANSLATED
        assert after["original_dst"].tobytes() == packed(SERVICE)


def test_a_plain_tracked_connection_says_that_it_is_not_translated(
    translated: Node, capture: FlowCapture
) -> None:
    client, server = translated.pods
    attach(capture, translated)
    with tcp_echo(server, server.address, 8080):
        tcp_exchange(client, server.address, 8080, b"hello")
    record = only(capture.drain(), client, Hook.INGRESS, protocol=TCP)
    assert (record["nat"], record["reply"]) == (Nat.NONE, 0)
    assert not record["original_src"].any()


def test_nothing_is_counted_after_detach_and_the_last_audit_survives_once(
    capture: FlowCapture,
) -> None:
    with node_with_pods(2) as node:
        client, server = node.pods
        attach(capture, node)
        assert ping(client, server.address)
        capture.detach(client.host_ifindex)
        assert ping(client, server.address)
        assert client.host_ifindex not in capture.audit()["ifindex"]
        assert client.host_ifindex in capture.departed()["ifindex"]
        assert client.host_ifindex not in capture.departed()["ifindex"]
        flows = capture.drain()
    assert only(flows, client, Hook.INGRESS, sport=8)["packets"] == 1
    assert only(flows, server, Hook.EGRESS, sport=8)["packets"] == 2


def test_an_interface_that_vanished_can_be_detached(capture: FlowCapture) -> None:
    with node_with_pods(1) as node:
        attach(capture, node)
        ip("-n", node.name, "link", "delete", node.pods[0].host_device)
        capture.detach(node.pods[0].host_ifindex)
        with pytest.raises(BpfError, match="no interface"):
            attach(capture, node)


def programs_on(where: Namespace, ifindex: int) -> int:
    """How many TCX programs stand at an interface's ingress."""
    count = ctypes.c_uint32()
    query = ctypes.CDLL("libbpf.so.1").bpf_prog_query
    assert where.call(lambda: query(ifindex, 46, 0, None, None, ctypes.byref(count))) == 0
    return count.value


def test_nothing_stays_attached_when_the_process_is_killed() -> None:
    script = """
import sys
from ringfence.kernel.bpf import object_path
from ringfence.kernel.capture import FlowCapture
capture = FlowCapture(object_path("flow"))
capture.open()
capture.attach(int(sys.argv[1]))
print("attached", flush=True)
sys.stdin.read()
"""
    with namespace("kill") as where:
        loopback = where.ifindex("lo")
        with subprocess.Popen(
            ["ip", "netns", "exec", where.name, sys.executable, "-c", script, str(loopback)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        ) as process:  # fmt: skip
            assert process.stdout
            assert process.stdout.readline() == b"attached\n"
            assert programs_on(where, loopback) == 1
            process.kill()
        deadline = time.monotonic() + 5
        while programs_on(where, loopback):
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_packets_without_a_link_header_are_counted(capture: FlowCapture) -> None:
    """A tun device: what the stack sends into it starts with the IP header."""
    with namespace("tun") as where:
        where.run("ip", "tuntap", "add", "dev", "tun0", "mode", "tun")
        where.run("ip", "addr", "add", "10.7.0.1/24", "dev", "tun0")
        with where.call(lambda: open_tun("tun0")):
            where.run("ip", "link", "set", "tun0", "up")
            index = where.ifindex("tun0")
            where.call(lambda: capture.attach(index))
            with open_socket(where, "10.7.0.2", socket.SOCK_DGRAM) as sender:
                sender.sendto(bytes(100), ("10.7.0.2", 99))
            flows = capture.drain()
    sent = flows[(flows["protocol"] == UDP) & (flows["dport"] == 99)]
    assert sent[["packets", "bytes"]].tolist() == [(1, 128)]


def test_an_interface_that_could_not_be_attached_to_is_tried_again(tmp_path: Path) -> None:
    capture = Capture(tmp_path)
    capture.open()
    with closing(capture), namespace("late") as late:
        wanted = [Interface(77, "late0", "veth", True, None, None, frozenset())]
        late.call(lambda: capture.watch(wanted))
        assert capture.audit().losses["interface not attached"] == 1
        ip("-n", late.name, "link", "add", "late0", "index", "77", "type", "veth")
        for _ in range(2):
            late.call(lambda: capture.watch(wanted))
        for device in ("late0", "veth0"):  # each greets its neighbours by IPv6
            ip("-n", late.name, "link", "set", device, "up")
        until = time.monotonic() + 10
        while not capture.audit().skbs and time.monotonic() < until:
            time.sleep(0.1)
        assert capture.audit().skbs >= 1
        assert capture.audit().losses["interface not attached"] == 1
