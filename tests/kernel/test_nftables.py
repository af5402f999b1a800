"""What only nftables does: elements change alone, and its library has its ways."""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ringfence.agent.mechanisms import MECHANISMS, Kind
from ringfence.kernel import nft
from ringfence.kernel.libnftables import NftError, objects
from ringfence.model.address import Network, host_network, parse_address
from ringfence.model.ids import ClusterId, NodeName
from ringfence.model.policy import Action
from ringfence.model.protocol import UDP, PortRange
from ringfence.policy.backends.groups import FEW
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
from tests.kernel import test_backends as backends
from tests.kernel.netns import Namespace, Node, Pod, node_with_pods
from tests.kernel.test_backends import ALLOWED, refused
from tests.kernel.traffic import open_socket, tcp_echo, tcp_exchange

NFTABLES = MECHANISMS[Kind.NFTABLES]
BACKEND = Nftables()


@pytest.fixture
def node() -> Iterator[Node]:
    with node_with_pods(3) as made:
        yield made


load = partial(backends.load, NFTABLES)
drops = partial(backends.drops, NFTABLES)
inbound = partial(backends.inbound, NFTABLES)


def rules(where: Namespace) -> list[dict[str, Any]]:
    """The rules with their counters, as nft tells them."""
    return [found["rule"] for found in nft.list_table(where.path) or () if "rule" in found]


def test_a_change_of_members_changes_elements_only(node: Node) -> None:
    friend, other, server = node.pods
    first, second = inbound(server, friend.address), inbound(server, friend.address, other.address)
    load(server, first)
    with tcp_echo(server, server.address, 80):
        tcp_exchange(friend, server.address, 80, b"hello")
        before = rules(server)
        commands = BACKEND.transaction(second, first)
        added = f"add element inet ringfence rf_friends_4 {{ {other.address} }}\n"
        assert commands == server.ours(added) != added
        load(server, second, first)
        assert rules(server) == before
        allowing = [rule["expr"] for rule in before if rule.get("comment") == ALLOWED.handle]
        assert any(part.get("counter", {}).get("packets") for expr in allowing for part in expr)
        tcp_exchange(other, server.address, 80, b"hello")
        load(server, first, second)
        assert refused(other, server.address, 80)
        tcp_exchange(friend, server.address, 80, b"hello")
    assert BACKEND.transaction(first, first) == ""


def test_a_refused_transaction_changes_nothing_and_says_why(node: Node) -> None:
    pod = node.pods[0]
    load(pod, inbound(pod))
    before = pod.run("nft", "-s", "list", "ruleset")
    with pytest.raises(NftError, match="No such file or directory"):
        nft.apply(pod.path, "delete table inet ringfence\nadd rule inet nowhere c accept\n")
    assert pod.run("nft", "-s", "list", "ruleset") == before


def test_many_open_files_are_refused_before_the_library_ends_the_process(node: Node) -> None:
    pod = node.pods[0]
    load(pod, inbound(pod))
    before = pod.run("nft", "-s", "list", "ruleset")
    with ExitStack() as held:
        for _ in range(1024):
            held.enter_context(Path(os.devnull).open())
        with pytest.raises(NftError, match="files are open"):
            nft.remove(pod.path)
    assert pod.run("nft", "-s", "list", "ruleset") == before


def test_a_rule_that_says_nothing_is_one_without_statements() -> None:
    """Written by netlink, it is listed by nft 1.0.6 without `expr`."""
    (rule,) = objects('{"nftables": [{"rule": {"chain": "rf_input", "handle": 7}}]}')
    assert rule["rule"]["expr"] == []
    assert nft.fingerprint([rule])


