"""A whole agent that is killed a hundred times at any moment of its life, under traffic."""

import contextlib
import random
import signal
import time
from dataclasses import replace

import pytest

from ringfence.agent.mechanisms import Kind
from ringfence.model.address import parse_address, parse_network
from ringfence.model.policy import Action
from ringfence.model.protocol import TCP, UDP, PortRange
from ringfence.policy import program
from ringfence.policy.program import Gate, NodeBinding, NodePolicy, PodBinding, Program, Rule
from tests.kernel.netns import Node
from tests.kernel.test_killed import KILLS, Traffic, running, udp_echo
from tests.kernel.traffic import tcp_echo
from tests.kernel.world import CAPABILITIES, World
from tests.kernel.world import policy as one_pod

LISTING = {
    Kind.NFTABLES: ("nft", "list", "ruleset"),
    Kind.IPTABLES_NFT: ("iptables-nft-save", "-t", "mangle"),
    Kind.IPTABLES_LEGACY: ("iptables-legacy-save", "-t", "mangle"),
}
ALL, IN = program.ProgramId("all"), program.ProgramId("in")


def policy(kind: Kind, node: Node, number: int) -> NodePolicy:
    """The first or the second: both admit the client to ports 80 and 81, and nobody to 82.

    The second has more rules. With nftables, which alone can, the server's node judges it too, and
    lets no pod through whose rules are not in force.
    """
    client, server = node.pods
    base = one_pod(server, PortRange(80, 81))
    clients = program.SetId("clients")
    more = tuple(
        Rule(f"test/p{number}/r{at}", Action.ALLOW, TCP if at % 2 else UDP,
             (PortRange(1000 + 7 * at, 1000 + 7 * at),), clients)
        for at in range(20 * (number - 1))
    )  # fmt: skip
    admit = tuple(
        Rule(f"test/p{number}/in", Action.ALLOW, protocol, (PortRange(80, 81),), clients)
        for protocol in (TCP, UDP)
    )
    last = Rule(f"catch-all/test/p{number}", Action.DENY, None, (), None)
    gate = Gate((parse_network("10.99.0.0/16"), parse_network("fd00:99::/32")), None, ())
    return replace(
        base,
        programs={
            ALL: Program((Rule(f"test/p{number}/any", Action.ALLOW, None, (), None),)),
            IN: Program((*more, *admit, last)),
        },
        sets={clients: (parse_network(f"{client.address}/32"),)},
        pods=(
            PodBinding("uid1", "test", "pod1", (parse_address(client.address),), (ALL,), (ALL,)),
            PodBinding("uid2", "test", "pod2", (parse_address(server.address),), (IN,), (ALL,),
                       guarded=kind is Kind.NFTABLES),
        ),
        binding=NodeBinding((), ALL, ALL, None),
        gate=gate if kind is Kind.NFTABLES else None,
    )  # fmt: skip


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("kind", "kills"), [(Kind.NFTABLES, KILLS), (Kind.IPTABLES_NFT, 5), (Kind.IPTABLES_LEGACY, 5)]
)
def test_no_kill_of_an_agent_opens_or_locks_a_pod(world: World, kind: Kind, kills: int) -> None:
    client, server = world.node.pods
    revision, written, traffic = 1, 0, Traffic()

    def start() -> None:
        world.direct(revision, policy(kind, world.node, number()))
        world.start_agent("--backend", kind, capabilities=f"{CAPABILITIES},+net_raw")

    def number() -> int:
        return 1 + revision % 2

    def enforced() -> bool:
        return world.state().enforced_revision == revision

    began = time.monotonic()
    start()
    world.await_("the first revision in force", enforced, 90)
    life = time.monotonic() - began
    with contextlib.ExitStack() as stack:
        stack.enter_context(udp_echo(server))
        for port in (80, 81, 82):
            stack.enter_context(tcp_echo(server, server.address, port))
        stack.enter_context(traffic.hear(server))
        stack.enter_context(
            running(
                traffic,
                lambda: traffic.talk(client, server),
                lambda: traffic.ask(client, server),
                lambda: traffic.dial("new connections", client, server),
                lambda: traffic.knock(client, server),
            )
        )
        for _ in range(kills):
            world.stop("agent", signal.SIGKILL)
            listed = server.run(*LISTING[kind])
            (stands,) = (one for one in (1, 2) if f"catch-all/test/p{one}" in listed)
            assert ("test/p2/" in listed) == (stands == 2), "not one's rules and the other's"
            written += stands == number()
            revision += 1
            start()
            time.sleep(random.uniform(0, life))
        world.await_("the last revision in force", enforced, 90)
    assert (traffic.lost, traffic.passed) == ([], [])
    assert 0 < written < kills, "kills came at several moments"
    assert min(traffic.answered.values()) > kills
    assert len(traffic.answered) == 4
