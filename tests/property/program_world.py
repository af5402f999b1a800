"""Random node policies, small, about few addresses and ports, so that rules meet each other."""

from hypothesis import strategies as st

from ringfence.model.address import Network, parse_address, parse_network
from ringfence.model.icmp import IcmpType
from ringfence.model.ids import ClusterId, NodeName
from ringfence.model.policy import Action
from ringfence.model.protocol import ICMP, ICMPV6, SCTP, TCP, UDP, PortRange
from ringfence.policy.program import (
    Behind,
    Exposure,
    NodeBinding,
    NodePolicy,
    PodBinding,
    Program,
    ProgramId,
    Rule,
    SetId,
)

OWN = tuple(map(parse_address, ("10.99.1.2", "fd00:99:1::2")))
NETWORKS = tuple(
    map(
        parse_network,
        (
            "10.99.1.1",
            "10.99.2.0/24",
            "10.99.2.2",
            "172.16.0.0/12",
            "203.0.113.9",
            "fd00:99:1::1",
            "fd00:99:2::/64",
            "2001:db8::9",
        ),
    )
)
_IPIP = 4
PORTS = (22, 53, 67, 68, 80, 81, 546, 547, 7443, 8080)
IN, OUT, RECEIVED = ProgramId("in"), ProgramId("out"), ProgramId("received")
POD, NODE = "pod", ""


def _disjoint(networks: list[Network]) -> tuple[Network, ...]:
    kept = [n for n in networks if not any(n != o and n.address in o for o in networks)]
    return tuple(sorted(set(kept)))


@st.composite
def policies(draw: st.DrawFn) -> NodePolicy:
    """A pod's programs and a node's, each there or not."""
    names = [SetId(f"s{at}") for at in range(3)]
    held = {
        name: _disjoint(draw(st.lists(st.sampled_from(NETWORKS), max_size=4))) for name in names
    }
    held[SetId("everyone")] = (parse_network("0.0.0.0/0"), parse_network("::/0"))
    some = st.none() | st.sampled_from(sorted(held))
    port = st.sampled_from(PORTS)
    spans = st.builds(lambda a, b: PortRange(min(a, b), max(a, b)), port, port)
    messages = st.sampled_from([IcmpType(0).ports, IcmpType(8).ports, IcmpType(3, 4).ports])
    dialled = st.tuples(st.sampled_from([TCP, UDP, SCTP]), st.lists(spans, max_size=2).map(_sorted))
    sent = st.one_of(
        st.just((None, ())),
        dialled,
        dialled,
        dialled,
        st.tuples(st.sampled_from([ICMP, ICMPV6]), st.lists(messages, max_size=1).map(tuple)),
        st.tuples(st.sampled_from([_IPIP, 47]), st.just(())),
    )
    actions = st.sampled_from(
        [[Action.ALLOW], [Action.DENY], [Action.ALLOW, Action.DENY], [Action.DENY, Action.ALLOW]]
    )

    rejecting = draw(st.sampled_from([(), range(24), range(5, 10)]))

    def rule(at: int, action: Action, *, outbound: bool) -> Rule:
        if outbound and draw(st.sampled_from([False, False, True])):
            return parted(at, action)
        protocol, ports = draw(sent)
        local = draw(st.none() | st.none() | some)
        rejects = action is Action.DENY and at in rejecting
        return Rule(f"default/w/p1/{at}", action, protocol, ports, draw(some), local, rejects)

    def parted(at: int, action: Action) -> Rule:
        """One that means some of those that answer."""
        protocol = draw(st.sampled_from([TCP, TCP, UDP]))
        numbers = sorted(draw(st.sets(port, min_size=1, max_size=2)))
        dialled = tuple(PortRange(one, one) for one in numbers)
        behind = Behind(draw(some), draw(st.lists(spans, max_size=1).map(tuple)))
        peers, local = draw(st.sampled_from(names)), draw(st.none() | some)
        handle = f"default/w/p1/{at}"
        return Rule(handle, action, protocol, dialled, peers, local, False, behind)

    def program(*, outbound: bool = False) -> Program:
        # Many rules of a kind are written as one lookup.
        count, said = draw(st.sampled_from([0, 1, 2, 4, 12, 24])), draw(actions)
        rules = [rule(at, said[at * len(said) // count], outbound=outbound) for at in range(count)]
        action = said[-1] if draw(st.booleans()) else said[0]
        rejects = action is Action.DENY and draw(st.booleans())
        last = Rule("catch-all/w/p1", action, None, (), None, None, rejects)
        return Program((*rules, last))

    def maybe(name: ProgramId) -> ProgramId | None:
        return name if draw(st.booleans()) else None

    def several(name: ProgramId) -> tuple[ProgramId, ...]:
        return draw(st.sampled_from([(), (name,), (name, RECEIVED)]))

    exposures = [
        Exposure(TCP, (PortRange(80, 81),), None),
        Exposure(UDP, (PortRange(53, 53),), names[0]),
    ]
    safe = (Rule("fail-safe/kubelet", Action.ALLOW, TCP, (PortRange(81, 81),), names[1]),)
    server = parse_address("203.0.113.9"), 7443
    return NodePolicy(
        ClusterId("c"),
        NodeName("n"),
        held,
        {name: program(outbound=name == OUT) for name in (IN, OUT, RECEIVED)},
        (PodBinding(POD, "shop", "pod", OWN, several(IN), several(OUT)),),
        NodeBinding(
            OWN,
            maybe(IN),
            maybe(OUT),
            maybe(RECEIVED),
            tuple(draw(st.lists(st.sampled_from(exposures), unique=True))),
            safe,
            safe,
        ),
        (server,) if draw(st.booleans()) else ((OWN[0], 80),),
    )


def _sorted(spans: list[PortRange]) -> tuple[PortRange, ...]:
    if len(spans) == 2 and (spans[0].last >= spans[1].first and spans[1].last >= spans[0].first):
        return (spans[0],)
    return tuple(sorted(spans))
