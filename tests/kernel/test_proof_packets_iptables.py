"""What is read of iptables and ipset is what the kernel does: random rules against packets."""

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringfence.agent.mechanisms import MECHANISMS, Kind
from ringfence.kernel import conntrack, nft
from ringfence.policy.proof.packets import Outcome, judge
from ringfence.policy.proof.reading_iptables import read
from tests.kernel.netns import Node
from tests.kernel.test_proof_packets import (
    _WITNESS,
    EXAMPLES,
    OWN,
    PACKETS,
    PEERS,
    node,
    seen,
    send,
)

__all__ = ["node"]
SETS = """\
create rf_some_4 hash:net family inet
add rf_some_4 10.99.2.0/24
add rf_some_4 172.16.0.0/12
add rf_some_4 128.0.0.0/1
create rf_some_6 hash:net family inet6
add rf_some_6 2001:db8::/32
add rf_some_6 fd00:99:1::1
create rf_drop_1_4 hash:ip,port,ip family inet timeout 600 counters
create rf_drop_1_6 hash:ip,port,ip family inet6 timeout 600 counters
"""
CHAINS = ("RINGFENCE-INPUT", "RINGFENCE-INPUT-1", "RINGFENCE-INPUT-2")
PROTOCOLS = (
    "-p tcp", "! -p tcp", "-p udp", "-p 47", "-p 1", "-p 58",
    "-p tcp -m tcp --sport 1000", "-p tcp -m tcp ! --sport 1001:2000",
    "-p tcp -m tcp --dport 22:80", "-p udp -m udp ! --dport 53",
    "-p udp -m udp --sport 67 --dport 80",
    "-p tcp -m multiport --dports 22,80:81", "-p sctp -m multiport --dports 53:80",
    "-p udp -m multiport ! --dports 22,81", "-p sctp -m multiport ! --dports 80",
    "-p tcp -m tcp --tcp-flags SYN SYN", "-p tcp -m tcp --tcp-flags SYN,ACK ACK",
    "-p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN", "-p tcp -m tcp --tcp-flags ALL NONE",
)  # fmt: skip
OTHERS = (
    "-m conntrack --ctstate NEW", "-m conntrack --ctstate INVALID,ESTABLISHED",
    "-m conntrack ! --ctstate NEW", "-m conntrack --ctstate RELATED,UNTRACKED,NEW",
    "-i lo", "! -i lo", "-m addrtype --dst-type LOCAL", "-m addrtype ! --dst-type LOCAL",
    "-m set --match-set rf_some_{f} src", "-m set ! --match-set rf_some_{f} src",
    "-m set --match-set rf_some_{f} dst", '-m comment --comment "-j DROP"',
)  # fmt: skip
OF_FAMILY = {
    4: (
        "-p icmp -m icmp --icmp-type 8", "-p icmp -m icmp ! --icmp-type 8/0",
        "-p icmp -m icmp --icmp-type 3/4",
    ),
    6: (
        "-p icmpv6 -m icmp6 --icmpv6-type 128", "-p icmpv6 -m icmp6 ! --icmpv6-type 128/0",
        "-p icmpv6 -m icmp6 --icmpv6-type 1/3", "-m hl --hl-eq 255", "-m hl ! --hl-eq 64",
    ),
}  # fmt: skip
BLOCKS = {4: ("10.99.0.0/16", "10.99.1.1", "172.16.0.7"), 6: ("fd00:99::/32", "2001:db8::7")}


@st.composite
def chains(draw: st.DrawFn, family: int) -> str:
    """What iptables-restore reads; a chain calls none that stands before it."""
    ends = [f"{no}{side} {block}" for no in ("", "! ") for side, block in
            (*(("-s", block) for block in BLOCKS[family]), ("-d", OWN[family]))]  # fmt: skip
    first = st.sampled_from([*PROTOCOLS, *OF_FAMILY[family], ""])
    other = st.sampled_from([*OTHERS, *ends])
    lines = []
    for at, name in enumerate(CHAINS):
        lines.append(f":{name} - [0:0]")
        calls = [f"{how} {callee}" for callee in CHAINS[at + 1 :] for how in ("-j", "-g")]
        verdicts = ["-j ACCEPT", "-j DROP", "-j DROP", "-j RETURN", "-j MARK --set-mark 7"]
        for _ in range(draw(st.integers(1, 6))):
            asked = draw(st.lists(other, max_size=2, unique_by=lambda text: text.split()[-2]))
            words = [draw(first), *asked, draw(st.sampled_from([*verdicts, *calls, *calls]))]
            lines.append(f"-A {name} {' '.join(filter(None, words))}".format(f=family))
    return "\n".join(["*mangle", *lines, "-I INPUT -j RINGFENCE-INPUT", "COMMIT", ""])


@pytest.fixture(params=[Kind.IPTABLES_NFT, Kind.IPTABLES_LEGACY], scope="module")
def kind(request: pytest.FixtureRequest, node: Node) -> Iterator[Kind]:
    yield Kind(request.param)
    MECHANISMS[Kind(request.param)].door.remove(node.pods[0].path)


@given(chains(4), chains(6))
@settings(max_examples=EXAMPLES, deadline=None, derandomize=EXAMPLES == 60)
def test_what_is_read_is_what_packets_meet(kind: Kind, node: Node, four: str, six: str) -> None:
    (pod,) = node.pods
    door = MECHANISMS[kind].door
    door.apply(pod.path, f"# sets\n{SETS}# IPv4\n{four}# IPv6\n{six}")
    conntrack.delete(pod.path, conntrack.entries(pod.path))
    nft.apply(pod.path, _WITNESS)
    listed = door.list_table(pod.path)
    assert listed is not None
    tables = {family: read(listed, family) for family in PEERS}
    send(node)
    passed = seen(node)
    for sent in PACKETS:
        outcome, name = judge(tables[sent.family], "input", sent.packet)
        expected = Outcome.ACCEPT if sent.seen in passed else Outcome.DROP
        assert outcome == expected, f"{sent.packet}: {name}"
