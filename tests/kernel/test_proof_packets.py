"""What is read of nft's listing is what the kernel does: random rules, held against packets.

A pod loads rules, a node sends it packets, and a chain behind those rules notes which ones came
through. So neither nft's syntax, nor its listing, nor the reading of it is taken at its word.
"""

import ipaddress
import os
import socket
import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ringfence.kernel import conntrack, nft
from ringfence.kernel.libnftables import JSON, NUMERIC, NftError, objects, run
from ringfence.model.protocol import ICMP, ICMPV6, SCTP, TCP, UDP
from ringfence.policy.errors import UnprovableError
from ringfence.policy.proof.packets import SYN, Axis, Outcome, Packet, State, judge
from ringfence.policy.proof.reading import read
from tests.kernel.frames import tcp, udp
from tests.kernel.netns import Node, node_with_pods

EXAMPLES = int(os.environ.get("RINGFENCE_EXAMPLES", "60"))
ACK, GRE = 0x10, 47
_SCTP_INIT = struct.pack("!IIBBHIIHHI", 0, 0, 1, 0, 20, 1, 1500, 1, 1, 1)
"""Verification tag and checksum, then a chunk INIT (RFC 9260)."""
PEERS = {
    4: ("10.99.1.1", "10.99.2.2", "172.16.0.7"),
    6: ("fd00:99:1::1", "fd00:99:2::2", "2001:db8::7"),
}
OWN = {4: "10.99.1.2", 6: "fd00:99:1::2"}
PORTS = (22, 53, 80, 81)


@dataclass(frozen=True)
class Sent:
    """A packet, as bytes after the network header, and what connection tracking says of it."""

    family: int
    source: str
    protocol: int
    head: int
    port: int
    payload: bytes
    flags: int = 0
    hops: int = 64
    state: State = State.NEW

    @property
    def seen(self) -> tuple[str, int, int, int]:
        return self.source, self.protocol, self.head, self.port

    @property
    def packet(self) -> Packet:
        source, own = (int(ipaddress.ip_address(end)) for end in (self.source, OWN[self.family]))
        numbers = {
            Axis.STATE: self.state.value,
            Axis.TO_OWN: 1,
            Axis.PROTOCOL: self.protocol,
            Axis.FLAGS: self.flags,
            Axis.HOPS: self.hops,
            Axis.HEAD: self.head,
            Axis.PORT: self.port,
            Axis.DESTINATION: own,
            Axis.SOURCE: source,
        }
        return Packet(self.family, numbers)

    def frame(self) -> bytes:
        ends = b"".join(ipaddress.ip_address(end).packed for end in (self.source, OWN[self.family]))
        length = len(self.payload)
        if self.family == 4:  # the kernel fills in the checksum
            fixed = struct.pack(
                "!BBHHHBBH", 0x45, 0, 20 + length, 0, 0, self.hops, self.protocol, 0
            )
        else:
            fixed = struct.pack("!IHBB", 6 << 28, length, self.protocol, self.hops)
        return fixed + ends + self.payload


def all_packets() -> Iterator[Sent]:
    """Every source with every protocol and port; a source port of its own for each of those."""
    for family, sources in PEERS.items():
        icmp, other = (ICMP, ICMPV6) if family == 4 else (ICMPV6, ICMP)
        echo = 8 if family == 4 else 128
        for source in sources:
            for port in PORTS:
                for sport, flags in ((1000, SYN), (1001, ACK)):
                    yield Sent(family, source, TCP, sport, port, tcp(sport, port, flags), flags)
                yield Sent(family, source, UDP, 67, port, udp(67, port))
                init = struct.pack("!HH", 1002, port) + _SCTP_INIT
                yield Sent(family, source, SCTP, 1002, port, init)
            for hops in (64, 255):
                # The next two bytes are the checksum, which nobody checks here.
                message = struct.pack("!BBHHH", echo, 0, hops, 7, 1)
                yield Sent(family, source, icmp, echo << 8, hops, message, hops=hops)
            for protocol in (other, GRE):
                bare = struct.pack("!HHI", 0, 0x0800, 0)
                state = State.NEW if protocol == GRE else State.INVALID
                yield Sent(family, source, protocol, 0, 0x0800, bare, state=state)


