"""What an agent tells of the rules in a pod's kernel, after real packets have met them."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from ringfence.agent.mechanisms import MECHANISMS, Kind
from ringfence.agent.pods import Place
from ringfence.control.api.rules import admitted, beside
from ringfence.kernel import nft
from ringfence.kernel.netns import inode
from ringfence.model.address import host_network, parse_address
from ringfence.model.policy import Action, OutsideEnd, ServiceEnd
from ringfence.model.protocol import TCP, UDP, PortRange
from ringfence.policy.backends.interface import Ruleset
from ringfence.policy.backends.nftables_told import is_lookup, stands_for
from ringfence.policy.compile import compile_policies
from ringfence.policy.listed import ListedRule, listed
from ringfence.policy.program import Program, ProgramId, Rule, SetId
from ringfence.policy.proof.prove import prove
from ringfence.wire.generated.agent_pb2 import Inspected, Inspection, Met, Probe
from tests.golden import shop
from tests.kernel.netns import Node, Pod, node_with_pods
from tests.kernel.test_nftables import load
from tests.kernel.test_reject import (
    ADMIT,
    ANSWERS,
    BACKEND,
    IN,
    MANY,
    SILENT,
    enforce,
    meets,
    policy_of,
)
from tests.kernel.traffic import tcp_echo, tcp_exchange

FRIENDS, THEN = SetId("friends"), ProgramId("then")


@pytest.fixture
def node() -> Iterator[Node]:
    with node_with_pods(2) as made:
        yield made


def look(pod: Pod, *probes: Probe, kind: Kind = Kind.NFTABLES) -> Inspected:
    place = Place("uid", pod.path, inode(pod.path))
    return MECHANISMS[kind].inspect(place, Inspection(id=1, uid="uid", probes=probes))


def probe(client: str, server: str, port: int, protocol: int = TCP) -> Probe:
    return Probe(
        hook="input",
        protocol=protocol,
        source=parse_address(client),
        destination=parse_address(server),
        port=port,
        to_own=True,
    )


def told(found: Inspected, met: Met) -> list[tuple[str, str, int]]:
    """Chain, comment and packets of the rules that judge."""
    rules = {rule.handle: rule for rule in found.rules}
    return [(rules[one.handle].chain, rules[one.handle].comment, rules[one.handle].packets)
            for one in met.rules]  # fmt: skip


@pytest.mark.parametrize("family", [4, 6])
def test_the_rule_that_judges_is_named_with_its_counter_and_element(
    node: Node, family: int
) -> None:
    client, server = node.pods
    address, peer = ((p.address, p.address6)[family == 6] for p in (server, client))
    friends = replace(ADMIT, peers=FRIENDS)
    policy, binding = policy_of(server, (friends, ANSWERS), ())
    policy = replace(policy, sets={FRIENDS: (host_network(parse_address(peer)),)})
    load(server, BACKEND.render_pod(policy, binding))
    with tcp_echo(server, address, 80):
        tcp_exchange(client, address, 80, b"hello")
    meets(client, address, 81, TCP)
    stranger = {4: "192.0.2.1", 6: "2001:db8::1"}[family]
    found = look(server, probe(peer, address, 80), probe(peer, address, 81),
                 probe(stranger, address, 80))  # fmt: skip
    allowed, denied, other = found.met
    chain = f"rf_input_{family}"
    assert told(found, allowed) == [(chain, friends.handle, 1)]
    assert told(found, denied) == told(found, other) == [(chain, ANSWERS.handle, 1)]
    (element,) = allowed.rules[0].elements
    assert (element.set, element.element) == (server.ours(f"rf_friends_{family}"), peer)
    rules = {rule.handle: rule for rule in found.rules}
    text = rules[allowed.rules[0].handle].text
    assert f"saddr @{element.set} tcp dport 80 counter packets 1 bytes" in text
    beside = [one.chain for one in found.rules
              if stands_for(friends, "input", one.chain, one.comment, one.text)]  # fmt: skip
    assert beside == ["rf_input_4", "rf_input_6"]


def test_of_a_lookup_the_element_is_named_with_what_it_denied(node: Node) -> None:
    client, server = node.pods
    policy, binding = policy_of(server, (ADMIT, *MANY, SILENT), ())
    load(server, BACKEND.render_pod(policy, binding))
    for _ in range(3):
        meets(client, server.address, 85, TCP)
    found = look(server, probe(client.address, server.address, 85))
    (met,) = found.met
    (rule,) = met.rules
    text = next(one.text for one in found.rules if one.handle == rule.handle)
    assert is_lookup(text)
    assert "goto rf_reject" in text
    (element,) = rule.elements
    assert element.set == server.ours("rf_input_4_1")
    assert element.element.startswith("0.0.0.0/0 . 6 . 85 : 0x")
    assert element.denied_packets == 3


def test_what_a_lookup_admits_beyond_a_policy_is_counted_for_it(node: Node) -> None:
    client, server = node.pods
    wide = tuple(
        replace(one, handle=f"default/shop/p1/{one.ports[0]}+widened", action=Action.ALLOW,
                rejects=False)
        for one in MANY
    )  # fmt: skip
    exact = replace(ADMIT, ports=(PortRange(70, 79),))
    before = enforce(server, (*(replace(one, handle="x") for one in wide), exact, SILENT))
    after = enforce(server, (*wide, exact, SILENT))
    load(server, before)
    nft.apply(server.path, BACKEND.transaction(after, before))
    for port, family in ((85, 4), (85, 4), (85, 6), (86, 4), (75, 4)):
        meets(client, (server.address, server.address6)[family == 6], port, TCP)
    meets(client, server.address, 85, UDP)
    found = look(server, probe(client.address, server.address, 85))
    (met,) = found.met
    (element,) = met.rules[0].elements
    text = next(one.text for one in found.rules if one.handle == met.rules[0].handle)
    assert is_lookup(text)
    assert element.element.startswith("6 . 85 counter packets 2 bytes ")
    assert element.element.endswith(f'comment "{wide[8].handle}"')

    def counted(rule: Rule, hook: str = "input") -> list[int]:
        return admitted(ListedRule(hook, 1, 1, rule, None, None, ()), found.rules)

    packets = {one.ports[0].first: sum(counted(one)) for one in wide}
    assert packets == dict.fromkeys(range(81, 91), 0) | {85: 4, 86: 1}
    assert not counted(wide[8], "output")

    fewer = enforce(server, (*wide[1:], exact, SILENT))
    load(server, after)
    commands = BACKEND.transaction(fewer, after)
    assert {line.split()[0] for line in commands.splitlines()} == {"delete"}
    nft.apply(server.path, commands)
    policy, binding = policy_of(server, (*wide[1:], exact, SILENT), ())
    assert not prove(policy, binding, nft.list_table(server.path) or ()).differing


def test_each_program_that_allows_is_named(node: Node) -> None:
    client, server = node.pods
    policy, binding = policy_of(server, (ADMIT, SILENT), ())
    second = replace(ADMIT, handle="kubernetes/NetworkPolicy/shop/web/ingress%5B0%5D")
    binding = replace(binding, inbound=(IN, THEN))
    policy = replace(
        policy, programs={**policy.programs, THEN: Program((second, SILENT))}, pods=(binding,)
    )
    load(server, BACKEND.render_pod(policy, binding))
    found = look(server, probe(client.address, server.address, 80))
    assert [comment for _, comment, _ in told(found, found.met[0])] == [
        ADMIT.handle,
        second.handle,
    ]


def test_what_no_rule_speaks_of_and_what_is_not_understood_is_told(node: Node) -> None:
    client, server = node.pods
    assert not look(server, probe(client.address, server.address, 80)).met[0].rules
    policy, binding = policy_of(server, (ADMIT, SILENT), ())
    load(server, BACKEND.render_pod(policy, binding))
    nft.apply(server.path, "insert rule inet ringfence rf_input meta mark 1 accept")
    (met,) = look(server, probe(client.address, server.address, 80, UDP)).met
    assert "rf_input: looks at" in met.problem
    assert not met.rules


def test_each_rule_stands_beside_its_own_of_the_kernel(node: Node) -> None:
    (where, _) = node.pods
    policies = (
        shop.allow("carts", shop.app("front-end"), shop.app("carts"), 8081),
        shop.allow("front", shop.app("payment"), ServiceEnd("sock-shop", "front-end"), 80),
        shop.allow("outside", OutsideEnd(), ServiceEnd("sock-shop", "front-end"), 80),
    )
    held = shop.policy_set(*policies)
    compiled = compile_policies(held, ())
    stood = 0
    for position in held.governed:
        found = listed(held.snapshot, compiled, position)
        policy = compiled.policies[found.item.cluster, found.node]
        pods = {pod.uid: pod for pod in policy.pods}
        load(where, BACKEND.render_pod(policy, pods[found.uid]) if found.uid
             else BACKEND.render_node(policy))  # fmt: skip
        kernel = [one for one in look(where).rules if one.comment]
        beside = [
            [one.handle for one in kernel
             if stands_for(rule.rule, rule.hook, one.chain, one.comment, one.text)]
            for rule in found.rules
        ]  # fmt: skip
        assert all(0 < len(some) <= 2 for some in beside), found.item.display
        every = sorted(handle for some in beside for handle in some)
        assert every == sorted(one.handle for one in kernel)
        stood += len(every)
    assert stood > 50


IPTABLES = [Kind.IPTABLES_NFT, Kind.IPTABLES_LEGACY]


def put(kind: Kind, pod: Pod, ruleset: Ruleset) -> None:
    """Load what the back end of a mechanism made."""
    mechanism = MECHANISMS[kind]
    mechanism.door.apply(pod.path, mechanism.backend().transaction(ruleset, None))


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("kind", IPTABLES)
def test_the_line_that_judges_is_named_with_its_counters_and_element(
    node: Node, kind: Kind, family: int
) -> None:
    client, server = node.pods
    address, peer = ((p.address, p.address6)[family == 6] for p in (server, client))
    friends = replace(ADMIT, peers=FRIENDS)
    policy, binding = policy_of(server, (friends, SILENT), ())
    policy = replace(policy, sets={FRIENDS: (host_network(parse_address(peer)),)})
    assert not look(server, probe(peer, address, 80), kind=kind).met[0].rules
    put(kind, server, MECHANISMS[kind].backend().render_pod(policy, binding))
    with tcp_echo(server, address, 80):
        tcp_exchange(client, address, 80, b"hello")
    for _ in range(3):
        meets(client, address, 81, UDP)
    found = look(server, probe(peer, address, 80), probe(peer, address, 81, UDP), kind=kind)
    allowed, denied = found.met
    chain = "RINGFENCE-INPUT-1"
    assert told(found, allowed) == [(chain, friends.handle, 1)]
    assert told(found, denied) == [(chain, SILENT.handle, 3)]
    (element,) = allowed.rules[0].elements
    assert (element.set[-2:], element.element) == (f"_{family}", peer)
    rules = {rule.handle: rule for rule in found.rules}
    text = rules[allowed.rules[0].handle].text
    assert text.startswith("[1:")
    assert f"] -A {chain} -p 6 -m multiport --dports 80 -m set --match-set {element.set}" in text
    (one,) = (rule for rule in found.rules if rule.text == text)
    assert (one.counted, one.packets) == (True, 1)
    assert one.bytes >= 40

    tool = kind.replace("ip", "ip6") if family == 6 else kind
    server.run(*f"{tool} -t mangle -I {chain} -m mark --mark 1 -j RETURN".split())
    (problem,) = look(server, probe(peer, address, 80), kind=kind).met
    assert '"-m mark", which no rule of ours has' in problem.problem


@pytest.mark.parametrize("kind", IPTABLES)
def test_each_rule_stands_beside_its_own_lines_of_iptables(node: Node, kind: Kind) -> None:
    (where, _) = node.pods
    many = tuple(PortRange(port, port) for port in range(9000, 9100, 2))
    policies = (
        replace(shop.allow("carts", shop.app("front-end"), shop.app("carts"), 8081), ports=many),
        shop.allow("front", shop.app("payment"), ServiceEnd("sock-shop", "front-end"), 80),
        shop.allow("outside", OutsideEnd(), ServiceEnd("sock-shop", "front-end"), 80),
    )
    held = shop.policy_set(*policies)
    compiled = compile_policies(held, ())
    backend = MECHANISMS[kind].backend()
    stood = 0
    for position in held.governed:
        found = listed(held.snapshot, compiled, position)
        policy = compiled.policies[found.item.cluster, found.node]
        pods = {pod.uid: pod for pod in policy.pods}
        put(kind, where, backend.render_pod(policy, pods[found.uid]) if found.uid
            else backend.render_node(policy))  # fmt: skip
        kernel = [one for one in look(where, kind=kind).rules if "/" in one.comment]
        each = [[one.handle for one in some] for some in beside(found.rules, kernel, policy)]
        assert all(each), found.item.display
        every = sorted(handle for some in each for handle in some)
        assert every == sorted(one.handle for one in kernel)
        stood += len(every)
    assert stood > 50
