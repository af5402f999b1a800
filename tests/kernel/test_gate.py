"""The gate before new pods: not a packet of theirs passes until their rules are in force."""

import signal
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from ringfence.agent.enforce import Enforcer
from ringfence.agent.plan import Order
from ringfence.agent.pods import NODE_NETNS
from ringfence.kernel import nft
from ringfence.kernel.drops import DROP_DTYPE
from ringfence.model.address import parse_address
from ringfence.model.policy import Action
from ringfence.model.protocol import PortRange
from ringfence.policy.backends.interface import Ruleset
from ringfence.policy.backends.nftables import Nftables
from ringfence.policy.handle import NEW_POD
from ringfence.policy.program import (
    LINK_LOCAL,
    Gate,
    NodeBinding,
    NodePolicy,
    Passage,
    PodBinding,
    Program,
    ProgramId,
    Rule,
)
from ringfence.wire import batch
from ringfence.wire.generated.agent_pb2 import KeptDirective
from tests.kernel.gating import (
    ALLOWED,
    DENIED,
    POLICY,
    PROGRAM,
    Sink,
    await_,
    chatter,
    enforce,
    place,
    policy_of,
    released,
    seen,
)
from tests.kernel.netns import Node, Pod, join, namespace, node_with_pods
from tests.kernel.traffic import open_socket, ping
from tests.kernel.world import World, sandboxes
from tests.kernel.world import policy as judged

NEW_PODS = 55


@pytest.fixture
def node() -> Iterator[Node]:
    with node_with_pods(2) as made:
        yield made


def test_a_new_pod_says_and_hears_nothing_before_its_rules_and_then_what_they_allow(
    node: Node,
) -> None:
    """Both speak from before the pod's interface is there, without a pause."""
    peer, _ = node.pods
    enforcer, known = Enforcer(Nftables()), seen(peer, "peer")
    enforce(enforcer, policy_of(free=("peer",)), node, known)
    sent_at_all = 0
    with (
        Sink(peer, ALLOWED) as admitted,
        Sink(peer, DENIED) as denied,
        Sink(node, DENIED) as at_node,
    ):
        for number in range(3, 3 + NEW_PODS):
            v4, v6 = f"10.99.{number}.2", f"fd00:99:{number}::2"
            with (
                namespace("pod") as made,
                Sink(made, ALLOWED) as hears,
                Sink(made, DENIED) as must_not_hear,
                chatter(made, *((address, port) for address in (peer.address, peer.address6)
                                for port in (ALLOWED, DENIED)), (peer.gateway, DENIED),
                        (peer.gateway6, DENIED)) as sent,
                chatter(peer, *((a, p) for a in (v4, v6) for p in (ALLOWED, DENIED))),
                chatter(node, (v4, DENIED), (v6, DENIED)),
            ):  # fmt: skip
                before = admitted.count()
                new = seen(join(node, made, number), f"new{number}")
                enforce(enforcer, policy_of(free=("peer",)), node, known, new)  # not known yet
                time.sleep(0.05)
                assert (admitted.count(), hears.count()) == (before, 0)
                enforce(enforcer, policy_of(new, free=("peer",)), node, known, new)
                await_("the allowed passes", [admitted, hears])
                sent_at_all += sent[0]
                assert (denied.count(), at_node.count(), must_not_hear.count()) == (0, 0, 0)
            enforce(enforcer, policy_of(free=("peer",)), node, known)
    assert released(node) == known.passages
    assert sent_at_all > NEW_PODS * 100


