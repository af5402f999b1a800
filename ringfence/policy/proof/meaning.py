"""What a node's policy means for packets, said once more without any kernel's words.

It is written from the contract (`ringfence/policy/program.py`) and from what must always pass,
not from what a back end renders: the two are held against each other.
"""

from collections.abc import Iterable, Iterator

from ringfence.model.address import Address, Network, is_v4
from ringfence.model.policy import Action, Direction
from ringfence.model.protocol import ICMP, ICMPV6, TCP, UDP, PortRange
from ringfence.policy.failsafe import CONTROL_PLANE
from ringfence.policy.handle import MID_STREAM
from ringfence.policy.program import (
    Exposure,
    NodeBinding,
    NodePolicy,
    PodBinding,
    ProgramId,
    Rule,
    SetId,
    as_programs,
)
from ringfence.policy.proof.packets import (
    FIN_SYN_RST_ACK,
    RST,
    SYN,
    Axis,
    Call,
    Clause,
    Match,
    Outcome,
    Ranges,
    State,
    Table,
    joined,
)

_V4, _V6 = 4, 6
_ICMP_OF = {_V4: ICMP, _V6: ICMPV6}
_OPENS_NOTHING = joined((n, n) for n in range(256) if n & FIN_SYN_RST_ACK != SYN)
_RESETS = joined((n, n) for n in range(256) if n & RST)
_LINK_LOCAL = (0xFE80 << 112, (0xFEC0 << 112) - 1)
_DHCP_AGENTS = (0xFF02 << 112 | 0x1_0002,) * 2
"""ff02::1:2, all DHCP relay agents and servers (RFC 8415)."""
_FRAGMENTATION_NEEDED = 3 << 8 | 4
_PACKET_TOO_BIG = 2
"""RFC 4443."""
_NEIGHBOURS = (133, 134, 135, 136)
"""RFC 4861, but for redirects."""
_LISTENERS = (130, 131, 132, 143)
"""RFC 2710, RFC 3810."""
_DHCP = {_V4: (68, 67), _V6: (546, 547)}
"""The ports of clients and of servers."""


def meaning(policy: NodePolicy, binding: PodBinding | NodeBinding, family: int) -> Table:
    """What may pass in the namespace of a binding, of packets of one family."""
    said = _Meaning(policy, family)
    node = binding if isinstance(binding, NodeBinding) else None
    chains: dict[str, tuple[Clause, ...]] = {}
    hooks: dict[str, tuple[str, ...]] = {}
    for hook, direction, bound, stated in (
        ("input", Direction.INBOUND, binding.inbound, node.fail_safes_in if node else ()),
        ("output", Direction.OUTBOUND, binding.outbound, node.fail_safes_out if node else ()),
    ):
        for place, program in enumerate(as_programs(bound)):  # each must allow
            chain = f"{hook} {place}"
            hooks[hook] = (*hooks.get(hook, ()), chain)
            chains[chain] = tuple(said.own_end(direction, binding.addresses, stated, program))
    if node and node.received is not None:
        hooks["prerouting"] = ("received",)
        hooks["output"] = ("received", *hooks.get("output", ()))
        chains["received"] = tuple(said.received(node.exposures))
        chains["program"] = tuple(said.program(node.received, Direction.INBOUND))
    return Table(family, chains, hooks)


