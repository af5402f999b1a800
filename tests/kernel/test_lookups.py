"""Many rules in few lookups, on real packets: each is decided, and told, as the program says."""

import random
import socket
from collections.abc import Iterator
from functools import partial

import numpy as np
import pytest

from ringfence.agent.mechanisms import Mechanism
from ringfence.kernel import nft
from ringfence.model.address import Network, format_address, parse_address, parse_network
from ringfence.model.ids import ClusterId, NodeName
from ringfence.model.policy import Action, Direction
from ringfence.model.protocol import TCP, UDP, PortRange
from ringfence.policy.backends.groups import FEW, Shape
from ringfence.policy.backends.interface import Ruleset
from ringfence.policy.backends.nftables import Nftables
from ringfence.policy.program import (
    NodeBinding,
    NodePolicy,
    PodBinding,
    Program,
    ProgramId,
    Rule,
    SetId,
)
from ringfence.policy.recheck import Opened, first_match
from tests.kernel.netns import Node, Pod, ip, node_with_pods
from tests.kernel.traffic import family

SOURCES = 10
PORTS = (53, 80, 81, 443, 8080, 9000)
CATCH_ALL = Rule("catch-all/shop/p1", Action.DENY, None, (), None)
PROGRAM = ProgramId("p")
BACKEND = Nftables()


@pytest.fixture
def node() -> Iterator[Node]:
    with node_with_pods(2) as made:
        yield made


@pytest.mark.parametrize("seed", range(4))
def test_each_packet_is_decided_by_the_first_rule(
    mechanism: Mechanism, node: Node, seed: int
) -> None:
    client, server = node.pods
    sources = [*_addresses(client, 4), *_addresses(client, 6)]
    for address in sources:
        prefix = "24" if "." in address else "64"
        ip("-n", client.name, "addr", "add", f"{address}/{prefix}", "dev", "eth0", "nodad")
    policy, binding = _inbound(server, *_made(random.Random(seed), sources))
    backend = mechanism.backend()
    rules = backend.render_pod(policy, binding)
    if isinstance(backend, Nftables):
        assert any(name.startswith("rf_input_") for name in rules.sets), "no rules asked together"
    mechanism.door.apply(server.path, backend.transaction(rules, None))
    sent = [
        (source, protocol, port) for source in sources for protocol in (UDP, TCP) for port in PORTS
    ]
    client.call(partial(_send, server, sent))
    program = policy.programs[PROGRAM].rules
    places = first_match(policy, program, Direction.INBOUND, _opened(server, sent))
    expected = {
        (source, protocol, port): program[place].handle
        for (source, protocol, port), place in zip(sent, places, strict=True)
        if program[place].action is Action.DENY
    }
    assert _told(mechanism, server, rules) == expected
    assert 0 < len(expected) < len(sent)


def test_another_policy_changes_elements_only(node: Node) -> None:
    """A pod's 640 policies are few rules and sets, and stay the same rules with 641."""
    server = node.pods[1]
    peers = [parse_network(f"10.{at // 200}.{at % 200}.0/24") for at in range(641)]
    sets: dict[SetId, tuple[Network, ...]] = {
        SetId(f"s{at}"): (peer,) for at, peer in enumerate(peers)
    }
    allowed = [
        Rule(f"p{at}", Action.ALLOW, TCP, (PortRange(1000 + at, 1000 + at),), SetId(f"s{at}"))
        for at in range(641)
    ]
    before, after = (
        BACKEND.render_pod(*_inbound(server, sets, [*some, CATCH_ALL]))
        for some in (allowed[:640], allowed)
    )
    nft.apply(server.path, BACKEND.transaction(before, None))
    commands = BACKEND.transaction(after, before)
    name = server.ours("rf_input_4_0")
    assert commands == (
        f"add element inet ringfence {name} {{ 10.3.40.0-10.3.40.255 . tcp . 1640 }}\n"
    )
    nft.apply(server.path, commands)
    listed = nft.list_table(server.path) or []
    assert sum("rule" in found for found in listed) <= 50
    assert sum("set" in found or "map" in found for found in listed) <= 100
    (held,) = (found["set"] for found in listed if found.get("set", {}).get("name") == name)
    assert len(held["elem"]) == 641
    nft.apply(server.path, BACKEND.transaction(before, after))
    listed = nft.list_table(server.path) or []
    (held,) = (found["set"] for found in listed if found.get("set", {}).get("name") == name)
    assert len(held["elem"]) == 640

    anybody = Rule("anybody", Action.ALLOW, TCP, (PortRange(8080, 8080),), None)
    open_ = BACKEND.render_pod(*_inbound(server, sets, [*allowed[:640], anybody, CATCH_ALL]))
    nft.apply(server.path, BACKEND.transaction(open_, before))
    commands = BACKEND.transaction(before, open_)
    assert commands.splitlines() == [
        server.ours(f"delete element inet ringfence rf_input_{family}_2 {{ tcp . 8080 }}")
        for family in (4, 6)
    ]
    nft.apply(server.path, commands)


