"""The whole agent as a process of its own in a node's namespace, against real peers and packets."""

import contextlib
import signal
import socket
import struct
import subprocess
from dataclasses import replace
from pathlib import Path

import pyarrow.compute as pc
import pytest

from ringfence.flows.record import Hook
from ringfence.kernel import conntrack, nft
from ringfence.kernel.bpf import BpfObject
from ringfence.kernel.tc import TcxLinks
from ringfence.model.address import parse_address
from ringfence.model.flow import DropSource, Loss, Observer
from ringfence.model.protocol import TCP, UDP, PortRange
from ringfence.model.repair import Damage
from ringfence.policy.program import Program
from ringfence.wire import batch
from ringfence.wire.generated.agent_pb2 import (
    CONVERSATION,
    DETAILED,
    DeclaredPort,
    Directive,
    Inspection,
    Probe,
)
from tests.kernel.frames import A4, B4, ethernet, ipv4, udp
from tests.kernel.netns import Pod, ip
from tests.kernel.traffic import open_socket, tcp_echo, tcp_exchange
from tests.kernel.txring import TxRing
from tests.kernel.world import RINGFENCE, Row, World, judges, policy, sandbox, sandboxes


def test_flows_arrive_each_counted_once(world: World) -> None:
    world.start_agent()
    world.await_("both pods seen", lambda: len(world.state().pods) == 2)
    assert {pod.uid for pod in world.state().pods} == {"uid1", "uid2"}
    gateways = {parse_address(f"10.99.{i}.1") for i in (1, 2)}
    gateways |= {parse_address(f"fd00:99:{i}::1") for i in (1, 2)}
    assert set(world.state().node_addresses) == gateways
    client, server = world.node.pods
    with tcp_echo(server, server.address, 8080):
        for _ in range(5):
            tcp_exchange(client, server.address, 8080, b"x" * 1000)
        world.await_("five connections", lambda: world.counted("opened", server, 8080) >= 5)
    rows = [row for row in world.flows() if row["provider_port"] == 8080]
    assert {row["interface"] for row in rows} == {client.host_ifindex, server.host_ifindex}
    assert all(row["observer"] == Observer.POD for row in rows)
    assert all(row["consumer"] == parse_address(client.address) for row in rows)
    assert {row["method"] for row in rows} <= {"syn", "socket"}
    assert world.counted("opened", server, 8080) == 5
    assert sum(row["answered"] for row in rows) == 10  # seen at both ends
    for each in world.batches():
        assert each.window_end_ns % 10**9 == 0
        assert each.window_end_ns - each.window_start_ns <= 10**9


def test_an_interface_that_cannot_be_attached_to_is_counted_and_tried_again(
    world: World, tmp_path: Path
) -> None:
    """As many programs as one side of an interface takes (bpf_mprog_max) leave no room on it."""
    source, target = tmp_path / "next.c", tmp_path / "next.o"
    source.write_text('__attribute__((section("tc"), used)) int next(void *skb) { return -1; }')
    subprocess.run(["clang", "-g", "-O2", "-target", "bpf", "-c", source, "-o", target], check=True)
    client, server = world.node.pods

    with contextlib.ExitStack() as crowd:

        def occupy() -> None:
            for _ in range(63):
                foreign = BpfObject(target, {})
                crowd.callback(foreign.close)
                ingress = {Hook.INGRESS: foreign.program_fd("next")}
                crowd.callback(TcxLinks(client.host_ifindex, ingress).close)

        world.node.call(occupy)
        world.start_agent()
        world.await_("failures", lambda: world.state().audit.losses["interface not attached"] > 1)
    with tcp_echo(server, server.address, 8080):
        world.await_("the flow at the client", lambda: _tried(client, server) and any(
            row["interface"] == client.host_ifindex for row in world.flows()
        ))  # fmt: skip


def _tried(client: Pod, server: Pod) -> bool:
    tcp_exchange(client, server.address, 8080, b"hello")
    return True


