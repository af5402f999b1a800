"""An agent that ends, in order or not, and its successor: nothing is lost, nothing told twice."""

import contextlib
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pyarrow.compute as pc
import pytest

from ringfence.kernel import nft
from ringfence.model.address import parse_address
from ringfence.model.flow import Loss
from ringfence.model.protocol import UDP, PortRange
from ringfence.wire import batch
from ringfence.wire.generated.agent_pb2 import DETAILED, Directive
from tests.kernel.frames import B4, ethernet, ipv4, udp
from tests.kernel.netns import Pod
from tests.kernel.test_pins import doomed, programs_on
from tests.kernel.traffic import open_socket, tcp_echo, tcp_exchange
from tests.kernel.txring import TxRing
from tests.kernel.world import RINGFENCE, World, judges, policy, sandbox, sandboxes


def test_an_outage_and_a_crash_lose_nothing_and_repeat_nothing(world: World) -> None:
    client, server = world.node.pods
    world.start_agent()
    world.await_("both pods seen", lambda: len(world.state().pods) == 2)
    with tcp_echo(server, server.address, 8080):
        tcp_exchange(client, server.address, 8080, b"before")
        world.await_("a first report", lambda: world.counted("opened", server, 8080) == 1)
        world.stop("control", signal.SIGKILL)
        for _ in range(3):
            tcp_exchange(client, server.address, 8080, b"during")
        world.await_("a report in the spool", lambda: _spooled(world) >= 3)
        world.stop("agent", signal.SIGKILL)
        waiting = _spooled(world)
        world.start_agent()
        world.await_("the spool grows on", lambda: _spooled(world) > waiting)
        world.start_control()
        world.await_("all delivered", lambda: world.counted("opened", server, 8080) == 4)
        tcp_exchange(client, server.address, 8080, b"at last")
        world.stop("agent")  # reports once more, into the spool if need be
        world.start_agent()
        world.await_("the last one delivered", lambda: world.counted("opened", server, 8080) == 5)
    starts = [each.window_start_ns for each in world.batches()]
    assert starts == sorted(starts)


@pytest.mark.timeout(300)
def test_an_agent_that_is_killed_again_and_again_counts_every_packet_once(world: World) -> None:
    """While it works and while there is none; each kill hits another moment of the interval."""
    client, server = world.node.pods
    world.start_agent()
    world.await_("both pods seen", lambda: len(world.state().pods) == 2)
    stopping, sent = threading.Event(), 0

    def send() -> None:
        nonlocal sent
        with open_socket(client, server.address, socket.SOCK_DGRAM) as sender:
            while not stopping.wait(0.001):
                sender.sendto(b"x", (server.address, 5300))
                sent += 1

    with open_socket(server, server.address, socket.SOCK_DGRAM) as sink:
        sink.bind((server.address, 5300))
        world.await_("the first report", world.batches)
        sender = threading.Thread(target=send)
        sender.start()
        try:
            for kill in range(4):
                told = len(world.batches())
                world.await_("more reports", partial(_more_batches, world, told), 90)
                time.sleep(kill / 4)
                world.stop("agent", signal.SIGKILL)
                if kill == 3:  # just when it had taken a window's records
                    (world.state_dir / "window").write_text("interrupted 7 8")
                    with doomed(world.pin_dir, world.node) as last:
                        last.call("take")
                world.start_agent()
        finally:
            stopping.set()
            sender.join()
        world.await_("all of them", lambda: world.counted("forward_packets", server, 5300) >= sent)
        audit = world.state().audit
        world.stop("agent")
    assert world.counted("forward_packets", server, 5300) == sent > 1000
    windows = {each.id: (each.window_start_ns, each.window_end_ns) for each in world.batches()}
    assert windows["interrupted"] == (7, 8), "repeated as it was"
    assert (audit.unaccounted, audit.overcounted) == (0, 0)


def _more_batches(world: World, than: int) -> bool:
    return len(world.batches()) > than


