"""What a node's policy means for packets, said once more without any kernel's words.

It is written from the contract (`ringfence/policy/program.py`) and from what must always pass,
not from what a back end renders: the two are held against each other.
"""

from collections.abc import Iterable, Iterator, Mapping

from ringfence.model.address import Address, Network, is_v4
from ringfence.model.policy import Action, Direction
from ringfence.model.protocol import ICMP, ICMPV6, TCP, UDP, PortRange
from ringfence.policy.failsafe import CONTROL_PLANE
from ringfence.policy.handle import MID_STREAM, NEW_POD
from ringfence.policy.program import (
    LINK_LOCAL,
    LINKS_TO_PODS,
    NO_GUARDED,
    Behind,
    Exposure,
    Gate,
    Guarded,
    NodeBinding,
    NodePolicy,
    Passage,
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
    TRANSLATED_OUTPUT,
    Axis,
    Call,
    Clause,
    Match,
    Outcome,
    Ranges,
    State,
    Table,
    interface_number,
    joined,
)

_V4, _V6 = 4, 6
_ICMP_OF = {_V4: ICMP, _V6: ICMPV6}
_OPENS_NOTHING = joined((n, n) for n in range(256) if n & FIN_SYN_RST_ACK != SYN)
_RESETS = joined((n, n) for n in range(256) if n & RST)
_TRACKED = Match(Axis.STATE, ((State.INVALID.value, State.UNTRACKED.value),), negated=True)
"""Of other packets nothing is known but what they say themselves."""
_LINK_LOCAL = (0xFE80 << 112, (0xFEC0 << 112) - 1)
_DHCP_AGENTS = (0xFF02 << 112 | 0x1_0002,) * 2
"""ff02::1:2, all DHCP relay agents and servers (RFC 8415)."""
_LINK_MULTICAST = (0xFF02 << 112, (0xFF03 << 112) - 1)
_ROUTERS = (133, 134)
_NEIGHBOURS = (135, 136)
"""RFC 4861, but for redirects."""
_LISTENERS = (130, 131, 132, 143)
"""RFC 2710, RFC 3810."""
_DHCP = {_V4: (68, 67), _V6: (546, 547)}
"""The ports of clients and of servers."""


def meaning(
    policy: NodePolicy,
    binding: PodBinding | NodeBinding,
    family: int,
    released: Iterable[Passage] = (),
    guarded: Guarded = NO_GUARDED,
) -> Table:
    """What may pass in the namespace of a binding, of packets of one family.

    What gate and guard are there for they drop, without an answer, before rules that may reject.
    """
    said, silent = _Meaning(policy, family), _Meaning(policy, family, silent=True)
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
            more = tuple(said.dhcp(direction)) if node else ()
            sends = not node and direction is Direction.OUTBOUND
            first = (_foreign_loopback(),) if sends else ()
            judged = said.own_end(direction, binding.addresses, stated, program, more, first)
            chains[chain] = tuple(judged)
    if node and node.received is not None:
        hooks["prerouting"] = ("received",)
        hooks["output"] = ("received", *hooks.get("output", ()))
        chains["received"] = tuple(said.received(node.exposures))
        chains["program"] = tuple(said.program(node.received, Direction.INBOUND))
    if node:
        _add_behind(policy, said, hooks, chains, guarded)
    if node and policy.gate is not None:
        for hook, direction in (
            ("forward", Direction.OUTBOUND),
            ("input", Direction.OUTBOUND),
            ("postrouting", Direction.INBOUND),
        ):
            gate = f"{hook} gate"
            hooks[hook] = (gate, *hooks.get(hook, ()))
            chains[gate] = tuple(said.gate(policy.gate, hook, direction, released))
    for pod in policy.pods if node else ():
        for hook, direction, bound, by in (
            ("prerouting", Direction.OUTBOUND, pod.outbound, Axis.CAME_BY),
            ("postrouting", Direction.INBOUND, pod.inbound, Axis.LEAVES_BY),
        ):
            names = guarded.get(pod.uid, frozenset()) if pod.guarded else frozenset()
            at = Match(by, joined((n, n) for n in map(interface_number, names)))
            for place, program in enumerate(bound if names else ()):  # each must allow
                chain = f"{hook} {pod.uid} {place}"
                hooks[hook] = (f"{chain} guard", *hooks.get(hook, ()))
                judged = silent.own_end(direction, pod.addresses, (), program)
                chains[chain] = tuple(judged)
                chains[f"{chain} guard"] = Clause((at,), Call(chain), chain), _passes("others")
    return Table(family, chains, hooks)


def own_numbers(binding: PodBinding | NodeBinding, family: int) -> tuple[int, ...]:
    """The addresses of a family at which a pod may reach itself; those of a node are none."""
    held = binding.addresses if isinstance(binding, PodBinding) else ()
    return tuple(_number(one) for one in held if is_v4(one) == (family == _V4))


