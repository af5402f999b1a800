"""Rules that a privileged pod changes in its own namespace: noticed, survived, written again."""

import socket
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ringfence.agent.enforce import Enforcer
from ringfence.agent.plan import Order
from ringfence.agent.pods import Place
from ringfence.kernel import conntrack, nft
from ringfence.kernel.drops import DROP_DTYPE
from ringfence.kernel.errors import NetlinkError
from ringfence.kernel.netlink import CREATE
from ringfence.kernel.netns import inode
from ringfence.kernel.nft_watch import TableWatch
from ringfence.model.address import parse_address, parse_network
from ringfence.model.policy import Action
from ringfence.model.protocol import TCP
from ringfence.policy.backends.groups import FEW
from ringfence.policy.backends.interface import Ruleset
from ringfence.policy.backends.nftables import Nftables
from ringfence.policy.backends.nftables_table import DROP_SET_SIZE
from ringfence.policy.program import NodePolicy, PodBinding, Program, Rule, SetId
from ringfence.wire import batch
from tests.kernel.netns import Node, Pod, node_with_pods
from tests.kernel.test_cut import CATCH_ALL, FRIENDS, IN, OUT, enforce, policy_of, ports
from tests.kernel.traffic import open_socket, tcp_echo, tcp_exchange

ADMIT = Program((Rule("default/shop/p1/in", Action.ALLOW, TCP, ports(80), FRIENDS), CATCH_ALL))
CLOSED = Program((CATCH_ALL,))
ANYTHING = Program((Rule("default/shop/p1/any", Action.ALLOW, None, (), None),))


@pytest.fixture
def node() -> Iterator[Node]:
    with node_with_pods(2) as made:
        yield made


WRITTEN = [
    "add set inet ringfence foreign { type ipv4_addr; timeout 1h; elements = { 192.0.2.1 }; }",
    "table inet ringfence { chain foreign { counter accept comment overflow; }; }",
    "add element inet ringfence rf_drop_4 { 192.0.2.1 . 192.0.2.2 . tcp . 80 . 1 }",
    "add element inet ringfence rf_friends_4 { 192.0.2.1 }",
    "insert rule inet ringfence rf_input accept",
    "add map inet ringfence foreign { type ipv4_addr : verdict; }",
    "flush table inet ringfence",
    "delete table inet ringfence",
]
TABLES = [("inet", "ringfence"), ("netdev", "ringfence")]


@pytest.mark.parametrize("written", WRITTEN)
def test_what_a_pod_writes_into_our_table_goes_and_the_agent_stays(
    node: Node, written: str
) -> None:
    friend, pod = node.pods
    policy = policy_of(pod, ADMIT, ANYTHING, friend)
    enforcer = Enforcer(Nftables())
    enforce(enforcer, policy, uid=pod)
    before = [pod.run("nft", "-s", "list", "table", *one) for one in TABLES]

    pod.nft(pod.ours(written))
    assert _changed(enforcer)
    enforce(enforcer, policy, uid=pod)
    assert [pod.run("nft", "-s", "list", "table", *one) for one in TABLES] == before

    with open_socket(friend, pod.address, socket.SOCK_DGRAM) as udp:
        udp.sendto(b"denied", (pod.address, 53))
    assert not _changed(enforcer)
    ((drops, _),) = enforcer.ledger.take()
    (row,) = batch.decode(batch.DROPS, drops).to_pylist()
    assert (row["provider_port"], row["packets"]) == (53, 1)


@pytest.mark.parametrize("written", [*WRITTEN, "flush ruleset"])
def test_what_a_pod_writes_into_our_table_is_heard_at_once(node: Node, written: str) -> None:
    friend, pod = node.pods
    policy = policy_of(pod, ADMIT, ANYTHING, friend)
    with closing(Enforcer(Nftables(), listen=TableWatch)) as enforcer:
        enforce(enforcer, policy, uid=pod)
        with open_socket(friend, pod.address, socket.SOCK_DGRAM) as udp:
            udp.sendto(b"denied, and counted in a set", (pod.address, 53))
        pod.nft("add table inet foreign; add chain inet foreign c; delete table inet foreign")
        pod.nft("add table ip ringfence; delete table ip ringfence")
        assert not _heard(enforcer)

        pod.nft(pod.ours(written))
        assert _heard(enforcer)
        enforce(enforcer, policy, uid=pod)
        assert not _heard(enforcer)
        assert not _changed(enforcer)