PACKETS = list(all_packets())
_WITNESS = """
add table inet witness
delete table inet witness
table inet witness {
	set seen4 { typeof ip saddr . meta l4proto . th sport . th dport; size 9999; flags dynamic; }
	set seen6 { typeof ip6 saddr . meta l4proto . th sport . th dport; size 9999; flags dynamic; }
	chain in {
		type filter hook input priority -140
		add @seen4 { ip saddr . meta l4proto . th sport . th dport } drop
		add @seen6 { ip6 saddr . meta l4proto . th sport . th dport } drop
	}
}
"""


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    with node_with_pods(1) as made:
        (pod,) = made.pods
        for name in ("all", "eth0"):
            pod.run("sysctl", "-qw", f"net.ipv4.conf.{name}.rp_filter=0")
        nft.start_tracking(pod.path)
        pod.run("sysctl", "-qw", "net.netfilter.nf_conntrack_checksum=0")
        mac = pod.run("cat", "/sys/class/net/eth0/address").strip()
        for own in OWN.values():  # whatever the rules say about neighbours
            made.run("ip", "neigh", "replace", own, "lladdr", mac, "dev", pod.host_device)
        yield made


MATCHES = (
    "ip saddr 10.99.0.0/16",
    "ip saddr 10.99.1.1-10.99.2.2",
    "ip6 saddr fd00:99::/32",
    "ip6 saddr != { fd00:99:1::/64, 2001:db8::7 }",
    "ip daddr 10.99.1.2",
    "ip6 daddr != fd00:99:1::2",
    "ip saddr @some",
    "ip6 saddr != @others",
    "ip saddr . meta l4proto . th dport @mixed",
    "meta mark set ip saddr . meta l4proto . th dport map @marks",
    "meta mark set ip6 saddr map { fd00:99:1::1 : 1, 2001:db8::/32 : 2 }",
    "tcp sport 1000",
    "th sport != 1001-2000",
    "tcp flags syn",
    "tcp flags & (syn | ack) == ack",
    "tcp flags & (fin | syn | rst | ack) != syn",
    "icmp type echo-request",
    "icmp type != { echo-request, echo-reply }",
    "icmp code 0",
    "icmpv6 type 128",
    "icmp type . icmp code { 8 . 0-3, 3 . 4 }",
    "ip6 hoplimit 255",
    "ip6 hoplimit != 255",
    "meta nfproto ipv4",
    "meta nfproto != ipv4",
    "fib daddr type local",
    "fib saddr type local",
    "fib saddr type != local",
    "ct state new",
    "ct state established,related",
    "ct state != new",
    "ct state { new, invalid }",
    "meta iiftype loopback",
    "meta iiftype != loopback",
    "@th,16,16 80",
    "@th,0,16 2048",
)