def test_a_new_pod_and_its_node_speak_by_no_link_local_address_either(node: Node) -> None:
    """But they find each other. Nor is what the node itself is in a network by held back."""
    peer, other = node.pods
    enforcer, known = Enforcer(Nftables()), seen(peer, "peer")
    others = frozenset({Passage(other.host_device, LINK_LOCAL.address)})
    enforce(enforcer, policy_of(free=("peer",)), node, known, links=others)
    with (
        namespace("pod") as made,
        Sink(node, ALLOWED) as at_node,
        Sink(made, ALLOWED) as hears,
    ):
        new = join(node, made, 3)
        ends = seen(new, "new")
        to_node = ("fe80::1", ALLOWED, 0, made.ifindex("eth0"))
        to_pod = ("fe80::2", ALLOWED, 0, new.host_ifindex)
        with chatter(made, to_node) as sent, chatter(node, to_pod):
            while sent[0] < 200:
                time.sleep(0.01)
            assert (at_node.count(), hears.count()) == (0, 0)
            assert "REACHABLE" in made.run("ip", "-6", "neigh", "show", "fe80::1")
            enforce(enforcer, policy_of(free=("peer", "new")), node, known, ends, links=others)
            await_("it passes", [at_node, hears])
            enforce(enforcer, policy_of(free=("peer",)), node, known, links=others)
            time.sleep(0.05)
            heard = at_node.count(), hears.count()
            time.sleep(0.1)
            assert (at_node.count(), hears.count()) == heard
        for pod in (peer, other):
            with chatter(pod, ("fe80::1", ALLOWED, 0, pod.ifindex("eth0"))):
                await_("it passes", [at_node])
    assert released(node) == known.passages | others


def test_what_was_sent_before_the_rules_and_waits_for_a_neighbour_is_thrown_away(
    node: Node,
) -> None:
    first, second = node.pods
    pods = seen(first, "uid1"), seen(second, "uid2")
    enforcer = Enforcer(Nftables())
    enforce(enforcer, policy_of(free=("uid2",)), node, *pods)
    node.run("ip", "link", "set", first.host_device, "down")
    time.sleep(0.1)
    first.run("ip", "neigh", "flush", "all")
    node.run("ip", "link", "set", first.host_device, "arp", "off", "up")
    with Sink(second, DENIED) as denied, Sink(second, ALLOWED) as admitted:
        with chatter(first, (second.address, DENIED)) as sent:
            while sent[0] < 50:
                time.sleep(0.01)
        assert "INCOMPLETE" in first.run("ip", "neigh")
        enforce(enforcer, policy_of(pods[0], free=("uid2",)), node, *pods)
        node.run("ip", "link", "set", first.host_device, "arp", "on")
        with chatter(first, (second.address, ALLOWED)):
            await_("the allowed passes", [admitted])
        assert denied.count() == 0


def test_who_need_not_wait_is_left_alone(node: Node) -> None:
    """One is known and of no closed scope, the other's namespace has none."""
    first, second = node.pods
    policy = policy_of(free=("uid1",))
    assert policy.gate is not None
    policy = replace(policy, gate=replace(policy.gate, namespaces=("shop",)))
    both = seen(first, "uid1"), seen(second, "unknown", "elsewhere")
    enforce(Enforcer(Nftables()), policy, node, *both)
    for address in (second.address, second.address6, first.gateway):
        assert ping(first, address)
    assert ping(second, second.gateway6)


def test_nothing_is_lost_when_the_agent_or_the_gate_begins_anew(node: Node) -> None:
    first, second = node.pods
    pods = seen(first, "uid1"), seen(second, "uid2")
    policy = policy_of(*pods)
    enforcer = Enforcer(Nftables())
    enforce(enforcer, policy, node, *pods)
    with Sink(second, ALLOWED) as sink:
        with chatter(first, (second.address, ALLOWED), (second.address6, ALLOWED)) as sent:
            await_("it passes", [sink])
            for _ in range(5):  # an agent that finds the gate, and does not know its pods at first
                enforcer = Enforcer(Nftables())
                enforcer.apply(Order(1, policy), [place(node)], None)
                enforce(enforcer, policy, node, *pods)
            for _ in range(5):
                node.nft("delete table inet ringfence")
                enforcer.read_drops(np.zeros(0, DROP_DTYPE), {})
                assert enforcer.tampered
                enforce(enforcer, policy, node, *pods)
        assert sink.count() == sent[0]
    assert released(node) == pods[0].passages | pods[1].passages