@pytest.mark.timeout(300)
def test_a_rolling_update_at_full_speed_counts_every_packet_once(world: World) -> None:
    """What passes while one agent ends, while there is none, and while the next one starts."""
    client, _ = world.node.pods
    world.start_agent()
    world.await_("both pods seen", lambda: len(world.state().pods) == 2)
    world.await_("the first report", world.batches)
    stopping, rounds = threading.Event(), 0
    frames = [ethernet(0x0800, ipv4(UDP, udp(10_000 + i, 5300))) for i in range(512)]

    def send(ring: TxRing) -> None:
        nonlocal rounds
        while not stopping.is_set():
            ring.send()
            rounds += 1

    not_sent = client.counter("eth0", "tx_dropped")
    unowned = 0
    with contextlib.closing(TxRing(client, "eth0", frames)) as ring:
        sender = threading.Thread(target=send, args=(ring,))
        sender.start()
        try:
            for _ in range(3):
                told = len(world.batches())
                world.await_("more reports", partial(_more_batches, world, told), 90)
                world.stop("agent")
                between = rounds
                time.sleep(0.2)
                unowned += rounds - between
                world.start_agent()
            told = len(world.batches())
            world.await_("more reports", partial(_more_batches, world, told), 90)
        finally:
            stopping.set()
            sender.join()
        not_sent = client.counter("eth0", "tx_dropped") - not_sent
    sent = rounds * len(frames) - not_sent
    world.await_("all of them", lambda: world.counted("forward_packets", client, 5300) >= sent, 90)
    audit = world.state().audit
    world.stop("agent")
    assert world.counted("forward_packets", client, 5300) == sent
    assert unowned > 10
    assert (audit.unaccounted, audit.overcounted) == (0, 0)
    assert not any(audit.losses.values())


@pytest.mark.timeout(300)
def test_a_full_map_that_an_agent_left_is_reported_in_bounded_memory(world: World) -> None:
    """Each record a conversation of its own, as a port scan makes them."""
    world.say(Directive(interval_seconds=1, mode=DETAILED))
    world.start_agent()
    world.await_("detailed mode", lambda: world.state().mode == DETAILED)
    world.stop("agent")
    pod, _ = world.node.pods
    sent = scan_ports(pod, 5)
    assert sent > 262_144

    def told() -> int:
        tables = [batch.decode(batch.FLOWS, each.flows) for each in world.batches()]
        sent_to = [table.filter(pc.equal(table["provider"], parse_address(B4))) for table in tables]
        return sum(pc.sum(table["forward_packets"]).as_py() or 0 for table in sent_to)

    def lost() -> int:
        return world.state().audit.losses[Loss.FLOW_MAP_FULL]

    world.start_agent()
    world.await_("each told or lost", lambda: told() + lost() >= sent, 90)
    assert told() > 262_000
    status = Path(f"/proc/{world.processes['agent'].pid}/status").read_text()
    peak = int(status.partition("VmHWM:")[2].split()[0])
    assert peak < 350 << 10, "KiB"
    assert max(len(each.flows) for each in world.batches()) < 5 << 20


def scan_ports(pod: Pod, rounds: int) -> int:
    """Send as many packets to B4, each a conversation of its own in detailed mode."""
    any_port = [ethernet(0x0800, ipv4(UDP, udp(1 + i, 0))) for i in range(127 * 512)]
    for port in range(rounds):
        frames = [frame[:36] + struct.pack("!H", 1 + port) + frame[38:] for frame in any_port]
        with contextlib.closing(TxRing(pod, "eth0", frames)) as ring:
            ring.send()
    return rounds * len(any_port)


@pytest.mark.timeout(300)
def test_a_stop_during_a_report_loses_nothing_where_nothing_is_pinned(
    world: World, tmp_path: Path
) -> None:
    """What passes after a window's records were taken comes with one more report.

    Half of the flow map ends a window; it comes in eight batches or more.
    """
    client, server = world.node.pods
    world.say(Directive(interval_seconds=3600, mode=DETAILED))
    options = ("--pin-dir", str(tmp_path / "nowhere"))
    world.start_agent(*options)
    world.await_("both pods seen", lambda: len(world.state().pods) == 2)
    world.await_("its mode", lambda: world.state().mode == DETAILED)
    world.stop("control", signal.SIGKILL)  # batches stay in the spool
    waiting = _spooled(world)
    scan_ports(client, 3)
    agent = world.processes["agent"]
    with (
        open_socket(server, server.address, socket.SOCK_DGRAM) as sink,
        open_socket(client, server.address, socket.SOCK_DGRAM) as sender,
    ):
        sink.bind((server.address, 5300))
        while _spooled(world) < waiting + 2:  # one may be of the window before
            time.sleep(0.001)
        agent.send_signal(signal.SIGSTOP)
        sender.sendto(b"x", (server.address, 5300))
        assert _spooled(world) < waiting + 8, "the report is under way"
        agent.send_signal(signal.SIGTERM)
        agent.send_signal(signal.SIGCONT)
        world.stop("agent")
    world.start_control()
    world.start_agent(*options)

    def told() -> int:
        tables = [batch.decode(batch.FLOWS, each.flows) for each in world.batches()]
        ours = [table.filter(pc.equal(table["provider_port"], 5300)) for table in tables]
        return sum(pc.sum(table["forward_packets"]).as_py() or 0 for table in ours)

    world.await_("it is told, as both interfaces saw it", lambda: told() == 2, 90)