def test_so_many_changes_that_some_are_not_heard_are_one_too(node: Node) -> None:
    friend, pod = node.pods
    with closing(Enforcer(Nftables(), listen=TableWatch)) as enforcer:
        enforce(enforcer, policy_of(pod, ADMIT, ANYTHING, friend), uid=pod)
        many = "; ".join(f"add chain inet foreign c{number}" for number in range(3000))
        pod.nft(f"add table inet foreign; {many}")
        (watch,) = enforcer._watches.open.values()
        assert watch.touched()
        assert not watch.touched()


def refused(policy: NodePolicy) -> NodePolicy:
    """The same with rules that the back end cannot write."""
    odd = Program((replace(CATCH_ALL, handle="no handle"),))
    return replace(policy, programs={**policy.programs, IN: odd})


def test_changes_are_heard_after_new_rules_were_refused(node: Node) -> None:
    friend, pod = node.pods
    with closing(Enforcer(Nftables(), listen=TableWatch)) as enforcer:
        policy = policy_of(pod, ADMIT, ANYTHING, friend)
        enforce(enforcer, policy, uid=pod)
        assert enforcer.apply(Order(2, refused(policy)), [at(pod)]).problem
        enforce(enforcer, policy, uid=pod)
        pod.nft("insert rule inet ringfence rf_input accept")
        assert _heard(enforcer)


def test_rules_of_before_are_guarded_where_new_ones_are_refused(node: Node) -> None:
    friend, pod = node.pods
    enforcer, policy = Enforcer(Nftables()), policy_of(pod, ADMIT, ANYTHING, friend)
    enforce(enforcer, policy, uid=pod)
    before = pod.run("nft", "-s", "list", "ruleset")
    order = Order(2, refused(policy))
    problem = enforcer.apply(order, [at(pod)]).problem
    assert not _changed(enforcer)
    for _ in range(2):
        pod.nft("insert rule inet ringfence rf_input accept")
        assert _changed(enforcer)
        outcome = enforcer.apply(order, [at(pod)])
        assert (outcome.problem, outcome.programmed) == (problem, frozenset())
        assert pod.run("nft", "-s", "list", "ruleset") == before
    enforce(enforcer, policy, uid=pod)


def test_what_rules_dropped_before_they_were_proved_is_reported(node: Node) -> None:
    friend, pod = node.pods
    enforcer = Enforcer(Nftables())
    next(enforcer.steps(Order(1, policy_of(pod, ADMIT, ANYTHING, friend)), [at(pod)]))
    with open_socket(friend, pod.address, socket.SOCK_DGRAM) as udp:
        udp.sendto(b"denied", (pod.address, 53))
    enforce(enforcer, policy_of(pod, CLOSED, ANYTHING, friend), uid=pod)
    assert not _changed(enforcer)
    ((drops, _),) = enforcer.ledger.take()
    (row,) = batch.decode(batch.DROPS, drops).to_pylist()
    assert (row["provider_port"], row["packets"]) == (53, 1)


@pytest.mark.parametrize("more", [False, True])
@pytest.mark.parametrize("listen", [TableWatch, None])
def test_rules_that_go_before_they_are_proved_are_written_again(
    node: Node, listen: type[TableWatch] | None, *, more: bool
) -> None:
    friend, pod = node.pods
    policy = policy_of(pod, ADMIT, ANYTHING, friend)
    with closing(Enforcer(Nftables(), listen=listen)) as enforcer:
        next(enforcer.steps(Order(1, policy), [at(pod)]))
        pod.nft("delete table inet ringfence")
        assert _heard(enforcer) is (listen is not None)
        policy = policy_of(pod, ADMIT, ANYTHING, friend, *([pod] if more else []))
        enforcer.apply(Order(2, policy), [at(pod)])
        assert enforcer.apply(Order(2, policy), [at(pod)]).programmed == {"uid"}
        assert nft.judges(pod.path)


class Deaf(TableWatch):
    """A watch that fails."""

    def touched(self) -> bool:
        raise NetlinkError("changes of rules are not heard")


def test_rules_are_held_whose_watch_fails(node: Node) -> None:
    friend, pod = node.pods
    with closing(Enforcer(Nftables(), listen=Deaf)) as enforcer:
        enforce(enforcer, policy_of(pod, ADMIT, ANYTHING, friend), uid=pod)
        assert not _heard(enforcer)
        pod.nft("insert rule inet ringfence rf_input accept")
        assert _changed(enforcer)