def test_a_gate_that_comes_later_shuts_out_who_has_no_rules(node: Node) -> None:
    first, second = node.pods
    pods = seen(first, "uid1"), seen(second, "uid2")
    enforcer = Enforcer(Nftables())
    enforce(enforcer, replace(policy_of(pods[0]), gate=None), node, *pods)
    before = node.run("nft", "-s", "list", "ruleset")
    with Sink(second, ALLOWED) as sink, chatter(first, (second.address, ALLOWED)):
        await_("it passes", [sink])
        enforce(enforcer, policy_of(pods[0]), node, *pods)
        assert released(node) == pods[0].passages
        heard = sink.count()
        time.sleep(0.1)
        assert sink.count() == heard
        enforce(enforcer, replace(policy_of(pods[0]), gate=None), node, *pods)
        await_("it passes again", [sink])
    assert node.run("nft", "-s", "list", "ruleset") == before


def test_a_gate_that_comes_while_nobody_knows_who_is_here_waits(node: Node) -> None:
    first, second = node.pods
    pods = seen(first, "uid1"), seen(second, "uid2")
    enforcer = Enforcer(Nftables())
    enforce(enforcer, replace(policy_of(*pods), gate=None), node, *pods)
    policy = policy_of(free=("uid1", "uid2"))
    outcome = enforcer.apply(Order(2, policy), [*(pod.place for pod in pods), place(node)], None)
    assert "has not told yet which pods are here" in outcome.problem
    assert ping(second, second.gateway)
    enforce(enforcer, policy, node, *pods)
    assert released(node) == pods[0].passages | pods[1].passages


@pytest.mark.parametrize("killed", [False, True])
def test_a_first_gate_that_is_not_finished_releases_nobody(node: Node, killed: bool) -> None:
    pods = tuple(seen(pod, f"uid{at}") for at, pod in enumerate(node.pods))
    places, policy = [*(pod.place for pod in pods), place(node)], policy_of(pods[0])
    enforcer = Enforcer(Nftables())
    steps = enforcer.steps(Order(1, policy), places, pods)
    next(steps)
    assert nft.list_table(pods[0].place.netns)
    assert not released(node)
    enforce(Enforcer(Nftables()) if killed else enforcer, replace(policy), node, *pods)
    assert released(node) == pods[0].passages


def test_a_release_is_of_no_use_to_the_next_pod_at_the_same_place(node: Node) -> None:
    pods = tuple(seen(pod, f"uid{at}") for at, pod in enumerate(node.pods))
    enforcer = Enforcer(Nftables())
    enforce(enforcer, policy_of(free=("uid0", "uid1")), node, *pods)
    following = replace(pods[1], place=replace(pods[1].place, uid="following"))
    enforce(enforcer, policy_of(free=("uid0",)), node, pods[0], following)
    assert released(node) == pods[0].passages
    enforce(enforcer, policy_of(following, free=("uid0",)), node, pods[0], following)
    assert released(node) == pods[0].passages | pods[1].passages


def test_rules_that_cannot_be_renewed_shut_nobody_out(node: Node) -> None:
    first, second = node.pods
    pods = seen(first, "uid1"), seen(second, "uid2")
    enforcer = Enforcer(Nftables())
    policy = policy_of(*pods)
    enforce(enforcer, policy, node, *pods)
    odd = Program(
        (*policy.programs[PROGRAM].rules[:1], Rule("no handle", Action.DENY, None, (), None))
    )
    outcome = enforcer.apply(
        Order(2, replace(policy, programs={PROGRAM: odd})),
        [*(pod.place for pod in pods), place(node)],
        pods,
    )
    assert len(outcome.problems) == 2
    assert released(node) == pods[0].passages | pods[1].passages


class Lenient(Nftables):
    """A back end whose rules in pods allow what the policy does not."""

    def render_pod(self, policy: NodePolicy, binding: PodBinding) -> Ruleset:
        anything = Program((Rule("default/shop/p1/any", Action.ALLOW, None, (), None),))
        return super().render_pod(replace(policy, programs={PROGRAM: anything}), binding)