def test_what_an_agent_left_is_removed_when_asked_and_not_while_one_runs(world: World) -> None:
    client, server = world.node.pods
    before = [pod.run("nft", "-s", "list", "ruleset") for pod in (*world.node.pods, world.node)]
    world.direct(7, policy(server, PortRange(8080, 8080)))
    world.start_agent()
    world.await_("revision 7 in force", lambda: world.state().enforced_revision == 7)
    running = _remove(world)
    assert running.returncode == 1
    assert "another agent runs on this node" in running.stderr
    world.stop("agent")
    assert judges(server)
    assert len(programs_on(world.node, client.host_ifindex)) == 1

    for _ in range(2):  # the second time nothing is left to remove
        done = _remove(world)
        assert done.returncode == 0, done.stderr
        assert programs_on(world.node, client.host_ifindex) == []
        assert not world.pin_dir.exists()
        assert not nft.exists(server.path)
    after = [pod.run("nft", "-s", "list", "ruleset") for pod in (*world.node.pods, world.node)]
    assert after == before
    assert (world.state_dir / "identity.json").exists()


def test_what_cannot_be_reached_to_remove_its_rules_is_told_and_keeps_no_others(
    world: World,
) -> None:
    _, server = world.node.pods
    first, second = sandboxes(world.node).values()
    world.run(lost=sandbox("uid3", "/run/netns/rf-nowhere", "10.0.0.9"), one=first, two=second,
              untold=sandbox("uid4", "", "10.0.0.10"))  # fmt: skip
    for where in (server, world.node):
        where.nft("add table inet ringfence")
    done = _remove(world)
    assert done.returncode == 1
    assert "rules may be left" in done.stderr
    assert "uid3: no network namespace at /run/netns/rf-nowhere" in done.stderr
    assert "uid4: the container runtime does not tell" in done.stderr
    assert "uid2" not in done.stderr
    assert not nft.exists(server.path)
    assert not nft.exists(world.node.path)

    for where in (server, world.node):
        where.nft("add table inet ringfence")
    world.stop("runtime", signal.SIGKILL)
    done = _remove(world)
    assert done.returncode == 1
    assert "pods: the container runtime at" in done.stderr
    assert nft.exists(server.path)
    assert not nft.exists(world.node.path)


def test_a_disk_that_is_full_costs_the_reports_that_found_no_room_and_no_others(
    world: World,
) -> None:
    """And the agent goes on, telling how many, until there is room again."""
    client, server = world.node.pods
    with small_disk(world.state_dir), tcp_echo(server, server.address, 8080):
        world.start_agent()
        world.await_("both pods seen", lambda: len(world.state().pods) == 2)
        world.stop("control", signal.SIGKILL)
        tcp_exchange(client, server.address, 8080, b"kept")
        waiting = _spooled(world)
        world.await_("it is in the spool", lambda: _spooled(world) > waiting + 1)
        ballast = world.state_dir / "ballast"
        with ballast.open("wb", 0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
        tcp_exchange(client, server.address, 8080, b"lost")
        world.await_("reports are lost", lambda: _said(world).count("No space left") >= 3)
        ballast.unlink()
        world.start_control()
        tcp_exchange(client, server.address, 8080, b"kept")
        world.await_("what was kept", lambda: world.counted("opened", server, 8080) == 2)
        world.await_("the loss", lambda: world.state().audit.losses[Loss.REPORT_NOT_KEPT] >= 2)
        world.stop("agent")
    assert world.counted("opened", server, 8080) == 2


def _said(world: World) -> str:
    """The agent's words on reports that it could not keep."""
    lines = (world.directory / "agent.log").read_text().splitlines()
    return "\n".join(line for line in lines if "cannot keep a report" in line)


@contextlib.contextmanager
def small_disk(at: Path) -> Iterator[None]:
    """A directory's files on a file system of a mebibyte, while it lasts."""
    files = {path.name: path.read_bytes() for path in at.iterdir()}
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", at], check=True)
    try:
        for name, data in files.items():
            (at / name).write_bytes(data)
        yield
    finally:
        subprocess.run(["umount", "--lazy", at], check=True)


def _remove(world: World) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["nsenter", f"--net={world.node.path}", RINGFENCE, "agent", "remove",
         "--state-dir", str(world.state_dir), "--pin-dir", str(world.pin_dir),
         "--runtime-socket", str(world.directory / "cri.sock")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def _spooled(world: World) -> int:
    return len(list((world.state_dir / "spool").glob("*.batch")))