def _addresses(client: Pod, version: int) -> list[str]:
    stem = client.address.rpartition(".")[0] + "." if version == 4 else "fd00:99:1::"
    return [f"{stem}{10 + at}" for at in range(SOURCES)]


def _made(
    source_of: random.Random, sources: list[str]
) -> tuple[dict[SetId, tuple[Network, ...]], list[Rule]]:
    """Runs of rules of one action and kind, with sets that overlap."""
    hosts = [parse_network(source) for source in sources]
    sets = {SetId(f"s{at}"): tuple(source_of.sample(hosts, 3)) for at in range(12)}
    sets[SetId("wide")] = (parse_network("10.99.1.16/28"), parse_network("fd00:99:1::10/124"))
    runs = (
        (Action.DENY, Shape.BOTH),
        (Action.ALLOW, Shape.BOTH),
        (Action.DENY, Shape.PEERS),
        (Action.ALLOW, Shape.PORTS),
        (Action.DENY, Shape.PORTS),
    )
    rules = []
    for run, (action, shape) in enumerate(runs):
        for place in range(FEW + 2):
            port = source_of.choice(PORTS)
            ports: tuple[PortRange, ...] = (PortRange(port, port),)
            protocol, peers = source_of.choice((TCP, UDP)), source_of.choice(list(sets))
            name = f"r{run}.{place}"
            match shape:
                case Shape.BOTH:
                    wider = (PortRange(port, source_of.choice([p for p in PORTS if p >= port])),)
                    rules.append(Rule(name, action, protocol, wider, peers))
                case Shape.PEERS:
                    few = SetId(f"s{place % 3}")
                    rules.append(Rule(name, action, None, (), few))
                case Shape.PORTS:
                    rules.append(Rule(name, action, protocol, ports, None))
    return sets, [*rules, CATCH_ALL]


def _inbound(
    server: Pod, sets: dict[SetId, tuple[Network, ...]], rules: list[Rule]
) -> tuple[NodePolicy, PodBinding]:
    own = tuple(map(parse_address, (server.address, server.address6)))
    binding = PodBinding("uid", "shop", server.name, own, (PROGRAM,), ())
    policy = NodePolicy(
        ClusterId("c1"),
        NodeName("n1"),
        sets,
        {PROGRAM: Program(tuple(rules))},
        (binding,),
        NodeBinding((), None, None, None),
        (),
    )
    return policy, binding


def _send(server: Pod, sent: list[tuple[str, int, int]]) -> None:
    for source, protocol, port in sent:
        kind = socket.SOCK_STREAM if protocol == TCP else socket.SOCK_DGRAM
        to = server.address if "." in source else server.address6
        with socket.socket(family(source), kind) as client:
            client.setblocking(False)
            client.bind((source, 0))
            client.connect_ex((to, port))
            if protocol == UDP:
                client.send(b"x")


def _opened(server: Pod, sent: list[tuple[str, int, int]]) -> Opened:
    sources, protocols, ports = zip(*sent, strict=True)
    to = [server.address if "." in source else server.address6 for source in sources]
    ends = (np.frombuffer(b"".join(map(parse_address, some)), np.uint8) for some in (sources, to))
    source, destination = (end.reshape(-1, 16) for end in ends)
    return Opened(
        protocol=np.array(protocols, np.uint8),
        source=source,
        destination=destination,
        port=np.array(ports, np.uint16),
        translated=np.zeros(len(sent), np.bool_),
    )


def _told(mechanism: Mechanism, server: Pod, rules: Ruleset) -> dict[tuple[str, int, int], str]:
    """By source, protocol and port the handle of the rule that denied."""
    listed = mechanism.door.list_table(server.path) or []
    drops = mechanism.door.read_drops(listed, rules.drop_sets)
    return {
        (format_address(source.tobytes()), int(protocol), int(port)): rules.denials[mark].handle
        for source, protocol, port, mark in zip(
            drops.source, drops.protocol, drops.port, drops.mark.tolist(), strict=True
        )
    }