class _Meaning:
    def __init__(self, policy: NodePolicy, family: int) -> None:
        self._policy, self._family = policy, family

    def own_end(
        self,
        direction: Direction,
        addresses: tuple[Address, ...],
        stated: tuple[Rule, ...],
        program: ProgramId,
    ) -> Iterator[Clause]:
        """What the namespace itself is sent, or sends."""
        yield from _established()
        if direction is Direction.INBOUND:
            yield _passes("loopback", _is(Axis.FROM_LOOPBACK, 1))
            for own in map(_number, filter(self._mine, addresses)):
                both = _is(Axis.SOURCE, own), _is(Axis.DESTINATION, own)
                yield _passes("a workload to itself", *both)
            held = tuple(end for end in self._policy.control_plane if end[0] in addresses)
        else:
            related = _is(Axis.STATE, State.RELATED.value)
            reset = _is(Axis.PROTOCOL, TCP), Match(Axis.FLAGS, _RESETS)
            yield _passes("resets of what is rejected", related, *reset)
            yield _passes("loopback", _is(Axis.TO_LOOPBACK, 1))
            held = self._policy.control_plane
        yield from self._neighbourhood(direction)
        yield from self._control_plane(held)
        yield from self._rules(stated, direction)
        yield Clause(
            (_is(Axis.PROTOCOL, TCP), Match(Axis.FLAGS, _OPENS_NOTHING)), Outcome.DROP, MID_STREAM
        )
        yield from self.program(program, direction)

    def received(self, exposures: Iterable[Exposure]) -> Iterator[Clause]:
        """What is dialled at the node for Services, before translation."""
        yield from _established()
        yield from self._control_plane(self._policy.control_plane)
        for exposure in exposures:
            if exposure.local is None:
                at = _is(Axis.TO_OWN, 1)
            else:
                at = Match(Axis.DESTINATION, self._spans(exposure.local))
            dialled = self._sent(exposure.protocol, exposure.ports)
            if dialled is not None:
                yield Clause((at, *dialled), Call("program"), "exposed")
        yield _passes("nothing exposed")

    def program(self, program: ProgramId, direction: Direction) -> Iterator[Clause]:
        """The rules that decide in the end."""
        return self._rules(self._policy.programs[program].rules, direction)

    def _rules(self, rules: Iterable[Rule], direction: Direction) -> Iterator[Clause]:
        ends = (Axis.SOURCE, Axis.DESTINATION)
        peer, local = ends if direction is Direction.INBOUND else reversed(ends)
        for rule in rules:
            sent = self._sent(rule.protocol, rule.ports)
            if sent is None:
                continue
            held = tuple(
                Match(axis, self._spans(of))
                for axis, of in ((peer, rule.peers), (local, rule.local))
                if of is not None
            )
            verdict = Outcome.ACCEPT if rule.action is Action.ALLOW else Outcome.DROP
            if rule.rejects:
                verdict = Outcome.PROHIBITED
                reset = (*held, *sent, _is(Axis.PROTOCOL, TCP))
                yield Clause(reset, Outcome.RESET, rule.handle)
            yield Clause((*held, *sent), verdict, rule.handle)

    def _sent(self, protocol: int | None, ports: tuple[PortRange, ...]) -> tuple[Match, ...] | None:
        """A protocol and ports; None if no packet of the family is meant."""
        matches = () if protocol is None else (_is(Axis.PROTOCOL, protocol),)
        if not ports:
            return matches
        spans = joined((one.first, one.last) for one in ports)
        if protocol not in _ICMP_OF.values():
            return (*matches, Match(Axis.PORT, spans))
        return (*matches, Match(Axis.HEAD, spans)) if protocol == _ICMP_OF[self._family] else None

    def _neighbourhood(self, direction: Direction) -> Iterator[Clause]:
        """Neighbour discovery (RFC 4890, section 4.4.1), path MTU and DHCP."""
        icmp = _is(Axis.PROTOCOL, _ICMP_OF[self._family])
        if self._family == _V4:
            yield _passes("path MTU", icmp, _is(Axis.HEAD, _FRAGMENTATION_NEEDED))
        else:
            for name, kinds, hops in (
                ("neighbours", _NEIGHBOURS, 255),
                ("listeners", _LISTENERS, 1),
            ):
                yield _passes(name, icmp, _messages(*kinds), _is(Axis.HOPS, hops))
            yield _passes("path MTU", icmp, _messages(_PACKET_TOO_BIG))
        client, server = _DHCP[self._family]
        inbound = direction is Direction.INBOUND
        ports = (server, client) if inbound else (client, server)
        asked = [_is(Axis.HEAD, ports[0]), _is(Axis.PORT, ports[1])]
        if self._family == _V6:
            server_at: Ranges = (_LINK_LOCAL,) if inbound else (_LINK_LOCAL, _DHCP_AGENTS)
            asked.append(Match(Axis.SOURCE if inbound else Axis.DESTINATION, server_at))
        yield _passes("DHCP", _is(Axis.PROTOCOL, UDP), *asked)

    def _control_plane(self, ends: Iterable[tuple[Address, int]]) -> Iterator[Clause]:
        for address, port in ends:
            if self._mine(address):
                to = _is(Axis.DESTINATION, _number(address))
                sent = _is(Axis.PROTOCOL, TCP), _is(Axis.PORT, port)
                yield Clause((to, *sent), Outcome.ACCEPT, CONTROL_PLANE)

    def _spans(self, held: SetId) -> Ranges:
        return joined(
            _within(network, self._family)
            for network in self._policy.sets[held]
            if network.is_v4 == (self._family == _V4)
        )

    def _mine(self, address: Address) -> bool:
        return is_v4(address) == (self._family == _V4)


def _established() -> Iterator[Clause]:
    yield _passes("established", _is(Axis.STATE, State.ESTABLISHED.value))
    # Whatever else is related is a connection of its own.
    errors = Match(Axis.PROTOCOL, ((ICMP, ICMP), (ICMPV6, ICMPV6)))
    yield _passes("errors", _is(Axis.STATE, State.RELATED.value), errors)


def _passes(name: str, *matches: Match) -> Clause:
    return Clause(matches, Outcome.ACCEPT, f"fail-safe/{name}")


def _is(axis: Axis, number: int) -> Match:
    return Match(axis, ((number, number),))


def _messages(*kinds: int) -> Match:
    return Match(Axis.HEAD, joined((kind << 8, kind << 8 | 0xFF) for kind in kinds))


def _number(address: Address) -> int:
    return int.from_bytes(address[12:] if is_v4(address) else address)


def _within(network: Network, family: int) -> tuple[int, int]:
    if family == _V6:
        return network.first, network.last
    return network.first & 0xFFFFFFFF, network.last & 0xFFFFFFFF