def test_rules_that_are_not_proved_open_no_gate(node: Node) -> None:
    pods = tuple(seen(pod, f"uid{at}") for at, pod in enumerate(node.pods))
    enforcer = Enforcer(Lenient())
    enforce(enforcer, policy_of(free=("uid0",)), node, *pods)
    places = [*(pod.place for pod in pods), place(node)]
    outcome = enforcer.apply(Order(2, policy_of(pods[1], free=("uid0",))), places, pods)
    assert "the kernel lets it pass by" in outcome.problem
    assert released(node) == pods[0].passages


def test_a_gate_before_a_node_that_rejects_is_proved(node: Node) -> None:
    first, second = node.pods
    pods = seen(first, "uid1"), seen(second, "uid2")
    rejects = ProgramId("rejects")
    nothing = Rule("catch-all/nodes/p1", Action.DENY, None, (), None, rejects=True)
    policy = policy_of(pods[0])
    policy = replace(
        policy,
        programs={**policy.programs, rejects: Program((nothing,))},
        binding=NodeBinding((parse_address(first.gateway),), rejects, None, None),
    )
    enforce(Enforcer(Nftables()), policy, node, *pods)


def test_an_address_is_released_behind_its_interface_alone(node: Node) -> None:
    first, second = node.pods
    pods = seen(first, "uid1"), seen(second, "uid2")
    enforce(Enforcer(Nftables()), policy_of(free=("uid1", "uid2")), node, *pods)
    assert ping(first, second.address)
    node.run("ip", "link", "set", first.host_device, "down")
    node.run("ip", "link", "set", first.host_device, "name", "another")
    node.run("ip", "link", "set", "another", "up")
    with Sink(second, ALLOWED) as sink, chatter(first, (second.address, ALLOWED)) as sent:
        while sent[0] < 100:
            time.sleep(0.01)
        assert sink.count() == 0


def test_the_gate_stays_shut_while_the_table_is_written_anew(node: Node) -> None:
    first, second = node.pods
    passages, backend = seen(first, "uid1").passages, Nftables()
    other = replace(POLICY, binding=NodeBinding((), PROGRAM, None, None))
    rulesets = [backend.render_node(policy, passages) for policy in (POLICY, other)]
    nft.apply(node.path, backend.transaction(rulesets[0], None))
    with Sink(node, ALLOWED) as sink:
        ended, sent = threading.Event(), [0]

        def talk() -> None:
            with open_socket(second, second.gateway, socket.SOCK_DGRAM) as one:
                while not ended.is_set():
                    one.sendto(b"x", (second.gateway, ALLOWED))
                    sent[0] += 1

        thread = threading.Thread(target=talk, daemon=True)
        thread.start()
        for number in range(100):
            was, new = rulesets[number % 2], rulesets[1 - number % 2]
            nft.apply(node.path, backend.transaction(new, was))
        ended.set()
        thread.join(5)
        assert sent[0] > 1000
        assert sink.count() == 0


def test_translation_is_no_way_around(node: Node) -> None:
    """The node's own packets, and a pod's, get a pod's address after the output hook of ours."""
    host = "192.0.2.9"
    first, second = node.pods
    for hook in ("output", "prerouting"):
        node.nft(
            f"table ip services {{ chain {hook} {{ type nat hook {hook} priority -100;"
            f" ip daddr {host} dnat to {second.address}; }}; }}"
        )
    node.run("ip", "route", "add", "default", "dev", second.host_device)
    pods = seen(first, "uid1"), seen(second, "uid2")
    enforcer = Enforcer(Nftables())
    with Sink(second, ALLOWED) as sink:
        with chatter(node, (host, ALLOWED)), chatter(first, (host, ALLOWED)):
            await_("it passes", [sink])
        enforce(enforcer, policy_of(free=("uid1",)), node, *pods)
        heard = sink.count()
        with chatter(node, (host, ALLOWED)), chatter(first, (host, ALLOWED)):
            time.sleep(0.2)
        assert sink.count() == heard
    enforcer.read_drops(np.zeros(0, DROP_DTYPE), {})
    reports = [batch.decode(batch.DROPS, drops).to_pylist() for drops, _ in enforcer.ledger.take()]
    told = {(row["rule"], row["direction"], row["pod"]) for rows in reports for row in rows}
    assert told == {(NEW_POD, "inbound", "")}