def _add_behind(
    policy: NodePolicy,
    said: "_Meaning",
    hooks: dict[str, tuple[str, ...]],
    chains: dict[str, tuple[Clause, ...]],
    guarded: Guarded,
) -> None:
    """What a node judges once it has translated it, of its pods and of its own."""
    node, parting = policy.binding, policy.parting()
    of_pods = {
        name: pods
        for name, whose in parting.items()
        if (pods := [one for one in whose if isinstance(one, PodBinding)])
    }
    if of_pods:
        hooks |= {hook: ("behind", *hooks.get(hook, ())) for hook in ("forward", "input")}
        chains["behind"] = tuple(said.behind(of_pods, guarded))
    if node.outbound in parting:
        hooks[TRANSLATED_OUTPUT] = ("own behind",)
        chains["own behind"] = tuple(said.own_behind(node, node.outbound))
    chains |= {f"{name} behind": tuple(said.answering(name)) for name in parting}


def _foreign_loopback() -> Clause:
    """What a pod sends to itself in the name of another."""
    new, by_loopback = _is(Axis.STATE, State.NEW.value), _is(Axis.TO_LOOPBACK, 1)
    foreign = Match(Axis.FROM_OWN, ((1, 1),), negated=True)
    return Clause((new, by_loopback, foreign), Outcome.DROP, "by loopback in another's name")