def test_a_change_of_policy_is_not_held_up_by_what_a_pod_wrote(node: Node) -> None:
    friend, pod = node.pods
    enforcer = Enforcer(Nftables())
    enforce(enforcer, policy_of(pod, ADMIT, ANYTHING, friend), uid=pod)
    pod.nft("add element inet ringfence rf_drop_4 { 192.0.2.1 . 192.0.2.2 . tcp . 80 . 1 }")
    enforce(enforcer, policy_of(pod, ANYTHING, ANYTHING, friend), uid=pod)
    with tcp_echo(pod, pod.address, 81):
        tcp_exchange(friend, pod.address, 81, b"hello")


def test_a_socket_that_cannot_be_tracked_keeps_no_pod_without_rules(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel takes no entry whose addresses are of two families."""
    friend, pod = node.pods
    odd = conntrack.Entry(
        TCP, parse_address(friend.address), parse_address(friend.address6), 40000, 80
    )
    assert pod.call(lambda: conntrack._ask(CREATE, [conntrack._new(odd)]))
    monkeypatch.setattr(
        conntrack, "connections", lambda _: [(TCP, odd.destination, 80, odd.source, 40000)]
    )
    enforcer = Enforcer(Nftables())
    enforce(enforcer, policy_of(pod, ADMIT, ANYTHING, friend), uid=pod)
    assert nft.judges(pod.path)


class Lenient(Nftables):
    """A back end that writes something else than the policy says."""

    def render_pod(self, policy: NodePolicy, binding: PodBinding) -> Ruleset:
        return super().render_pod(replace(policy, programs={IN: ANYTHING, OUT: ANYTHING}), binding)


def test_rules_that_say_something_else_than_the_policy_are_not_in_force(node: Node) -> None:
    friend, pod = node.pods
    order, place = Order(1, policy_of(pod, ADMIT, ANYTHING, friend)), at(pod)
    enforcer = Enforcer(Lenient())
    outcome = enforcer.apply(order, [place])
    assert not outcome.programmed
    assert "revision 1 is not in force in 1 places" in outcome.problem
    assert "the kernel lets it pass by rule" in outcome.problem
    assert "(default/shop/p1/any), the policy drops it by catch-all/shop/p1" in outcome.problem
    handles = [found["rule"]["handle"] for found in listed(pod) if "rule" in found]
    assert enforcer.apply(order, [place]) == outcome  # stale for as long as it is
    assert [found["rule"]["handle"] for found in listed(pod) if "rule" in found] == handles

    enforcer.backend = Nftables()
    assert enforcer.apply(order, [place]).programmed == {"uid"}


@pytest.mark.parametrize(("times", "proved"), [(1, True), (2, False)])
def test_rules_changed_in_the_instant_they_are_written_are_written_once_more(
    node: Node, monkeypatch: pytest.MonkeyPatch, times: int, proved: bool
) -> None:
    friend, pod = node.pods
    left = [times]
    write = nft.apply

    def tampered(netns_path: Path, commands: str) -> None:
        write(netns_path, commands)
        if left[0] and "chain rf_input" in commands:
            left[0] -= 1
            pod.nft("insert rule inet ringfence rf_input tcp dport 81 accept comment hole")

    monkeypatch.setattr(nft, "apply", tampered)
    enforcer, policy = Enforcer(Nftables()), policy_of(pod, ADMIT, ANYTHING, friend)
    outcome = enforcer.apply(Order(1, policy), [at(pod)])
    assert (outcome.programmed == {"uid"}) is proved
    assert ("(hole), the policy drops it by catch-all" in outcome.problem) is not proved
    assert _changed(enforcer) is not proved  # the slow cycle has it written again
    assert enforcer.apply(Order(1, policy), [at(pod)]).programmed == {"uid"}


def test_a_policy_of_another_meaning_is_noticed_though_its_rules_are_the_same(node: Node) -> None:
    friend, pod = node.pods
    enforcer = Enforcer(Lenient())
    for inbound, found in ((ANYTHING, False), (ADMIT, True)):
        enforcer.apply(Order(1, policy_of(pod, inbound, ANYTHING, friend)), [at(pod)])
        assert _changed(enforcer) is found


def at(pod: Pod) -> Place:
    return Place("uid", pod.path, inode(pod.path))


def listed(pod: Pod) -> list[dict[str, Any]]:
    return nft.list_table(pod.path) or []


def _heard(enforcer: Enforcer) -> bool:
    """Whether a change was heard of since the last writing."""
    enforcer.hear()
    return enforcer.tampered


def _changed(enforcer: Enforcer) -> bool:
    """Whether reading the counters finds the rules changed."""
    enforcer.read_drops(np.zeros(0, DROP_DTYPE), {})
    return enforcer.tampered


def test_a_full_drop_set_is_no_tampering(node: Node) -> None:
    friend, pod = node.pods
    enforcer = Enforcer(Nftables())
    enforce(enforcer, policy_of(pod, ADMIT, ANYTHING, friend), uid=pod)
    with open_socket(friend, pod.address, socket.SOCK_DGRAM) as udp:
        for port in range(1000, 1000 + DROP_SET_SIZE + 50):
            udp.sendto(b"denied", (pod.address, port))
    assert not _changed(enforcer)


def test_what_elements_count_is_no_tampering(node: Node) -> None:
    friend, pod = node.pods
    wide = (
        Rule(f"default/shop/p1/{at}+widened", Action.ALLOW, TCP, ports(80 + at), FRIENDS)
        for at in range(FEW + 1)
    )
    policy = policy_of(pod, Program((*wide, CATCH_ALL)), ANYTHING, friend)
    with closing(Enforcer(Nftables(), listen=TableWatch)) as enforcer:
        enforce(enforcer, policy, uid=pod)
        with tcp_echo(pod, pod.address, 80):
            tcp_exchange(friend, pod.address, 80, b"hello")
        counted = [element for found in listed(pod) for element in _counted(found)]
        assert sum(counted)
        assert not _heard(enforcer)
        assert not _changed(enforcer)
        pod.nft(f"flush set inet ringfence {_name_of_counting(pod)}")
        assert _changed(enforcer)


def _counted(found: dict[str, Any]) -> list[int]:
    held = found.get("set", {}).get("elem", ())
    elements = (one["elem"] for one in held if isinstance(one, dict) and "elem" in one)
    return [one["counter"]["packets"] for one in elements if "counter" in one]


def _name_of_counting(pod: Pod) -> str:
    (name,) = (found["set"]["name"] for found in listed(pod) if sum(_counted(found)))
    return str(name)


def test_an_interface_that_is_called_lo_is_not_the_loopback(node: Node) -> None:
    friend, pod = node.pods
    enforcer, policy = Enforcer(Nftables()), policy_of(pod, ADMIT, ANYTHING, friend)
    enforce(enforcer, policy, uid=pod)
    for change in (
        ("lo", "down"), ("lo", "name", "other"), ("other", "up"),
        ("eth0", "down"), ("eth0", "name", "lo"), ("lo", "up"),
    ):  # fmt: skip
        pod.run("ip", "link", "set", *change)
    pod.run("ip", "route", "add", "default", "via", pod.gateway)
    _changed(enforcer)  # before packet sockets interfaces stand by their names
    enforce(enforcer, policy, uid=pod)
    with open_socket(friend, pod.address, socket.SOCK_DGRAM) as udp:
        udp.sendto(b"denied", (pod.address, 53))
    assert not _changed(enforcer)
    ((drops, _),) = enforcer.ledger.take()
    (row,) = batch.decode(batch.DROPS, drops).to_pylist()
    assert row["provider_port"] == 53


def test_all_ipv6_addresses_beside_blocks_that_end_at_mapped_ones(node: Node) -> None:
    """What IPv6 holds of IPv4 is written as IPv6 among IPv6 addresses."""
    friend, pod = node.pods
    blocks = ("::/0", "::/80", "::1:0:0:0/80", "fd00::/8")
    sets = {SetId(f"b{at}"): (parse_network(text),) for at, text in enumerate(blocks)}
    rules = [
        Rule(f"r{at}", Action.ALLOW, TCP, ports(80 + at), SetId(f"b{at % len(blocks)}"))
        for at in range(3 * len(blocks))
    ]
    made = policy_of(pod, Program((*rules, CATCH_ALL)), ANYTHING, friend)
    enforcer = Enforcer(Nftables())
    enforce(enforcer, replace(made, sets={**made.sets, **sets}), uid=pod)
    with tcp_echo(pod, pod.address6, 80):
        tcp_exchange(friend, pod.address6, 80, b"hello")
