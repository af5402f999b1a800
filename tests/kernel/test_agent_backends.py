"""An agent that writes its rules with iptables, and one that comes after it and does not."""

import pytest

from ringfence.agent.mechanisms import MECHANISMS, Kind
from ringfence.model.protocol import PortRange
from ringfence.wire.generated.agent_pb2 import Inspection
from tests.kernel.test_backends import footprint, refused
from tests.kernel.traffic import tcp_echo, tcp_exchange
from tests.kernel.world import CAPABILITIES, World, policy

IPTABLES = Kind.IPTABLES_NFT, Kind.IPTABLES_LEGACY


@pytest.mark.parametrize("kind", IPTABLES)
def test_rules_follow_the_agent_from_one_back_end_to_another(world: World, kind: Kind) -> None:
    client, server = world.node.pods
    theirs = MECHANISMS[kind].door
    for name in ("iptables-legacy", "ip6tables-legacy"):  # the kernel keeps a table once asked for
        server.run(name, "-t", "mangle", "-L")
    before = footprint(server)
    world.direct(7, policy(server, PortRange(8080, 8080)))
    world.start_agent("--backend", kind, capabilities=f"{CAPABILITIES},+net_raw")
    world.await_("revision 7 in force", lambda: world.state().enforced_revision == 7)
    assert theirs.judges(server.path)
    assert not MECHANISMS[Kind.NFTABLES].door.judges(server.path)
    with tcp_echo(server, server.address, 8080), tcp_echo(server, server.address, 8081):
        tcp_exchange(client, server.address, 8080, b"allowed")
        assert refused(client, server.address, 8081)
        world.await_(
            "the drop is told",
            lambda: (
                [(row["rule"], row["provider_port"]) for row in world.drops() if row["packets"]][:1]
                == [("test/catch-all", 8081)]
            ),
        )
        found = world.ask(Inspection(id=5, uid="uid2"))
        told = {(one.chain, one.comment) for one in found.rules if one.packets}
        assert ("RINGFENCE-INPUT-1", "test/catch-all") in told, found.problem
        for tool in ("iptables", "ip6tables"):
            server.run(f"{tool}-{kind.removeprefix('iptables-')}", "-t", "mangle", "-F", "INPUT")
        world.await_("mended", lambda: refused(client, server.address, 8081))
        world.stop("agent")

        world.direct(8, policy(server, PortRange(8081, 8081)))
        world.start_agent(capabilities=f"{CAPABILITIES},+net_raw")
        world.await_("revision 8 in force", lambda: world.state().enforced_revision == 8)
        assert not theirs.judges(server.path)
        assert MECHANISMS[Kind.NFTABLES].door.judges(server.path)
        tcp_exchange(client, server.address, 8081, b"allowed")
        assert refused(client, server.address, 8080)
    world.direct(9, None)
    world.await_("revision 9 in force", lambda: world.state().enforced_revision == 9)
    assert footprint(server) == before


def test_an_agent_that_may_not_ask_what_iptables_asks_says_so(world: World) -> None:
    world.start_agent("--backend", "iptables-nft")
    assert world.processes.pop("agent").wait(30) == 1
    assert "the capability NET_RAW" in (world.directory / "agent.log").read_text()
