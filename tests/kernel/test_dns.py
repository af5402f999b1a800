"""Answers of DNS servers out of real packets: who asked, for which name, and what is lost."""

import contextlib
import socket
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import dns.message
import dns.rrset
import pytest

from ringfence.flows.dns import read_answer
from ringfence.kernel.answers import Answer, Answers
from ringfence.kernel.bpf import object_path, run_on_frame
from ringfence.kernel.capture import FlowCapture
from ringfence.model.address import format_address, parse_address
from ringfence.model.flow import Loss
from tests.kernel import observe
from tests.kernel.frames import ethernet, ipv4, udp
from tests.kernel.netns import Namespace, Node, bpf_file_system, namespace, node_with_pods
from tests.kernel.test_pins import doomed, successor
from tests.kernel.traffic import open_socket, serving, tcp_echo, tcp_exchange
from tests.kernel.world import World

Reply = Callable[[dns.message.Message], bytes]


@pytest.fixture
def listening() -> Iterator[FlowCapture]:
    """A capture that keeps answers."""
    capture = FlowCapture(object_path("flow"), dns=True)
    capture.open()
    yield capture
    capture.close()


def attach(capture: FlowCapture, node: Node, pods: int | None = None) -> None:
    """Attach to all pods' interfaces; all but the first `pods` are an uplink, say."""
    capture.lead_to_pods([pod.host_ifindex for pod in node.pods[:pods]])
    observe.attach(capture, node)


@contextlib.contextmanager
def resolver(where: Namespace, address: str, reply: Reply) -> Iterator[None]:
    """A DNS server over UDP, until the block ends."""
    with open_socket(where, address, socket.SOCK_DGRAM) as server:
        server.bind((address, 53))

        def serve() -> None:
            with contextlib.suppress(OSError):
                while asked := (received := server.recvfrom(1 << 16))[0]:
                    server.sendto(reply(dns.message.from_wire(asked)), received[1])

        with serving(server, serve):
            yield


def told(asked: dns.message.Message, *records: str) -> bytes:
    """An answer; each record as `NAME TTL TYPE DATA`."""
    reply = dns.message.make_response(asked)
    for record in records:
        name, ttl, kind, data = record.split()
        reply.answer.append(dns.rrset.from_text(name, int(ttl), "IN", kind, data))
    return reply.to_wire()


def ask(
    where: Namespace, server: str, name: str, kind: str = "A", source: str | None = None
) -> int:
    """Ask and read the answer; returns the local port."""
    with open_socket(where, server, socket.SOCK_DGRAM) as client:
        if source:
            client.bind((source, 0))
        client.connect((server, 53))
        client.send(dns.message.make_query(name, kind).to_wire())
        assert client.recv(1 << 16)
        local: int = client.getsockname()[1]
        return local


def ends(answers: list[Answer]) -> list[tuple[str, str, int]]:
    return [(one.resolver.hex(":", 4), one.client.hex(":", 4), one.client_port) for one in answers]


def packed(address: str) -> str:
    return parse_address(address).hex(":", 4)


@pytest.mark.parametrize("version", [4, 6])
def test_an_answer_is_taken_once_where_it_reaches_the_one_who_asked(
    version: int, listening: FlowCapture
) -> None:
    with node_with_pods(2) as node:
        client, server = node.pods
        own, at = [pod.address if version == 4 else pod.address6 for pod in node.pods]
        gateway = server.gateway if version == 4 else server.gateway6
        attach(listening, node)
        with resolver(server, at, lambda asked: told(asked, "a.example. 7 A 192.0.2.1")):
            port = ask(client, at, "a.example.")
            node_port = ask(node, at, "a.example.")
        pod, on_node = listening.answers(100)
        assert listening.answers(100) == []
    assert ends([pod, on_node]) == [
        (packed(at), packed(own), port),
        (packed(at), packed(gateway), node_port),
    ]
    for answer in (pod, on_node):
        found = read_answer(answer.message)
        assert found is not None
        assert (found.name, found.addresses) == ("a.example", (parse_address("192.0.2.1"),))
        assert found.ttl == 7
    assert pod.at_ns <= on_node.at_ns


