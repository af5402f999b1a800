"""A real agent with a policy on trial that hears no more: it goes back by itself, killed or not."""

import signal
import socket
import time

import pytest

from ringfence.model.protocol import PortRange
from ringfence.policy import program
from ringfence.wire.generated.agent_pb2 import Directive, Fallback
from tests.kernel.netns import Pod
from tests.kernel.traffic import open_socket, tcp_echo
from tests.kernel.world import World, judges, policy


def on_trial(server: Pod, revision: int, seconds: float) -> Directive:
    """8081 is allowed instead of 8080, for so long."""
    new, old = (policy(server, PortRange(port, port)) for port in (8081, 8080))
    at_ns = time.time_ns() + int(seconds * 10**9)
    return Directive(
        revision=revision,
        node_policy=program.encode(new),
        interval_seconds=1,
        fallback=Fallback(node_policy=program.encode(old), at_ns=at_ns),
    )


def passes(client: Pod, server: Pod, port: int) -> bool:
    with open_socket(client, server.address, socket.SOCK_STREAM) as dialling:
        dialling.settimeout(0.3)
        return dialling.connect_ex((server.address, port)) == 0


@pytest.mark.parametrize("killed", [False, True])
def test_a_change_that_cuts_the_control_plane_off_heals_itself(world: World, killed: bool) -> None:
    client, server = world.node.pods
    world.direct(3, policy(server, PortRange(8080, 8080)))
    world.start_agent()
    world.await_("revision 3 in force", lambda: world.state().enforced_revision == 3)
    with tcp_echo(server, server.address, 8080), tcp_echo(server, server.address, 8081):
        assert passes(client, server, 8080)
        begun = time.monotonic()
        world.say(on_trial(server, 4, 6))
        world.await_("revision 4 in force", lambda: world.state().enforced_revision == 4)
        world.stop("control", signal.SIGKILL)
        if killed:
            world.stop("agent", signal.SIGKILL)
            world.start_agent()
        assert not passes(client, server, 8080)
        assert passes(client, server, 8081)
        world.await_("the way back", lambda: passes(client, server, 8080))
        assert time.monotonic() - begun > 5
        assert not passes(client, server, 8081)
        world.start_control()  # which still says that revision 4 is on trial, until a time gone by
        world.await_("word of it", lambda: "was on trial" in world.state().stale_reason)
        assert passes(client, server, 8080)
        world.direct(5, policy(server, PortRange(8081, 8081)))
        world.await_("revision 5 in force", lambda: world.state().enforced_revision == 5)
        assert not world.state().stale_reason
        assert passes(client, server, 8081)


def test_a_directive_that_was_changed_on_disk_leaves_the_rules_that_are_there(
    world: World,
) -> None:
    client, server = world.node.pods
    world.direct(3, policy(server, PortRange(8080, 8080)))
    world.start_agent()
    world.await_("revision 3 in force", lambda: world.state().enforced_revision == 3)
    world.stop("control", signal.SIGKILL)
    world.stop("agent", signal.SIGKILL)
    kept = world.state_dir / "directive"
    kept.write_bytes(kept.read_bytes().replace(b"8080", b"8081"))
    with tcp_echo(server, server.address, 8080), tcp_echo(server, server.address, 8081):
        world.start_agent()
        log = world.directory / "agent.log"
        world.await_(
            "the refusal", lambda: "the control plane's CA did not sign" in log.read_text()
        )
        world.await_("a look", (world.state_dir / "health").exists)
        assert judges(server)
        assert (passes(client, server, 8080), passes(client, server, 8081)) == (True, False)
        world.start_control()
        world.await_("revision 3 anew", lambda: not world.state().stale_reason)
        assert world.state().enforced_revision == 3
