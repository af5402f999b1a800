"""What the rules of pods make of the Services of their cluster, judged behind their addresses.

Asked for each pod that is unlike others, of all Services at once.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ringfence.model.address import Address
from ringfence.model.ids import ClusterId
from ringfence.model.policy import Action
from ringfence.model.protocol import PortRange
from ringfence.model.ranges import AddressRange
from ringfence.model.workload import Backend
from ringfence.policy.fronts import Front, Fronts
from ringfence.policy.program import Rule, SetId
from ringfence.policy.sets import AddressSets

Mask = NDArray[np.bool_]
Ranges = tuple[AddressRange, ...]
_Socket = tuple[Address, int, int]
"""Address, protocol, port."""
_KEY = "S16"
"""numpy drops trailing zero bytes, of all alike: equality and order stay those of 16 bytes."""


@dataclass(frozen=True, slots=True)
class Decided:
    """What rules make of a Service's port: `rule` decides, for one of its backends at least.

    `denied` are the other backends, of a Service of which some are denied, each with the rule that
    denies it; `addresses` are then all it has, else those that would come out otherwise, were they
    judged as they are dialled.
    """

    front: Front
    rule: Rule
    denied: tuple[tuple[Rule, Backend], ...]
    addresses: tuple[Address, ...]


class Dialled:
    """The Services that have backends, as the pods of a Kubernetes cluster dial them.

    Two clusters may give one address to a Service each: theirs is that of their own.
    """

    def __init__(self, cluster: ClusterId, fronts: Fronts, sets: AddressSets) -> None:
        self._sets = sets
        inside, outside = list[Front](), list[Front]()
        for front in fronts.all:
            if front.backends:
                (inside if front.service.cluster == cluster else outside).append(front)
        taken = {socket for front in inside for socket in _sockets(front, cluster)}
        self._fronts = inside + outside
        self._addresses = [one.addresses for one in inside]
        self._addresses += [
            tuple(socket[0] for socket in _sockets(one, cluster) if socket not in taken)
            for one in outside
        ]
        backends = [(b.address, b.port) for one in self._fronts for b in one.backends]
        own = [
            (address, front.port.port)
            for front, addresses in zip(self._fronts, self._addresses, strict=True)
            for address in addresses
        ]
        counts = [len(one.backends) for one in self._fronts]
        self._starts = np.cumsum([0, *counts])[:-1]
        self._own = len(backends)
        """From which point on the points are the Services' own addresses."""
        self._front_of = np.repeat(np.arange(len(self._fronts)), list(map(len, self._addresses)))
        protocols = np.array([one.port.protocol for one in self._fronts], dtype=np.uint8)
        self._protocol = np.concatenate([np.repeat(protocols, counts), protocols[self._front_of]])
        self._port = np.array([port for _, port in (*backends, *own)], dtype=np.int64)
        keys = np.array([address for address, _ in (*backends, *own)], dtype=_KEY)
        self._order = np.argsort(keys, kind="stable")
        self._sorted = keys[self._order]
        self._peers: dict[SetId, tuple[Ranges, Mask]] = {}
        self._traffic: dict[tuple[int | None, tuple[PortRange, ...]], Mask] = {}

    def decided(self, rules: Sequence[Rule]) -> list[Decided]:
        """The ports for which rules, the last of which matches all, need a rule of its own.

        Those are such as are dialled by a node port, or have an address, or part of the backends,
        that comes out otherwise.
        """
        if not self._fronts:
            return []
        places = self._places(rules)
        denies = np.array([rule.action is Action.DENY for rule in rules])[places]
        denied = np.logical_and.reduceat(denies[: self._own], self._starts)
        partly = np.logical_or.reduceat(denies[: self._own], self._starts) & ~denied
        otherwise = denies[self._own :] != denied[self._front_of]
        otherwise |= partly[self._front_of]
        wanted = partly | np.array([bool(one.port.node_port) for one in self._fronts])
        wanted[self._front_of[otherwise]] = True
        found = []
        for at in np.flatnonzero(wanted).tolist():
            front, start = self._fronts[at], int(self._starts[at])
            of_backends = slice(start, start + len(front.backends))
            chosen = int((denies[of_backends] == denied[at]).argmax())
            addresses = zip(self._addresses[at], otherwise[self._front_of == at], strict=True)
            judged = zip(places[of_backends].tolist(), front.backends, strict=True)
            others = tuple(
                (rules[place], backend)
                for place, backend in (judged if partly[at] else ())
                if rules[place].action is Action.DENY
            )
            found.append(
                Decided(
                    front,
                    rules[int(places[of_backends][chosen])],
                    others,
                    tuple(address for address, other in addresses if other),
                )
            )
        return found

    def _places(self, rules: Sequence[Rule]) -> NDArray[np.intp]:
        """For each point the place of the first rule that matches it."""
        found = np.full(len(self._port), -1, dtype=np.intp)
        for place, rule in enumerate(rules):
            rows = (found == -1) & self._to(rule.protocol, rule.ports)
            if rule.peers is not None:
                rows &= self._among(rule.peers)
            found[rows] = place
        return found

    def _to(self, protocol: int | None, ports: tuple[PortRange, ...]) -> Mask:
        key = protocol, ports
        if key not in self._traffic:
            rows = np.ones(len(self._port), dtype=np.bool_)
            if protocol is not None:
                rows &= self._protocol == protocol
            if ports:
                spans = [(self._port >= one.first) & (self._port <= one.last) for one in ports]
                rows &= np.logical_or.reduce(spans)
            self._traffic[key] = rows
        return self._traffic[key]

    def _among(self, peers: SetId) -> Mask:
        spans = self._sets.ranges(peers)
        # A set that holds something else has other ranges.
        if peers not in self._peers or self._peers[peers][0] is not spans:
            rows = np.zeros(len(self._port), dtype=np.bool_)
            firsts, lasts = (
                np.array([one[end].to_bytes(16) for one in spans], dtype=_KEY) for end in (0, 1)
            )
            begins = np.searchsorted(self._sorted, firsts, side="left").tolist()
            ends = np.searchsorted(self._sorted, lasts, side="right").tolist()
            for begin, end in zip(begins, ends, strict=True):
                rows[self._order[begin:end]] = True
            self._peers[peers] = spans, rows
        return self._peers[peers][1]


def _sockets(front: Front, cluster: ClusterId) -> Iterator[_Socket]:
    port = front.port
    return ((address, port.protocol, port.port) for address in front.dialled_from(cluster))