class _Meaning:
    def __init__(self, policy: NodePolicy, family: int, *, silent: bool = False) -> None:
        self._policy, self._family, self._silent = policy, family, silent

    def own_end(
        self,
        direction: Direction,
        addresses: tuple[Address, ...],
        stated: tuple[Rule, ...],
        program: ProgramId,
        more: tuple[Clause, ...] = (),
        first: tuple[Clause, ...] = (),
    ) -> Iterator[Clause]:
        """What the namespace itself is sent, or sends; `more` of it passes.

        What is not established meets the `first` ones before all others.
        """
        yield from _established()
        yield from first
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
        yield from self._neighbours()
        yield from more
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

    def behind(
        self, parting: Mapping[ProgramId, list[PodBinding]], guarded: Guarded
    ) -> Iterator[Clause]:
        """What pods dialled at Services of which they may not reach all, once it is translated."""
        yield from _established()
        for pod in (pod for pods in parting.values() for pod in pods):
            by = _came_by(guarded.get(pod.uid, ()))
            for own in (_number(one) for one in pod.addresses if self._mine(one)):
                both = _is(Axis.SOURCE, own), _is(Axis.DESTINATION, own)
                yield _passes("a workload to itself", *by, *both)
        yield from self._control_plane(self._policy.control_plane, dialled=True)
        for name, pods in parting.items():
            unknown = [pod for pod in pods if not guarded.get(pod.uid)]
            numbers = [_number(a) for pod in unknown for a in pod.addresses if self._mine(a)]
            for way in _came_by(by for pod in pods for by in guarded.get(pod.uid, ())):
                yield from self._parted(name, way)
            yield from self._parted(name, Match(Axis.SOURCE, joined((n, n) for n in numbers)))
        yield _passes("others")

    def own_behind(self, node: NodeBinding, program: ProgramId) -> Iterator[Clause]:
        """The same of what the node itself dialled."""
        yield from _established()
        yield _passes("a workload to itself", _is(Axis.TO_OWN, 1))
        yield from self._rules(node.fail_safes_out, Direction.OUTBOUND)
        yield from self._control_plane(self._policy.control_plane, dialled=True)
        yield from self._parted(program)
        yield _passes("others")

    def _parted(self, program: ProgramId, *whose: Match) -> Iterator[Clause]:
        for one in self._policy.programs[program].parted:
            sent = _is(Axis.PROTOCOL, one.protocol), _is(Axis.DIALLED_PORT, one.port)
            at = Match(Axis.DIALLED, self._spans(one.dialled))
            matches = _is(Axis.TRANSLATED, 1), _TRACKED, *whose, at, *sent
            yield Clause(matches, Call(f"{program} behind", goto=False), "parted")

    def answering(self, program: ProgramId) -> Iterator[Clause]:
        """The rules of pods on what they dialled and who answers it; what they deny is answered."""
        for rule in self._policy.programs[program].rules:
            if rule.protocol in _ICMP_OF.values():
                continue
            behind = rule.behind or Behind(None, ())
            asked = [
                Match(axis, self._spans(held))
                for axis, held in (
                    (Axis.DIALLED, rule.peers),
                    (Axis.SOURCE, rule.local),
                    (Axis.DESTINATION, behind.peers),
                )
                if held is not None
            ]
            asked += [_is(Axis.PROTOCOL, rule.protocol)] if rule.protocol is not None else []
            asked += [
                Match(axis, joined((one.first, one.last) for one in ports))
                for axis, ports in ((Axis.DIALLED_PORT, rule.ports), (Axis.PORT, behind.ports))
                if ports
            ]
            if rule.action is Action.ALLOW:
                yield Clause(tuple(asked), Outcome.RETURN, rule.handle)
            else:
                reset = *asked, _is(Axis.PROTOCOL, TCP)
                yield Clause(reset, Outcome.RESET, rule.handle)
                yield Clause(tuple(asked), Outcome.PROHIBITED, rule.handle)

    def gate(
        self, gate: Gate, hook: str, direction: Direction, released: Iterable[Passage]
    ) -> Iterator[Clause]:
        """Who may pass of those that have an address of the node's pods."""
        if direction is Direction.OUTBOUND:
            loopback, end, by, kind = (
                Axis.FROM_LOOPBACK, Axis.SOURCE, Axis.CAME_BY, Axis.CAME_BY_KIND,
            )  # fmt: skip
        else:
            loopback, end, by, kind = (
                Axis.TO_LOOPBACK, Axis.DESTINATION, Axis.LEAVES_BY, Axis.LEAVES_BY_KIND,
            )  # fmt: skip
        of_node = hook != "forward"
        if of_node:
            yield _passes("loopback", _is(loopback, 1))
            yield from self._neighbours()
        for passage in released:
            if self._mine(passage.address):
                interface = _is(by, interface_number(passage.interface))
                whole = passage.address == LINK_LOCAL.address
                first = _number(passage.address)
                spans = (_LINK_LOCAL,) if whole else ((first, first),)
                yield _passes("released", Match(end, spans), interface)
        pods = Match(end, self._of_networks(gate.networks))
        yield Clause((pods,), Outcome.DROP, NEW_POD)
        if of_node and self._family == _V6:
            kinds = joined((n, n) for n in map(interface_number, LINKS_TO_PODS))
            yield Clause((Match(end, (_LINK_LOCAL,)), Match(kind, kinds)), Outcome.DROP, NEW_POD)
        yield _passes("no pod")

    def program(self, program: ProgramId, direction: Direction) -> Iterator[Clause]:
        """The rules that decide in the end."""
        return self._rules(self._policy.programs[program].as_dialled, direction)

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
            if rule.rejects and not self._silent:
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

    def dhcp(self, direction: Direction) -> Iterator[Clause]:
        """What a node or host needs to keep its address; a pod has its own from its CNI."""
        client, server = _DHCP[self._family]
        inbound = direction is Direction.INBOUND
        ports = (server, client) if inbound else (client, server)
        asked = [_is(Axis.HEAD, ports[0]), _is(Axis.PORT, ports[1])]
        if self._family == _V6:
            server_at: Ranges = (_LINK_LOCAL,) if inbound else (_LINK_LOCAL, _DHCP_AGENTS)
            asked.append(Match(Axis.SOURCE if inbound else Axis.DESTINATION, server_at))
        yield _passes("DHCP", _is(Axis.PROTOCOL, UDP), *asked)

    def _neighbours(self) -> Iterator[Clause]:
        """Neighbour discovery (RFC 4890, section 4.4.1)."""
        if self._family == _V6:
            icmp = _is(Axis.PROTOCOL, ICMPV6)
            on_link = Match(Axis.DESTINATION, (_LINK_LOCAL, _LINK_MULTICAST))
            for name, where, kinds, hops in (
                ("routers", (on_link,), _ROUTERS, 255),
                ("neighbours", (), _NEIGHBOURS, 255),
                ("listeners", (), _LISTENERS, 1),
            ):
                yield _passes(name, icmp, *where, _messages(*kinds), _is(Axis.HOPS, hops))

    def _control_plane(
        self, ends: Iterable[tuple[Address, int]], *, dialled: bool = False
    ) -> Iterator[Clause]:
        to, at = (Axis.DIALLED, Axis.DIALLED_PORT) if dialled else (Axis.DESTINATION, Axis.PORT)
        known = (_TRACKED,) if dialled else ()
        for address, port in ends:
            if self._mine(address):
                sent = _is(to, _number(address)), _is(Axis.PROTOCOL, TCP), _is(at, port)
                yield Clause((*known, *sent), Outcome.ACCEPT, CONTROL_PLANE)

    def _spans(self, held: SetId) -> Ranges:
        return self._of_networks(self._policy.sets[held])

    def _of_networks(self, networks: Iterable[Network]) -> Ranges:
        return joined(
            _within(network, self._family)
            for network in networks
            if network.is_v4 == (self._family == _V4)
        )

    def _mine(self, address: Address) -> bool:
        return is_v4(address) == (self._family == _V4)


def _established() -> Iterator[Clause]:
    yield _passes("established", _is(Axis.STATE, State.ESTABLISHED.value))
    # Whatever else is related is a connection of its own.
    errors = Match(Axis.PROTOCOL, ((ICMP, ICMP), (ICMPV6, ICMPV6)))
    yield _passes("errors", _is(Axis.STATE, State.RELATED.value), errors)


def _came_by(interfaces: Iterable[str]) -> tuple[Match, ...]:
    """Packets that came by one of them; nothing is asked where there are none."""
    numbers = joined((n, n) for n in map(interface_number, interfaces))
    return (Match(Axis.CAME_BY, numbers),) if numbers else ()


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