def test_only_answers_with_records_are_taken(listening: FlowCapture) -> None:
    """Neither the question of a client at port 53, nor that a name is unknown, nor forgeries."""
    with node_with_pods(2) as node:
        client, server = node.pods
        attach(listening, node)
        with resolver(server, server.address, told):
            ask(client, server.address, "unknown.example.")
        with (
            open_socket(client, client.address, socket.SOCK_DGRAM) as low,
            open_socket(server, server.address, socket.SOCK_DGRAM) as high,
        ):
            low.bind((client.address, 53))
            high.bind((server.address, 53))
            low.sendto(dns.message.make_query("a.example.", "A").to_wire(), (server.address, 53))
            low.sendto(b"\0\0\x80", (server.address, 53))
            assert high.recv(100)
            assert high.recv(100)
        with (
            open_socket(client, client.address, socket.SOCK_DGRAM) as victim,
            open_socket(server, server.address, socket.SOCK_DGRAM) as forger,
        ):
            victim.bind((client.address, 5300))
            forger.bind((server.address, 53))
            forged = told(dns.message.make_query("a.", "A"), "a. 7 A 192.0.2.1")
            forger.sendto(forged, (client.address, 5300))
            assert victim.recv(100) == forged
            assert _lost(listening) == (0, 0, 1)
            asked = dns.message.make_query("a.", "A", id=1)
            victim.sendto(asked.to_wire(), (server.address, 53))
            assert forger.recv(100)
            forger.sendto(
                told(dns.message.make_query("a.", "A", id=2), "a. 7 A 192.0.2.1"),
                (client.address, 5300),
            )
            assert victim.recv(100)
        assert _lost(listening) == (0, 0, 2)
        assert listening.answers(100) == []


def test_nobody_answers_himself_in_anothers_name(listening: FlowCapture) -> None:
    """A pod that sends both, a question from the node's address and an answer to it."""
    asked = dns.message.make_query("a.", "A")
    there = ipv4(17, udp(5300, 53, asked.to_wire()))
    back = ipv4(17, udp(53, 5300, told(asked, "a. 7 A 192.0.2.1")))
    back = back[:12] + back[16:20] + back[12:16] + back[20:]
    with namespace("node") as node:
        listening.lead_to_pods([node.ifindex("lo")])  # where frames are run
        comes_in, goes_out = map(listening.program_fd, ("ethernet_ingress", "ethernet_egress"))
        for program, packet in ((comes_in, there), (comes_in, back)):
            node.call(partial(run_on_frame, program, ethernet(0x0800, packet)))
        assert listening.answers(100) == []
        node.call(partial(run_on_frame, goes_out, ethernet(0x0800, back)))
        assert len(listening.answers(100)) == 1


def test_what_the_node_forwards_for_others_is_neither_taken_nor_counted(
    listening: FlowCapture,
) -> None:
    """CoreDNS on this node, asked from another node, which is behind what is no pod's interface."""
    remote = "192.168.77.7"
    with node_with_pods(2) as node:
        server, uplink = node.pods
        uplink.run("ip", "address", "add", f"{remote}/32", "dev", "lo")
        node.run("ip", "route", "add", f"{remote}/32", "via", uplink.address)
        attach(listening, node, pods=1)
        with resolver(server, server.address, lambda asked: told(asked, "a. 7 A 192.0.2.1")):
            ask(uplink, server.address, "a.", source=remote)
        with resolver(uplink, remote, lambda asked: told(asked, "b. 7 A 192.0.2.1")):
            port = ask(server, remote, "b.")
        taken = listening.answers(100)
        assert ends(taken) == [(packed(remote), packed(server.address), port)]
        assert _lost(listening) == (0, 0, 0)


def test_a_question_under_the_nodes_address_is_still_the_pods(listening: FlowCapture) -> None:
    with node_with_pods(2) as node:
        client, uplink = node.pods
        node.nft(
            "table ip nat { chain post { type nat hook postrouting priority srcnat;\n"
            f"oif {uplink.host_device} masquerade\n"
            "}; }"
        )
        attach(listening, node, pods=1)
        with resolver(uplink, uplink.address, lambda asked: told(asked, "a. 7 A 192.0.2.1")):
            port = ask(client, uplink.address, "a.")
        taken = listening.answers(100)
        assert ends(taken) == [(packed(uplink.address), packed(client.address), port)]
        assert _lost(listening) == (0, 0, 0)


