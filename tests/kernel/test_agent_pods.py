"""The agent follows the node's pods and interfaces as they come and go, and its runtime."""

import contextlib
import signal
import socket
import time

import pytest

from ringfence.kernel import nft
from ringfence.model.flow import Loss, Observer
from ringfence.model.protocol import UDP, PortRange
from ringfence.wire.generated.agent_pb2 import AgentState, Directive
from tests.kernel.frames import ethernet, ipv4, udp
from tests.kernel.netns import ip, namespace
from tests.kernel.test_pins import programs_on
from tests.kernel.traffic import open_socket
from tests.kernel.txring import TxRing
from tests.kernel.world import Row, World, judges, policy, sandbox, sandboxes


def test_pods_that_come_are_programmed_and_those_out_of_reach_are_told(world: World) -> None:
    _, server = world.node.pods
    first, second = sandboxes(world.node).values()
    world.run(one=first)
    world.direct(3, policy(server, PortRange(8080, 8080)))
    world.start_agent()
    world.await_("revision 3 in force", lambda: world.state().enforced_revision == 3)
    assert {p.uid: p.programmed for p in world.state().pods} == {"uid1": False}
    assert nft.list_table(server.path) is None
    world.run(one=first, two=second, lost=sandbox("uid3", "/run/netns/rf-nowhere", "10.0.0.9"),
              untold=sandbox("uid4", "", "10.0.0.10"))  # fmt: skip
    world.await_("the new pod's rules", lambda: nft.list_table(server.path))
    world.await_("word of them", lambda: len(world.state().pods) == 4)
    world.await_("programmed", lambda: "uid2" in _programmed(world.state()))
    reasons = {p.uid: p.reason for p in world.state().pods}
    assert "no network namespace at /run/netns/rf-nowhere" in reasons["uid3"]
    assert "does not tell its network namespace" in reasons["uid4"]
    world.direct(0, None)
    world.await_("no rules", lambda: nft.list_table(server.path) is None)


def test_directives_about_pods_that_are_known_do_not_ask_the_runtime_for_them(
    world: World,
) -> None:
    """Pods are listed each second, however many directives come in it."""
    _, server = world.node.pods
    world.start_agent()
    world.await_("both pods seen", lambda: len(world.state().pods) == 2)
    before, began = _listings(world), time.monotonic()
    for revision in range(1, 41):
        world.direct(revision, policy(server, PortRange(8080, 8080 + revision)))
        world.await_("it in force", lambda: world.state().enforced_revision == revision)  # noqa: B023
    seconds = time.monotonic() - began
    assert _listings(world) - before <= seconds + 2


def test_a_pod_that_could_not_be_entered_is_tried_again(world: World) -> None:
    _, server = world.node.pods
    netns = world.directory / "netns"
    world.run(late=sandbox("uid2", str(netns), server.address))
    world.direct(3, policy(server, PortRange(8080, 8080)))
    world.start_agent()
    world.await_("the reason", lambda: [p for p in world.state().pods if p.reason])
    netns.symlink_to(server.path)
    world.await_("its rules", lambda: "uid2" in _programmed(world.state()))
    assert judges(server)


def test_a_runtime_that_is_away_shows_in_the_health_and_is_found_again(world: World) -> None:
    first, second = sandboxes(world.node).values()
    world.run(one=first)
    world.start_agent()
    world.await_("its pod", lambda: len(world.state().pods) == 1)
    world.stop("runtime", signal.SIGKILL)
    world.await_("the reason", lambda: "runtime" in world.state().stale_reason)
    health = world.state_dir / "health"
    before = health.stat().st_mtime_ns
    told = world.state().clock_ns
    world.await_("later word", lambda: world.state().clock_ns > told + 3 * 10**9)
    assert health.stat().st_mtime_ns == before
    assert len(world.state().pods) == 1
    (world.directory / "cri.sock").unlink()
    world.run(one=first, two=second)
    world.start_runtime()
    world.await_("the pod that came meanwhile", lambda: len(world.state().pods) == 2)
    world.await_("no reason any more", lambda: not world.state().stale_reason)
    world.await_("health", lambda: health.stat().st_mtime_ns > before)


def flows_to(world: World, port: int) -> list[Row]:
    return [row for row in world.flows() if row["provider_port"] == port]


def _listings(world: World) -> int:
    return len((world.directory / "listed").read_text().splitlines())


def _programmed(state: AgentState) -> set[str]:
    return {pod.uid for pod in state.pods if pod.programmed}