def test_no_packet_meets_rules_whose_sets_hold_nothing_yet(node: Node) -> None:
    """The kernel shows what a set of ranges holds an instant after rules loaded along with it."""
    client, server = node.pods[:2]
    ports = (PortRange(80, 90), PortRange(443, 443))
    peers = tuple(host_network(parse_address(f"10.{at // 200}.{at % 200}.7")) for at in range(400))
    sets = {SetId("peers"): (*peers, host_network(parse_address(server.address)))}
    admit = Rule("admit", Action.ALLOW, UDP, ports, SetId("peers"))
    others = [Rule(f"p{at}", Action.ALLOW, UDP, (PortRange(at, at),), SetId("peers"))
              for at in range(1000, 1000 + FEW)]  # fmt: skip
    silent = Rule("silent", Action.DENY, UDP, (PortRange(81, 85),), SetId("peers"))
    last = Rule("last", Action.DENY, None, (), None)
    programs = (
        (admit, last),  # a set of ports and one of peers
        (silent, admit, *others, last),  # a set of both, and a map
        (admit, *others, last),  # a set of both
    )
    rulesets = [_outbound(client, sets, program) for program in programs]
    load(client, rulesets[0])
    ended, sent, wrong = threading.Event(), [0], [0]

    def talk() -> None:
        with open_socket(client, server.address, socket.SOCK_DGRAM) as udp:
            while not ended.is_set():
                for port in (86, 443):
                    sent[0] += 1
                    try:
                        udp.sendto(b"x", (server.address, port))
                    except PermissionError:
                        wrong[0] += 1

    client.run("sysctl", "-q", "net.netfilter.nf_conntrack_udp_timeout=0")
    thread = threading.Thread(target=talk, daemon=True)
    thread.start()
    for number in range(90):
        was, desired = rulesets[number % 3], rulesets[(number + 1) % 3]
        load(client, desired, was if number % 2 else None)
    ended.set()
    thread.join(5)
    assert sent[0] > 1000
    assert wrong[0] == 0
    listed = nft.list_table(client.path) or ()
    made = [kind for one in listed for kind in ("set", "map") if kind in one]
    assert len(made) == len(desired.sets) + len(desired.drop_sets)


@pytest.mark.parametrize("way", ["a set of another kind", "a thing that we never make"])
def test_what_others_put_in_the_way_goes_along_with_the_table(node: Node, way: str) -> None:
    friend, other, server = node.pods
    first, second = inbound(server, friend.address), inbound(server, other.address)
    load(server, first)
    name = server.ours("rf_friends_4")
    if way == "a set of another kind":
        server.nft(f"flush chain inet ringfence rf_input_4; delete set inet ringfence {name};"
                   f" add set inet ringfence {name} {{ type mark; }}")  # fmt: skip
    else:
        server.nft("add counter inet ringfence counted; add chain inet ringfence strange;"
                   " add rule inet ringfence strange counter name counted")  # fmt: skip
    load(server, second)
    before = server.run("nft", "-s", "list", "ruleset")
    with tcp_echo(server, server.address, 80):
        tcp_exchange(other, server.address, 80, b"hello")
        assert refused(friend, server.address, 80)
    load(server, second)
    assert server.run("nft", "-s", "list", "ruleset") == before


def test_rules_that_are_refused_leave_no_sets_behind(node: Node) -> None:
    friend, other, server = node.pods
    load(server, inbound(server, friend.address))
    before = server.run("nft", "-s", "list", "ruleset")
    desired = inbound(server, friend.address, other.address)
    frame = desired.frame.replace("counter accept", "counter goto rf_nowhere")
    with pytest.raises(NftError, match="No such file or directory"):
        load(server, replace(desired, frame=frame))
    assert server.run("nft", "-s", "list", "ruleset") == before


def _outbound(pod: Pod, sets: dict[SetId, tuple[Network, ...]], rules: tuple[Rule, ...]) -> Ruleset:
    program = ProgramId("out")
    own = parse_address(pod.address)
    binding = PodBinding("uid", "test", "pod", (own,), (), (program,))
    policy = NodePolicy(
        ClusterId("test"), NodeName("node1"), sets, {program: Program(rules)}, (binding,),
        NodeBinding((), None, None, None), (),
    )  # fmt: skip
    return BACKEND.render_pod(policy, binding)