def matches() -> st.SearchStrategy[str]:
    """What asks something of a packet, as nft's words."""

    def words(*parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        return st.tuples(*parts).map(" ".join)

    v4, v6 = st.sampled_from(PEERS[4]), st.sampled_from(PEERS[6])
    port = st.sampled_from(PORTS).map(str)
    some = port | st.sampled_from(["22-80", "53-81", "1-52", "81-65535"])
    ports = some | st.lists(port, min_size=1, max_size=3, unique=True).map(_set)
    compared = st.sampled_from(["", "!="])
    protocol = st.sampled_from(["tcp", "udp", "icmp", "ipv6-icmp", "sctp", "{ tcp, udp, 47 }"])
    dot = st.just(".")
    element = words(v4, dot, st.sampled_from(["tcp", "udp", "1", "47"]), dot, some)
    elements = st.lists(element, min_size=1, max_size=3).map(_set)
    return st.one_of(
        *[st.sampled_from(MATCHES)] * 3,
        words(st.just("ip saddr"), compared, v4),
        words(st.just("ip6 saddr"), compared, v6),
        words(st.just("meta l4proto"), compared, protocol),
        words(st.sampled_from(["tcp", "udp", "sctp", "th"]), st.just("dport"), compared, ports),
        words(st.just("ip saddr . meta l4proto . th dport"), elements),
        words(st.just("ip6 saddr . tcp dport {"), v6, dot, some, st.just("}")),
    )


def _set(elements: Iterable[object]) -> str:
    return "{ " + ", ".join(map(str, elements)) + " }"


CHAINS = ("in", "first", "second")
REJECT = "reject with icmpx type admin-prohibited"
_FRAME = """
add table inet ringfence
delete table inet ringfence
table inet ringfence {
	set some { type ipv4_addr; flags interval; elements = { 10.99.2.0/24, 172.16.0.0/12 }; }
	set others { type ipv6_addr; flags interval; elements = { 2001:db8::/32 }; }
	set mixed {
		type ipv4_addr . inet_proto . inet_service; flags interval
		elements = { 10.99.0.0/16 . tcp . 80-81, 172.16.0.7 . udp . 53 comment "x",
			0.0.0.0/0 . sctp . 22 }
	}
	map marks {
		type ipv4_addr . inet_proto . inet_service : mark; flags interval
		elements = { 10.99.0.0/16 . tcp . 80-81 : 1, 172.16.0.7 . udp . 53 : 2 }
	}
	chain second { }
	chain first { }
	chain in { type filter hook input priority -150; policy %s; }
}
"""


@st.composite
def rules(draw: st.DrawFn) -> list[str]:
    """A frame, and rules one by one; a chain calls none that stands before it."""
    commands = [_FRAME % draw(st.sampled_from(["accept", "drop"]))]
    for at, name in enumerate(CHAINS):
        calls = [f"{verb} {callee}" for callee in CHAINS[at + 1 :] for verb in ("jump", "goto")]
        verdict = st.sampled_from(["accept", "drop", "drop", "return", REJECT, *calls, *calls])
        for _ in range(draw(st.integers(1, 6))):
            if draw(st.integers(0, 3)):
                words = [*draw(st.lists(matches(), min_size=1, max_size=2)), "counter"]
                line = " ".join([*words, draw(verdict)])
            else:
                key, elements = draw(MAPS)
                mapped = (f"{element} : {draw(verdict)}" for element in elements)
                line = f"{key} vmap {{ {', '.join(mapped)} }}"
            commands.append(f"add rule inet ringfence {name} {line}")
    return commands


MAPS = st.sampled_from(
    [
        ("tcp dport", ("80", "22-53")),
        ("ip saddr", ("10.99.1.1", "10.99.2.0/24")),
        ("ip saddr . th dport", ("10.99.0.0/16 . 80", "172.16.0.7 . 53-81")),
        (
            "ip6 saddr . meta l4proto . th dport",
            ("fd00::/16 . udp . 53", "fd00::/16 . tcp . 22-81"),
        ),
        ("meta l4proto", ("tcp", "icmp")),
        ("ct state", ("new", "established")),
        ("meta nfproto", ("ipv4", "ipv6")),
    ]
)


def test_every_packet_arrives_where_nothing_drops(node: Node) -> None:
    nft.apply(
        node.pods[0].path, "add table inet ringfence\ndelete table inet ringfence\n" + _WITNESS
    )
    send(node)
    assert {sent.seen for sent in PACKETS} - seen(node) == set()


@given(rules())
@settings(max_examples=EXAMPLES, deadline=None, derandomize=EXAMPLES == 60)
def test_what_is_read_is_what_packets_meet(node: Node, commands: list[str]) -> None:
    (pod,) = node.pods
    frame, *lines = commands
    nft.apply(pod.path, frame)
    for command in lines:
        with suppress(NftError):  # such as two matches that never hold together
            nft.apply(pod.path, command)
    conntrack.delete(pod.path, conntrack.entries(pod.path))
    nft.apply(pod.path, _WITNESS)
    listed = nft.list_table(pod.path)
    assert listed is not None
    try:
        tables = {family: read(listed, family) for family in PEERS}
    except UnprovableError as error:
        assume("checksum" not in str(error))  # where ICMP has what th calls a port
        raise
    send(node)
    passed = seen(node)
    for sent in PACKETS:
        outcome, name = judge(tables[sent.family], "input", sent.packet)
        assert outcome in Outcome, f"{sent.packet}: {name}"
        assert (outcome is Outcome.ACCEPT) == (sent.seen in passed), f"{sent.packet}: {name}"


def send(node: Node) -> None:
    for family, kind in ((4, socket.AF_INET), (6, socket.AF_INET6)):
        with node.call(partial(socket.socket, kind, socket.SOCK_RAW, socket.IPPROTO_RAW)) as raw:
            for sent in PACKETS:
                if sent.family == family:
                    raw.sendto(sent.frame(), (OWN[family], 0))


def seen(node: Node) -> set[tuple[str, int, int, int]]:
    (pod,) = node.pods
    listed = pod.call(lambda: objects(run("list table inet witness", JSON | NUMERIC)))
    keys = [e["concat"] for found in listed if "set" in found for e in found["set"].get("elem", ())]
    return {(str(ipaddress.ip_address(key[0])), *key[1:]) for key in keys}