def test_declared_ports_tell_the_provider_where_nobody_listens(world: World) -> None:
    world.direct(0, None, declared=(DeclaredPort(protocol=UDP, port=5300),))
    world.start_agent()
    declared = world.state_dir / "directive"
    world.await_("both pods seen", lambda: len(world.state().pods) == 2)
    world.await_("the directive", lambda: declared.exists() and declared.read_bytes())
    one, other = world.node.pods
    kind = socket.SOCK_DGRAM
    with open_socket(one, one.address, kind) as low, open_socket(other, one.address, kind) as high:
        low.bind((one.address, 5300))
        high.bind((other.address, 5400))
        low.connect((other.address, 5400))  # a socket with a peer does not listen
        high.connect((one.address, 5300))
        low.send(b"the provider speaks first")
        high.recv(100)
        high.send(b"answer")
        low.recv(100)
        world.await_("a report", lambda: [row for row in world.flows() if row["protocol"] == UDP])
    rows = [row for row in world.flows() if row["protocol"] == UDP]
    assert {(row["method"], row["provider_port"]) for row in rows} == {("service", 5300)}
    assert {row["provider"] for row in rows} == {parse_address(one.address)}


def test_a_vxlan_on_a_port_of_its_own_is_looked_into_once_it_is_there(world: World) -> None:
    world.start_agent()
    world.await_("both pods seen", lambda: len(world.state().pods) == 2)
    inside = bytes(8) + ethernet(0x0800, ipv4(UDP, udp(1001, 53)))
    frame = ethernet(0x0800, ipv4(UDP, udp(1000, 8472, inside)))
    ip("-n", world.node.name, "link", "add", "near", "type", "veth", "peer", "name", "far")
    for name in ("near", "far"):
        ip("-n", world.node.name, "link", "set", name, "addrgenmode", "none", "up")
    ip("-n", world.node.name, "link", "add", "flannel", "type", "vxlan",
       "dstport", "8472", "external")  # fmt: skip
    ip("-n", world.node.name, "link", "set", "flannel", "up")

    def carried() -> list[Row]:
        with contextlib.closing(TxRing(world.node, "far", [frame] * 512)) as ring:
            ring.send()
        return [row for row in world.flows() if row["provider_port"] == 53]

    world.await_("what it carries", carried)
    tunnel = ("protocol", "consumer", "provider", "port")
    ends = (parse_address(A4), parse_address(B4))
    for row in carried():
        assert (row["provider"], row["provider_port"]) == (parse_address(B4), 53)
        assert tuple(row[f"tunnel_{part}"] for part in tunnel) == (UDP, *ends, 8472)


def test_a_switch_of_the_mode_under_traffic_loses_no_count(world: World) -> None:
    """Every datagram is counted once, in one mode or the other, whatever the windows."""
    client, server = world.node.pods
    world.start_agent()
    world.await_("both pods seen", lambda: len(world.state().pods) == 2)
    ports, sent = set(), 0
    with open_socket(server, server.address, socket.SOCK_DGRAM) as sink:
        sink.bind((server.address, 5300))
        for revision, mode in enumerate((CONVERSATION, DETAILED, CONVERSATION, DETAILED), 1):
            world.say(Directive(interval_seconds=1 + revision % 2, mode=mode))
            while world.state().mode != mode:
                with open_socket(client, server.address, socket.SOCK_DGRAM) as sender:
                    for _ in range(50):
                        sender.sendto(b"x", (server.address, 5300))
                        sent += 1
                    ports.add(sender.getsockname()[1])
        world.await_("all of them", lambda: world.counted("forward_packets", server, 5300) >= sent)
        world.stop("agent")
    rows = [row for row in world.flows() if row["provider_port"] == 5300]
    assert world.counted("forward_packets", server, 5300) == sent
    told = {row["consumer_port"] for row in rows}
    assert 0 in told
    assert told - {0} <= ports
    assert len(told) > 2