def test_there_is_no_gate_while_nobody_knows_who_is_here(node: Node) -> None:
    first, second = node.pods
    outcome = Enforcer(Nftables()).apply(Order(1, policy_of()), [place(node)], None)
    assert "has not told yet which pods are here" in outcome.problem
    assert ping(first, second.address)
    assert str(NODE_NETNS) not in outcome.problem


def test_an_agent_keeps_the_gate_and_dies_without_a_packet_lost(world: World) -> None:
    _run_with_a_gate(world)
    first, _ = world.node.pods
    world.await_("its rules", lambda: [p.uid for p in world.state().pods if p.programmed])
    with Sink(world.node, DENIED) as sink:
        with chatter(first, (first.gateway, DENIED)) as sent:
            await_("it passes", [sink])
            for _ in range(3):
                told = world.state().clock_ns
                world.stop("agent", signal.SIGKILL)
                world.start_agent()
                world.await_("the next", partial(_is_later, world, told))
        assert sink.count() == sent[0]
    world.run(one=sandboxes(world.node)["sandbox1"])
    world.await_("one is shut out", lambda: released(world.node) == _passages(first))
    world.direct(0, None)
    world.await_("no gate", lambda: nft.list_table(world.node.path) is None)


def test_a_node_that_was_booted_has_its_gate_before_anybody_is_asked(world: World) -> None:
    """The agent writes it before there is a container runtime."""
    _run_with_a_gate(world)
    first, _ = world.node.pods
    for role in ("agent", "runtime", "control"):
        world.stop(role, signal.SIGKILL)
    kept = KeptDirective.FromString((world.state_dir / "directive").read_bytes())
    kept.boot_id = "another"
    (world.state_dir / "directive").write_bytes(kept.SerializeToString())
    nft.remove(world.node.path)
    world.start_agent()
    world.await_("the gate", lambda: nft.judges(world.node.path))
    with Sink(world.node, DENIED) as sink, chatter(first, (first.gateway, DENIED)) as sent:
        while sent[0] < 1000:  # for longer than an agent takes until it has looked
            time.sleep(0.01)
        assert sink.count() == 0
        assert not released(world.node)
        world.start_runtime()
        await_("it passes", [sink])


def test_a_node_may_load_its_gate_before_there_is_an_agent(world: World) -> None:
    _run_with_a_gate(world)
    first, _ = world.node.pods
    file = world.state_dir / "gate.nft"
    world.await_("the gate for the next boot", file.exists)
    world.stop("agent", signal.SIGKILL)
    nft.remove(world.node.path)
    load = ("nft", "-f", str(file))
    world.node.run(*load)
    with Sink(world.node, DENIED) as sink, chatter(first, (first.gateway, DENIED)) as sent:
        while sent[0] < 100:
            time.sleep(0.01)
        assert sink.count() == 0
        world.start_agent()
        await_("it passes", [sink])
        with pytest.raises(AssertionError, match="File exists"):
            world.node.run(*load)
    world.direct(4, None)
    world.await_("no gate for the next boot", lambda: not file.exists())


def _run_with_a_gate(world: World) -> None:
    """An agent that has released both pods."""
    first, second = world.node.pods
    gate = Gate(POLICY.gate.networks if POLICY.gate else (), ("test",), ("uid1",))
    world.direct(3, replace(judged(second, PortRange(8080, 8080)), gate=gate))
    world.start_agent()
    both = _passages(first) | _passages(second)
    world.await_("both released", lambda: released(world.node) == both)


def _passages(pod: Pod) -> set[Passage]:
    """Those of a pod with one address."""
    behind = parse_address(pod.address), LINK_LOCAL.address
    return {Passage(pod.host_device, address) for address in behind}


def _is_later(world: World, told: int) -> bool:
    """Whether an agent that began after a time has rules in force."""
    state = world.state()
    return state.clock_ns > told and state.enforced_revision == 3
