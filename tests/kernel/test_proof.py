"""Rules in the kernel held against the policy: every way to tamper with them is found and named."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings

from ringfence.agent.mechanisms import MECHANISMS, Kind
from ringfence.kernel import nft
from ringfence.model.address import Network, parse_address, parse_network
from ringfence.model.ids import ClusterId, NodeName
from ringfence.model.policy import Action
from ringfence.model.protocol import TCP, UDP, PortRange
from ringfence.policy.backends.interface import Backend, Ruleset
from ringfence.policy.backends.nftables import Nftables
from ringfence.policy.errors import UnprovableError
from ringfence.policy.program import (
    Exposure,
    NodeBinding,
    NodePolicy,
    PodBinding,
    Program,
    ProgramId,
    Rule,
    SetId,
)
from ringfence.policy.proof.prove import Proof, prove
from tests.golden import listing
from tests.kernel.netns import Namespace, namespace
from tests.property.program_world import policies

BACKEND = Nftables()
FRIENDS, IN, OUT, RECEIVED = SetId("friends"), *map(ProgramId, ("in", "out", "received"))
ADMIT = Rule("default/shop/p1/in", Action.ALLOW, TCP, (PortRange(80, 80),), FRIENDS)
ANY = Rule("default/shop/p1/any", Action.ALLOW, None, (), None)
CATCH_ALL = Rule("catch-all/shop/p1", Action.DENY, None, (), None)
POD = PodBinding("pod", "shop", "pod", (parse_address("10.99.1.2"),), (IN,), (OUT,))
POLICY = NodePolicy(
    ClusterId("c1"),
    NodeName("n1"),
    {FRIENDS: (parse_network("10.99.2.2"), parse_network("fd00::/64"))},
    {IN: Program((ADMIT, CATCH_ALL)), OUT: Program((ANY,)), RECEIVED: Program((CATCH_ALL,))},
    (POD,),
    NodeBinding((), None, None, RECEIVED, (Exposure(UDP, (PortRange(53, 53),), None),)),
    (),
)


@pytest.fixture(scope="module")
def alone() -> Iterator[Namespace]:
    with namespace("proof") as made:
        yield made


@pytest.mark.parametrize("kind", MECHANISMS)
@given(policies())
@settings(max_examples=60, deadline=None, derandomize=True)
def test_what_is_rendered_is_proved(alone: Namespace, kind: Kind, policy: NodePolicy) -> None:
    mechanism = MECHANISMS[kind]
    backend, door = mechanism.backend(), mechanism.door
    if kind is not Kind.NFTABLES:
        policy = backend.sayable(without_answers(policy))
    (pod,) = policy.pods
    try:
        for binding in (pod, policy.binding):
            rules = render(policy, binding, backend)
            if rules.frame:
                door.apply(alone.path, backend.transaction(rules, None))
                proved = prove(policy, binding, door.list_table(alone.path) or (), mechanism.read)
                assert not proved.differing, str(proved)
                assert proved.classes
    finally:
        door.remove(alone.path)


def without_answers(policy: NodePolicy) -> NodePolicy:
    """What iptables can say of a policy."""
    programs = {
        name: Program(tuple(replace(rule, rejects=False) for rule in program.rules))
        for name, program in policy.programs.items()
    }
    return replace(policy, programs=programs)


HARMLESS = (
    ["add chain | idle", "add rule | idle tcp dport 81 return", "insert rule | rf_input jump idle"],
    ["insert rule | rf_input meta iiftype loopback counter accept"],
    ["insert rule | rf_input ct state vmap {{ established : accept }}"],
    ["chain | rf_input {{ policy drop; }}"],
)
DIFFERENT = (
    (["delete rule | rf_input_4 handle {admit}"],
     "the policy lets it pass by default/shop/p1/in"),
    (["insert rule | rf_input tcp dport 81 accept comment hole"],
     "port 81 from port 0, new: the kernel lets it pass by rule {new} of chain rf_input (hole)"),
    (["insert rule | rf_input ct state new accept"], "by rule {new} of chain rf_input,"),
    (["insert rule | rf_input tcp dport vmap {{ 81 : accept }}"], "port 81"),
    (["insert rule | rf_input meta nfproto . th dport vmap {{ ipv6 . 81 : accept }}"],
     "[::] -> [::], port 81"),
    (["insert rule | rf_input ip saddr . tcp dport vmap {{ 10.7.0.0/16 . 81 : accept }}"],
     "TCP 10.7.0.0 -> "),
    (["insert rule | rf_input_4 tcp dport 81 return"],
     "port 81 from port 0, new: the kernel lets it pass by the policy of chain rf_input"),
    (["flush chain | rf_input_4"], "by the policy of chain rf_input, the policy drops"),
    (["flush chain | rf_drop"], "by the policy of chain rf_input, the policy"),
    (["delete rule | rf_drop handle {last}"], "the policy of chain rf_input, the policy"),
    (["add element | rf_friends_4 {{ 10.99.3.0/24 }}"], "TCP 10.99.3.0 -> 0.0.0.0"),
    (["delete element | rf_friends_4 {{ 10.99.2.2 }}"], "TCP 10.99.2.2 -> 0.0.0.0"),
    (["delete element | rf_friends_6 {{ fd00::/64 }}"], "TCP [fd00::] -> [::]"),
    (["insert rule | rf_input_4 ip saddr @rf_friends_4 tcp dport 80-90 accept"],
     "TCP 10.99.2.2 -> 0.0.0.0, port 81"),
    (['insert rule | rf_input iifname "lo" accept'], "new, from lo: the kernel lets it pass"),
    (["insert rule | rf_output drop"], "output: "),
    (["flush chain | rf_silenced_output"], "lets it pass or drops it by rule"),
    (["insert rule | rf_silenced_output accept"], "lets it pass or drops it by rule"),
    (["add chain | other {{ type filter hook output priority -148; }}"],
     "lets it pass or drops it by rule"),
    (["add chain | other {{ type filter hook input priority -149; policy drop; }}"],
     "the kernel drops it by the policy of chain other"),
    (["add chain | other {{ type filter hook forward priority -149; policy drop; }}"],
     "forward: "),
    (["flush chain | rf_input", "delete chain | rf_input",
      "add chain | rf_input {{ type filter hook forward priority -150; }}"],
     "by no rule, the policy drops it by catch-all/shop/p1"),
    (["delete table |"], "by no rule, the policy drops it by catch-all/shop/p1"),
)  # fmt: skip
UNKNOWN = (
    (["add chain | other {{ type filter hook input priority 0; }}"], "at priority 0"),
    (["add chain | other {{ type nat hook output priority -150; }}"], "as nat"),
    (["table | {{ flags dormant; }}"], "the table has the flags"),
    (["insert rule | rf_input meta mark 1 accept"],
     'rule {new} of chain rf_input: looks at {{"meta": {{"key": "mark"}}}}'),
    (["insert rule | rf_input limit rate 1/hour accept"], "limit"),
    (["insert rule | rf_input meta iiftype ether accept"], "not loopback"),
    (['insert rule | rf_input iifgroup 7 accept'], "iifgroup"),
    (['insert rule | rf_input iifname "ve*" accept'], "not with one name"),
    (["add set | fading {{ type ipv4_addr; timeout 1h; }}",
      "insert rule | rf_input ip saddr @fading accept"], "@fading, which changes by itself"),
    (["add set | filled {{ type ipv4_addr; size 9; flags dynamic; }}",
      "add rule | rf_output add @filled {{ ip daddr }}",
      "insert rule | rf_input ip saddr @filled accept"], "@filled, which changes by itself"),
    (["add map | torn {{ type ipv4_addr . inet_service : verdict; flags interval; }}",
      "add element | torn {{ 10.0.0.0/8 . 9 : drop, 10.2.0.0 . 5-10 : accept }}",
      "insert rule | rf_input ip saddr . th dport vmap @torn"],
     "says two things"),
    (["insert rule | rf_input ip daddr set 10.0.0.1"], "changes"),
)  # fmt: skip


@pytest.mark.parametrize("script", HARMLESS)
def test_what_changes_nothing_for_any_packet_is_no_difference(
    alone: Namespace, script: list[str]
) -> None:
    proved = tamper(alone, POLICY, POD, script)
    assert not proved.differing, str(proved)


@pytest.mark.parametrize(("script", "told"), DIFFERENT)
def test_a_difference_is_found_and_named(alone: Namespace, script: list[str], told: str) -> None:
    proved = tamper(alone, POLICY, POD, script)
    assert proved.differing
    assert told.format(new=newest_handle(alone)) in str(proved)


@pytest.mark.parametrize(("script", "told"), UNKNOWN)
def test_what_is_not_known_is_named_and_nothing_proved(
    alone: Namespace, script: list[str], told: str
) -> None:
    with pytest.raises(UnprovableError) as refused:
        tamper(alone, POLICY, POD, script)
    assert told.format(new=newest_handle(alone)) in str(refused.value)


def test_a_dormant_table_is_told_without_its_content(alone: Namespace) -> None:
    """libnftables 1.0.6 reads freed memory to tell in JSON that a table is dormant."""
    nft.apply(alone.path, "add table inet ringfence { flags dormant; }")
    told = {"family": "inet", "name": "ringfence", "flags": 1}
    closed = {"packet_sockets": {"closed": True}}
    assert nft.list_table(alone.path) == [{"table": told}, closed]
    nft.remove(alone.path)
    assert nft.list_table(alone.path) is None


def test_a_node_that_drops_what_nothing_exposes_differs(alone: Namespace) -> None:
    proved = tamper(alone, POLICY, POLICY.binding, [])
    assert not proved.differing, str(proved)
    script = ["chain | rf_received {{ policy drop; }}"]
    proved = tamper(alone, POLICY, POLICY.binding, script)
    assert "drops it by the policy of chain rf_received, the policy lets it pass" in str(proved)


REJECTED = (
    ("replace rule | rf_reject handle {reset} meta l4proto tcp drop", "drops it"),
    ("delete rule | rf_reject handle {reset}", "rejects it"),
    ("insert rule | rf_reject meta l4proto tcp accept", "lets it pass"),
    ("insert rule | rf_input_4 tcp dport 9 drop", "drops it"),
)


def test_how_a_connection_is_denied_is_proved(alone: Namespace) -> None:
    rejecting = replace(CATCH_ALL, rejects=True)
    policy = replace(POLICY, programs={**POLICY.programs, IN: Program((ADMIT, rejecting))})
    assert not tamper(alone, policy, POD, []).differing
    for script, told in REJECTED:
        proved = str(tamper(alone, policy, POD, [script]))
        assert f"the kernel {told} by rule " in proved
        assert "the policy resets it by catch-all/shop/p1" in proved
    reset = "insert rule | rf_drop meta l4proto tcp reject with tcp reset"
    assert "resets it by rule" in str(tamper(alone, POLICY, POD, [reset]))


LOOKUPS = (
    (ANY, "add element | rf_input_4_1 {{ 10.1.0.0/16 . udp . 9-10 : 0x1 }}", "UDP 10.1.0.0"),
    (
        ANY,
        "delete element | rf_input_4_1 {{ 10.1.0.3 . tcp . 83 }}",
        "TCP 10.1.0.3 -> 0.0.0.0, port",
    ),
    (
        CATCH_ALL,
        "add element | rf_input_4_0 {{ 10.1.0.3 . tcp . 9-83 }}",
        "TCP 10.1.0.3 -> 0.0.0.0",
    ),
    (
        CATCH_ALL,
        "delete element | rf_input_4_0 {{ 10.2.0.3 . tcp . 83 }}",
        "TCP 10.2.0.3 -> 0.0.0.0",
    ),
)


@pytest.mark.parametrize(("last", "command", "told"), LOOKUPS)
def test_many_rules_in_lookups_are_proved_and_each_element_counts(
    alone: Namespace, last: Rule, command: str, told: str
) -> None:
    """Twelve that deny, in a map to marks, and twelve that allow, in a set."""
    held = {f"{side}{at}": f"10.{side}.0.{at}" for side in (1, 2) for at in range(12)}
    sets: dict[SetId, tuple[Network, ...]] = {
        SetId(f"s{name}"): (parse_network(address),) for name, address in held.items()
    }
    some = tuple(
        Rule(f"default/shop/p1/{side}-{at}", action, TCP, (PortRange(80 + at, 80 + at),),
             SetId(f"s{side}{at}"))
        for side, action in ((1, Action.DENY), (2, Action.ALLOW)) for at in range(12)
    )  # fmt: skip
    programs = {IN: Program((*some, last)), OUT: Program((ANY,))}
    policy = replace(POLICY, sets=sets, programs=programs)
    proved = tamper(alone, policy, POD, [])
    assert not proved.differing, str(proved)
    assert told in str(tamper(alone, policy, POD, [command]))


def render(
    policy: NodePolicy, binding: PodBinding | NodeBinding, backend: Backend = BACKEND
) -> Ruleset:
    if isinstance(binding, NodeBinding):
        return backend.render_node(policy)
    return backend.render_pod(policy, binding)


def tamper(
    where: Namespace,
    policy: NodePolicy,
    binding: PodBinding | NodeBinding,
    script: list[str],
) -> Proof:
    """The proof of a binding's rules after some commands, which name rules by their handles."""
    nft.apply(where.path, BACKEND.transaction(render(policy, binding), None))
    rules = [found["rule"] for found in nft.list_table(where.path) or () if "rule" in found]
    named = {(rule["chain"], rule.get("comment")): rule["handle"] for rule in rules}
    admit = named.get(("rf_input_4", ADMIT.handle))
    last = next((rule["handle"] for rule in reversed(rules) if rule["chain"] == "rf_drop"), 0)
    resets = (rule["handle"] for rule in rules if {"reject": {"type": "tcp reset"}} in rule["expr"])
    reset = next(resets, 0)
    for command in script:
        full = where.ours(command.replace(" |", " inet ringfence", 1))
        nft.apply(where.path, full.format(admit=admit, last=last, reset=reset))
    return prove(policy, binding, nft.list_table(where.path) or ())


def newest_handle(where: Namespace) -> int:
    listed = nft.list_table(where.path) or ()
    return max((found["rule"]["handle"] for found in listed if "rule" in found), default=0)


@pytest.mark.parametrize("kind", Kind)
def test_what_was_written_down_is_what_the_kernel_tells(kind: Kind) -> None:
    door, recorded = MECHANISMS[kind].door, listing.recorded(kind)
    assert door.fingerprint(listing.listed(kind)) == door.fingerprint(recorded), (
        "python -m tests.golden.listing writes it"
    )
