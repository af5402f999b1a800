"""What fail-safes let pass whatever policies say, of many connections at once.

They stand outside the evaluator: who asks what becomes of a connection asks here of the ends that
deny it. What back ends write for packets (`proof/meaning.py`) is told here of connections, as far
as these tell it: neither hop limits nor the ports of DHCP's clients are known of them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ringfence.inventory.snapshot import NOWHERE, Snapshot
from ringfence.model.address import parse_network
from ringfence.model.ids import ClusterId, NodeName, ScopeName, Version, WorkspaceName
from ringfence.model.policy import Action
from ringfence.model.protocol import ICMPV6, TCP, UDP
from ringfence.model.ranges import AddressRange, spans
from ringfence.model.verdict import Decision, EndRole, Layer, Stage
from ringfence.model.workload import Item, ItemKind
from ringfence.policy.cells import AddressCells
from ringfence.policy.connection import Connections
from ringfence.policy.evaluate import end_items
from ringfence.policy.failsafe import CONTROL_PLANE, FAIL_SAFE, fail_safes
from ringfence.policy.nodes import NodeKey, Surroundings
from ringfence.policy.program import NodePolicy, Rule
from ringfence.policy.recheck import Opened, denied_behind
from ringfence.policy.sets import AddressSets, of_addresses

ITSELF, _NEIGHBOURS, _DHCP = (FAIL_SAFE + name for name in ("itself", "neighbours", "dhcp"))


def _networks(*texts: str) -> tuple[AddressRange, ...]:
    return spans(map(parse_network, texts))


_MESSAGES = (
    ((133, 134), _networks("fe80::/10", "ff02::/16")),
    ((135, 136), _networks("::/0")),
    ((130, 131, 132, 143), _networks("ff00::/8")),
)
"""Of routers, neighbours and multicast listeners: types, and where they are sent.

Listeners' are known by going to groups (RFC 2710, RFC 3810): elsewhere hop limits would tell.
"""
_DHCP_SERVERS = (67, _networks("0.0.0.0/0")), (547, _networks("fe80::/10", "ff02::1:2/128"))
"""What goes to these is known for it; to the ports of clients goes what scanners try, too.