def test_an_answer_is_taken_though_a_window_ended_since_it_was_asked_for(
    listening: FlowCapture,
) -> None:
    with node_with_pods(2) as node:
        client, server = node.pods
        attach(listening, node)

        def reply(asked: dns.message.Message) -> bytes:
            for _ in ("one map", "the other"):
                listening.drain()
            return told(asked, "slow. 7 A 192.0.2.1")

        with resolver(server, server.address, reply):
            for asker in (client, node):
                port = ask(asker, server.address, "slow.")
                assert [one.client_port for one in listening.answers(100)] == [port]


def test_an_answer_whose_question_others_pushed_out_is_counted(listening: FlowCapture) -> None:
    """Where it gets to the one who asked, and at no other place."""
    questions = 40_000
    with node_with_pods(2) as node:
        client, server = node.pods
        attach(listening, node)
        for asker in (client, node):
            before = _lost(listening)[2]
            with (
                open_socket(asker, server.address, socket.SOCK_DGRAM) as asking,
                open_socket(server, server.address, socket.SOCK_DGRAM) as answering,
            ):
                answering.bind((server.address, 53))
                asking.connect((server.address, 53))
                asked = dns.message.make_query("a.", "A", id=0)
                asking.send(asked.to_wire())
                _, origin = answering.recvfrom(100)
                for number in range(1, questions):
                    asking.send(dns_header(number))
                answering.sendto(told(asked, "a. 7 A 192.0.2.1"), origin)
                assert asking.recv(100)
            assert listening.answers(100) == []
            assert _lost(listening)[2] == before + 1


def dns_header(number: int) -> bytes:
    return number.to_bytes(2, "big") + bytes(10)


def test_nothing_is_copied_unless_asked_for(capture: FlowCapture) -> None:
    ring = Answers(capture._object)
    with node_with_pods(2) as node:
        client, server = node.pods
        attach(capture, node)
        with resolver(server, server.address, lambda asked: told(asked, "a. 7 A 192.0.2.1")):
            ask(client, server.address, "a.")
        assert ring.take(100) == []
    ring.close()


def test_what_finds_no_room_or_is_too_long_is_counted(listening: FlowCapture) -> None:
    """More than fits the ring is sent before anybody reads; then what takes two fragments."""
    sent, text = 1_500, "x" * 250
    with node_with_pods(2) as node:
        client, server = node.pods
        attach(listening, node)

        def padded(asked: dns.message.Message) -> bytes:
            size = 3 if asked.question[0].name.to_text() == "a." else 8
            return told(asked, "a. 7 A 192.0.2.1", *[f"a. 7 TXT {text}{i}" for i in range(size)])

        with resolver(server, server.address, padded):
            for _ in range(sent):
                ask(client, server.address, "a.")
            assert _lost(listening) == (sent - len(listening.answers(sent)), 0, 0)
            full = _lost(listening)[0]
            assert 0 < full < sent
            ask(client, server.address, "b.")
            assert _lost(listening) == (full, 1, 0)
            ask(client, server.address, "a.")
        (last,) = listening.answers(1)
        assert read_answer(last.message) is not None


def _lost(capture: FlowCapture) -> tuple[int, ...]:
    audit = capture.audit()
    return tuple(int(audit[f"dns_{cause}"].sum()) for cause in ("full", "overlong", "unasked"))


def test_many_answers_are_read_a_part_at_a_time(listening: FlowCapture) -> None:
    with node_with_pods(2) as node:
        client, server = node.pods
        attach(listening, node)
        with resolver(server, server.address, lambda asked: told(asked, "a. 7 A 192.0.2.1")):
            ports = [ask(client, server.address, "a.") for _ in range(5)]
        parts = [listening.answers(2) for _ in range(4)]
    assert [[one.client_port for one in part] for part in parts] == [
        ports[:2], ports[2:4], ports[4:], []
    ]  # fmt: skip