def test_a_flow_map_that_fills_up_ends_the_window(world: World) -> None:
    """Half as many tuples again as there is room for, in a window of an hour.

    Meanwhile the runtime takes minutes to tell of many new pods.
    """
    world.say(Directive(interval_seconds=3600))
    world.start_agent()
    world.await_("both pods seen", lambda: len(world.state().pods) == 2)
    slow = {f"slow{i}": sandbox(f"slow{i}", "", "") | {"seconds": 4} for i in range(100)}
    world.run(**sandboxes(world.node), **slow)
    pod, _ = world.node.pods

    def seen() -> int:
        tables = [batch.decode(batch.FLOWS, each.flows) for each in world.batches()]
        sent_to = [table.filter(pc.equal(table["provider"], parse_address(B4))) for table in tables]
        return sum(pc.sum(table["forward_packets"]).as_py() or 0 for table in sent_to)

    any_port = [ethernet(0x0800, ipv4(UDP, udp(1 + i, 0))) for i in range(127 * 512)]
    sent = 0
    for _ in range(6):
        sent += len(any_port)
        port = struct.pack("!H", sent // 512)
        frames = [frame[:36] + port + frame[38:] for frame in any_port]
        with contextlib.closing(TxRing(pod, "eth0", frames)) as ring:
            ring.send()
        world.await_("half of the map free", lambda: sent - seen() <= 262_144 / 2, 90)  # noqa: B023
    assert sent > 1.4 * 262_144
    assert not world.state().audit.losses[Loss.FLOW_MAP_FULL]
    world.stop("agent")  # it reports what came after the last window
    world.start_agent()
    world.await_("all that was sent", lambda: seen() == sent)


def test_a_directive_is_enforced_survives_a_restart_and_is_taken_away(world: World) -> None:
    client, server = world.node.pods
    before = [pod.run("nft", "-s", "list", "ruleset") for pod in (*world.node.pods, world.node)]
    world.start_agent()
    world.await_("both pods seen", lambda: len(world.state().pods) == 2)
    with (
        tcp_echo(server, server.address, 8080),
        tcp_echo(server, server.address, 8081),
        tcp_echo(server, server.address, 9090),
        open_socket(client, server.address, socket.SOCK_STREAM) as older,
        open_socket(client, server.address, socket.SOCK_STREAM) as denied,
    ):
        older.connect((server.address, 8081))
        denied.connect((server.address, 9090))
        world.direct(7, policy(server, PortRange(8080, 8081)))
        world.await_("revision 7 in force", lambda: world.state().enforced_revision == 7)
        older.sendall(b"open before")
        assert older.recv(100) == b"open before"
        with pytest.raises(ConnectionResetError):
            denied.recv(100)
        assert {p.uid: p.programmed for p in world.state().pods} == {"uid1": False, "uid2": True}
        tcp_exchange(client, server.address, 8080, b"allowed")
        with pytest.raises(TimeoutError):
            tcp_exchange(client, server.address, 9090, b"denied")
        world.await_("the drop's report", lambda: _dropped(world, server, 9090))
        known = conntrack.entries(server.path)
        conntrack.delete(server.path, [entry for entry in known if entry.destination_port == 8081])
        older.sendall(b"of nothing that is known")
        world.await_("that drop's report", lambda: _dropped(world, server, 8081))

        world.stop("control", signal.SIGKILL)
        world.stop("agent")
        nft.remove(server.path)
        world.start_agent()
        world.await_("rules without a control plane", lambda: judges(server))
        with pytest.raises(TimeoutError):
            tcp_exchange(client, server.address, 9090, b"denied")

        nft.apply(server.path, "flush table inet ringfence")
        world.await_("tampering is undone", lambda: judges(server))

        assert world.state().enforced_revision == 7
        world.direct(0, None)
        world.start_control()
        world.await_("nothing in force", lambda: world.state().enforced_revision == 0)
        tcp_exchange(client, server.address, 9090, b"free again")
    assert (world.directory / "agent.log").read_text().count("rules changed by another") == 1
    provider = parse_address(server.address)
    dropped = [row for row in world.drops() if row["provider"] == provider]
    assert {
        (row["source"], row["provider_port"], row["rule"], row["direction"], row["pod"])
        for row in dropped
    } == {
        (DropSource.RINGFENCE, 9090, "test/catch-all", "inbound", "uid2"),
        (DropSource.RINGFENCE, 8081, "mid-stream", "inbound", "uid2"),
    }
    after = [pod.run("nft", "-s", "list", "ruleset") for pod in (*world.node.pods, world.node)]
    assert after == before


def test_what_is_rejected_is_reported_as_dropped_and_its_rule_told(world: World) -> None:
    client, server = world.node.pods
    allowing = policy(server, PortRange(8080, 8080))
    ((name, program),) = allowing.programs.items()
    *others, last = program.rules
    rejecting = Program((*others, replace(last, rejects=True)))
    world.direct(7, replace(allowing, programs={name: rejecting}))
    world.start_agent()
    world.await_("revision 7 in force", lambda: world.state().enforced_revision == 7)
    with tcp_echo(server, server.address, 9090):
        for _ in range(3):
            with pytest.raises(ConnectionRefusedError):
                tcp_exchange(client, server.address, 9090, b"refused at once")
    provider = parse_address(server.address)
    world.await_("the drops' reports", lambda: len(_of_drops(world, provider, 9090)) >= 3)
    assert _of_drops(world, provider, 9090) == ["test/catch-all"] * 3
    world.await_("the flow", lambda: world.counted("refused", server, 9090) == 3)
    assert world.counted("answered", server, 9090) == 0

    source = parse_address(client.address)
    probe = Probe(
        hook="input", protocol=TCP, source=source, destination=provider, port=9090, to_own=True
    )
    told = world.ask(Inspection(id=5, uid="uid2", probes=[probe]))
    ((judging,),) = (met.rules for met in told.met)
    (rule,) = (one for one in told.rules if one.handle == judging.handle)
    assert (rule.chain, rule.comment, rule.packets) == ("rf_input_4", "test/catch-all", 3)
    assert "goto rf_reject" in rule.text
    assert world.ask(Inspection(id=6, uid="uid9")).problem == "no such pod runs here"


def _of_drops(world: World, provider: bytes, port: int) -> list[str]:
    """The rules of dropped packets to a port, once for each packet."""
    found = (row for row in world.drops() if row["provider"] == provider)
    return [row["rule"] for row in found if row["provider_port"] == port
            for _ in range(row["packets"])]  # fmt: skip


def _repairs(world: World) -> list[tuple[str, str, int]]:
    return [(one.uid, one.damage, one.times) for one in world.state().repairs]


def test_a_directive_that_cannot_be_read_is_told_until_one_can(world: World) -> None:
    _, server = world.node.pods
    world.direct(3, policy(server, PortRange(8080, 8080)))
    world.start_agent()
    world.await_("revision 3 in force", lambda: world.state().enforced_revision == 3)
    world.say(Directive(revision=4, node_policy=b"from the future", interval_seconds=1))
    world.await_("the reason", lambda: world.state().stale_reason)
    # The rules are written again meanwhile, by the directive that was understood.
    nft.remove(server.path)
    world.await_("tampering is undone", lambda: judges(server))
    told = world.state().clock_ns
    world.await_("later word", lambda: world.state().clock_ns > told + 2 * 10**9)
    assert _repairs(world) == [("uid2", Damage.TAKEN_AWAY, 1)]
    nft.apply(server.path, "insert rule inet ringfence rf_input accept")
    again = [("uid2", Damage.RULES, 2)]
    world.await_("word of a rule that was added", lambda: _repairs(world) == again)
    assert "revision 4 is not understood" in world.state().stale_reason
    assert world.state().enforced_revision == 3
    world.direct(5, policy(server, PortRange(8080, 8080)))
    world.await_("revision 5 in force", lambda: world.state().enforced_revision == 5)
    world.await_("no reason any more", lambda: not world.state().stale_reason)


def test_a_second_agent_is_refused_and_health_tells(world: World) -> None:
    world.start_agent()
    world.await_("it works", (world.state_dir / "health").exists)
    health = [RINGFENCE, "agent", "health", "--state-dir"]
    assert subprocess.run([*health, str(world.state_dir)], check=False).returncode == 0
    first = world.processes.pop("agent")
    try:
        world.start_agent()
        assert world.processes.pop("agent").wait(20) == 1
        assert "another agent runs on this node" in (world.directory / "agent.log").read_text()
    finally:
        first.kill()
        first.wait()
    none = subprocess.run([*health, "/nonexistent"], capture_output=True, text=True, check=False)
    assert none.returncode == 1
    assert "no agent has worked" in none.stderr


def _dropped(world: World, server: Pod, port: int) -> int:
    provider = parse_address(server.address)
    return sum(
        row["packets"]
        for row in world.drops()
        if row["provider"] == provider and row["provider_port"] == port
    )