def test_what_reached_a_pod_that_has_ended_is_told_from_its_own_interface(world: World) -> None:
    """Nobody answers a datagram, so that only where it was seen tells that it arrived."""
    client, server = world.node.pods
    world.say(Directive(interval_seconds=3600))
    world.start_agent()
    world.await_("both pods seen", lambda: len(world.state().pods) == 2)
    with (
        open_socket(server, server.address, socket.SOCK_DGRAM) as sink,
        open_socket(client, server.address, socket.SOCK_DGRAM) as sender,
    ):
        sink.bind((server.address, 5300))
        sender.sendto(b"x", (server.address, 5300))
        assert sink.recv(100) == b"x"
    ip("-n", world.node.name, "link", "delete", server.host_device)
    world.run(one=sandboxes(world.node)["sandbox1"])
    world.await_("one pod left", lambda: len(world.state().pods) == 1)
    world.say(Directive(interval_seconds=1))
    world.await_("the report", lambda: world.counted("forward_packets", server, 5300) == 1)
    seen = [row["observer"] for row in world.flows() if row["provider_port"] == 5300]
    assert seen == [Observer.POD, Observer.POD]


@pytest.mark.parametrize(("address", "believed"), [("192.0.2.1/32", False), ("192.0.2.1/24", True)])
def test_what_a_tunnel_carries_is_believed_of_the_nodes_network_and_of_no_pod_that_nobody_told_of(
    world: World, address: str, believed: bool
) -> None:
    """The node's end of a pod's veth has no network around its address, an uplink's has."""
    world.start_agent()
    world.await_("both pods seen", lambda: len(world.state().pods) == 2)
    inside = bytes(8) + ethernet(0x0800, ipv4(UDP, udp(1001, 53)))
    frame = ethernet(0x0800, ipv4(UDP, udp(1000, 4789, inside)))
    with namespace("stranger") as stranger:
        ip("-n", world.node.name, "link", "add", "near", "type", "veth",
           "peer", "name", "far", "netns", stranger.name)  # fmt: skip
        ip("-n", world.node.name, "addr", "add", address, "dev", "near")
        for where, name in ((world.node, "near"), (stranger, "far")):
            ip("-n", where.name, "link", "set", name, "addrgenmode", "none", "up")
        ifindex = world.node.ifindex("near")
        world.await_("the program", lambda: programs_on(world.node, ifindex))
        with contextlib.closing(TxRing(stranger, "far", [frame] * 512)) as ring:
            ring.send()
        world.await_("the tunnel", lambda: flows_to(world, 4789))
    assert {row["interface"] for row in flows_to(world, 4789)} == {ifindex}
    assert bool(flows_to(world, 53)) == believed
    observers = {row["observer"] for row in flows_to(world, 4789)}
    assert observers == {Observer.NODE if believed else Observer.POD}


def test_a_new_interface_is_captured_though_the_runtime_hangs_and_what_came_first_is_counted(
    world: World,
) -> None:
    world.start_agent()
    world.await_("both pods seen", lambda: len(world.state().pods) == 2)
    node = world.node
    frames = [ethernet(0x0800, ipv4(UDP, udp(10_000 + i, 5300))) for i in range(512)]
    runtime, agent = world.processes["runtime"], world.processes["agent"]
    try:
        runtime.send_signal(signal.SIGSTOP)
        agent.send_signal(signal.SIGSTOP)
        ip("-n", node.name, "link", "add", "near", "type", "veth", "peer", "name", "far")
        for name in ("near", "far"):
            node.run("sysctl", "-qw", f"net.ipv6.conf.{name}.disable_ipv6=1")  # no MLD reports
            ip("-n", node.name, "link", "set", name, "up")
        with contextlib.closing(TxRing(node, "far", frames)) as ring:
            ring.send()
        passed = sum(
            node.counter(name, f"{way}_packets") for name in ("near", "far") for way in ("rx", "tx")
        )
        assert passed >= 2 * len(frames)
        agent.send_signal(signal.SIGCONT)
        ifindex = int(node.run("cat", "/sys/class/net/near/ifindex"))
        world.await_("the program", lambda: programs_on(node, ifindex))
        assert "container runtime" not in (world.directory / "agent.log").read_text()
    finally:
        agent.send_signal(signal.SIGCONT)
        runtime.send_signal(signal.SIGCONT)
    world.await_("the loss", lambda: world.state().audit.losses[Loss.BEFORE_ATTACHED] == passed)