SERVICE = "10.96.0.80"
ENDLESS = b"\x80\0\0\1\0\1\0\0\0\0\xc0\x0c"
"""An answer, from its third byte on, whose question is a pointer to itself."""


def test_an_agent_tells_providers_by_the_names_that_were_asked(world: World) -> None:
    """A client's own answer, through a chain and a Service; another client's; a hostile one."""
    client, server = world.node.pods
    world.node.nft(
        "table ip nat { chain pre { type nat hook prerouting priority dstnat;\n"
        f"ip daddr {SERVICE} tcp dport 80 dnat to {server.address}:8080\n"
        "}; }"
    )
    names = {
        "web.shop.": ["web.shop. 5 A " + SERVICE],
        "api.example.": ["api.example. 5 CNAME cdn.example.", "cdn.example. 5 A " + server.address],
        "node.example.": ["node.example. 5 A " + server.gateway],
    }

    def reply(asked: dns.message.Message) -> bytes:
        name = asked.question[0].name.to_text().lower()
        if name not in names:
            return asked.id.to_bytes(2, "big") + ENDLESS
        return told(asked, *names[name])

    world.start_agent("--dns")
    world.await_("both pods seen", lambda: len(world.state().pods) == 2)
    with (
        resolver(server, server.address, reply),
        tcp_echo(server, server.address, 8080),
        tcp_echo(world.node, server.gateway, 8081),
    ):
        ask(client, server.address, "hostile.example.")
        tcp_exchange(client, server.address, 8080, b"before anybody asked")
        world.await_("a report", lambda: _told(world, 8080))
        assert _told(world, 8080) == {(client.address, server.address, "")}
        for name in ("web.shop.", "API.example."):
            ask(client, server.address, name)
        ask(world.node, server.address, "node.example.")
        tcp_exchange(client, SERVICE, 80, b"by way of a Service")
        tcp_exchange(client, server.address, 8080, b"without")
        tcp_exchange(client, server.gateway, 8081, b"another asked")
        world.await_("all names", lambda: len(_told(world, 8080, 8081, 80)) == 5)
        assert _told(world, 8080, 8081, 80) == {
            (client.address, server.address, ""),
            (client.address, SERVICE, "web.shop"),
            (client.address, server.address, "web.shop"),
            (client.address, server.address, "api.example"),
            (client.address, server.gateway, "node.example"),
        }
    world.await_("the refusal", lambda: world.state().audit.losses[Loss.DNS_NOT_PARSED])
    losses = world.state().audit.losses
    causes = (Loss.DNS_NOT_PARSED, Loss.DNS_FULL, Loss.DNS_UNASKED)
    assert [losses[cause] for cause in causes] == [1, 0, 0]
    for row in world.flows():
        if row["provider"] == parse_address(server.address) and row["provider_port"] == 8080:
            through = row["original_provider"] == parse_address(SERVICE)
            assert (row["provider_dns_name"] == "web.shop") == through


def _told(world: World, *ports: int) -> set[tuple[str, str, str]]:
    """Consumer, provider and its name, of TCP to these ports."""
    return {
        (
            format_address(row["consumer"]),
            format_address(row["provider"]),
            row["provider_dns_name"],
        )
        for row in world.flows()
        if row["provider_port"] in ports
    }


def test_what_a_killed_agent_left_reads_answers_if_its_successor_is_told_to(
    tmp_path: Path,
) -> None:
    with bpf_file_system(tmp_path / "bpf") as mounted, node_with_pods(2) as node:
        client, server = node.pods
        with resolver(server, server.address, lambda asked: told(asked, "a. 7 A 192.0.2.1")):
            with doomed(mounted / "ringfence", node):
                ask(client, server.address, "a.")
            with successor(mounted / "ringfence", node, dns=True) as capture:
                capture.lead_to_pods([client.host_ifindex])
                assert capture.answers(10) == []
                port = ask(client, server.address, "a.")
                assert [one.client_port for one in capture.answers(10)] == [port]