Over IPv4 to whatever address: leases are renewed by unicast (RFC 2131 section 4.4.5), time and
again. What else a node may send there, from another port, is rare.
"""

Mask = NDArray[np.bool_]


def decision_of(handle: str) -> Decision:
    """A fail-safe as what decides at an end; no workspace and no policy says it."""
    return Decision(
        Layer.RINGFENCE,
        Stage.FAIL_SAFE,
        ScopeName(""),
        WorkspaceName(""),
        Version(0),
        None,
        0,
        Action.ALLOW,
        handle.removeprefix(FAIL_SAFE),
    )


class FailSafes:
    """The fail-safes of an inventory's workloads.

    `policies` gives what nodes enforce, which tells which of its own ports that lead elsewhere a
    node may dial. It is called where one did so and is denied. Without it none counts as such.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        surroundings: Surroundings,
        policies: Callable[[], Mapping[NodeKey, NodePolicy]] = dict,
    ) -> None:
        self._snapshot, self._surroundings = snapshot, surroundings
        self._policies = policies
        self._sets = AddressSets(snapshot)
        alike: dict[tuple[ClusterId, ItemKind], int] = {}
        self._rules: list[tuple[Sequence[Rule], Sequence[Rule]]] = []
        """Inbound and outbound, of nodes and hosts that have the same."""
        self._alike = np.full(len(snapshot.items) + 1, NOWHERE, np.int32)
        for at in snapshot.subjects:
            item = snapshot.items[at]
            if item.kind in (ItemKind.NODE, ItemKind.HOST):
                kind = item.cluster, item.kind
                if kind not in alike:
                    alike[kind] = len(self._rules)
                    self._rules.append(self._rules_of(item))
                self._alike[at] = alike[kind]

    def _rules_of(self, item: Item) -> tuple[Sequence[Rule], Sequence[Rule]]:
        return fail_safes(self._snapshot, item, self._surroundings.access, self._sets)

    def at(self, connections: Connections, role: EndRole) -> list[tuple[str, Mask]]:
        """The fail-safes that speak of connections at their ends in a role, by handle.

        The first that holds one counts. A provider's rules see what is left after DNAT, others
        what was dialled; the receiving node's know the control plane's ports alone.
        """
        return [(handle, mask) for handle, mask in self._told(connections, role) if mask.any()]

    def _told(self, given: Connections, role: EndRole) -> Iterator[tuple[str, Mask]]:
        behind = role is EndRole.PROVIDER
        to = given.provider if behind else given.dialled
        port = given.provider_port if behind else given.dialled_port
        there = end_items(given, role) != NOWHERE
        if role is not EndRole.NODE:
            homes = self._snapshot.homes(given.consumer_item)
            itself = self._snapshot.locate(given.dialled, homes) == given.consumer_item
            itself &= there & (given.consumer_item != NOWHERE)
            back = itself & (given.provider_item == given.consumer_item)
            yield ITSELF, back if behind else back | self._let_on(given, itself & ~back)
        for address, number in self._surroundings.control_plane:
            dialled = _within(of_addresses([address]), to)
            yield CONTROL_PLANE, dialled & there & (given.protocol == TCP) & (port == number)
        if role is EndRole.NODE:
            return
        for kinds, where in _MESSAGES:
            messages = there & (given.protocol == ICMPV6) & np.isin(port >> 8, kinds)
            yield _NEIGHBOURS, _narrowed(messages, where, to)
        yield from self._of_nodes(given, role, to, port)

    def _let_on(self, given: Connections, away: Mask) -> Mask:
        """Of what nodes dial at addresses of their own and is led `away`, what they do not judge.

        It leaves by loopback. Once translated it is judged where rules mean some backends only.
        """
        found = np.zeros(len(away), np.bool_)
        dialling = np.unique(given.consumer_item[away]).tolist()
        nodes = [at for at in dialling if self._snapshot.items[at].kind is ItemKind.NODE]
        policies = self._policies() if nodes else {}
        for at in nodes:
            item = self._snapshot.items[at]
            policy = policies.get((item.cluster, NodeName(item.name)))
            if policy is not None:
                rows = np.flatnonzero(away & (given.consumer_item == at))
                found[rows] = ~denied_behind(policy, _opened(given.take(rows)))
        return found

    def _of_nodes(
        self, given: Connections, role: EndRole, to: NDArray[np.uint8], port: NDArray[np.uint16]
    ) -> Iterator[tuple[str, Mask]]:
        """The fail-safes that nodes and hosts have besides."""
        alike = self._alike[end_items(given, role)]
        if role is EndRole.CONSUMER:
            for server, where in _DHCP_SERVERS:
                asked = (alike != NOWHERE) & (given.protocol == UDP) & (port == server)
                yield _DHCP, _narrowed(asked, where, to)
        peer = to if role is EndRole.CONSUMER else given.consumer
        for number, rules in enumerate(self._rules):
            mine = alike == number
            for rule in rules[role is EndRole.CONSUMER] if mine.any() else ():
                spoken = mine & (given.protocol == rule.protocol)
                if rule.ports:
                    within = [(one.first <= port) & (port <= one.last) for one in rule.ports]
                    spoken &= np.logical_or.reduce(within)
                if rule.peers is not None:
                    spoken &= _within(self._sets.ranges(rule.peers), peer)
                yield rule.handle, spoken


def _opened(led: Connections) -> Opened:
    """Connections that are led elsewhere than they were dialled, to whom the node sees."""
    return Opened(
        protocol=led.protocol,
        source=led.consumer,
        destination=led.dialled,
        port=led.dialled_port,
        translated=np.ones(len(led), np.bool_),
        reached=led.provider,
        reached_port=led.provider_port,
    )


def _narrowed(rows: Mask, ranges: Sequence[AddressRange], addresses: NDArray[np.uint8]) -> Mask:
    """Those of the rows whose addresses are in one of the ranges."""
    some = np.flatnonzero(rows)
    narrowed = np.zeros(len(rows), np.bool_)
    narrowed[some] = _within(ranges, addresses[some])
    return narrowed


def _within(ranges: Sequence[AddressRange], addresses: NDArray[np.uint8]) -> Mask:
    """Which of the addresses, shape (n, 16), are in one of the ranges."""
    cells = AddressCells(ranges)
    inside = np.zeros(len(cells), np.bool_)
    for one in ranges:
        inside[cells.within(one)] = True
    return np.asarray(inside[cells.of(addresses)])
