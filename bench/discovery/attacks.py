"""Those who look around: scanners, and an intruder who is as quiet as the quietest true edge."""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from bench.discovery.graph import Edge, Socket
from bench.discovery.style import DAY, HOUR, MINUTE
from bench.discovery.traffic import (
    ANSWERED,
    ATTACK,
    REFUSED,
    UNANSWERED,
    Cast,
    Conversations,
    Numbers,
)
from bench.discovery.world import Party, World
from ringfence.model.protocol import TCP

STYLES = ("replica", "replica", "rogue", "outside", "node", "host")
PORTS = (21, 22, 23, 25, 80, 443, 445, 1433, 2375, 2379, 3000, 3306, 5432, 5672, 6379, 8000, 8080,
         8443, 9000, 9090, 9200, 11211, 27017, 50051)  # fmt: skip


@dataclass(frozen=True)
class Source:
    """Where somebody sits: a life of a party, or an address outside."""

    style: str
    party: str
    life: int
    address: int
    since: float


@dataclass(frozen=True)
class Attacks:
    told: Conversations
    sources: list[Source]
    edges: list[Edge]
    """What was tried that the application itself never does; conversations name them by number."""


def attacks(world: World, cast: Cast, draw: Generator) -> Attacks:
    made = _Attacks(world, cast, draw)
    for style in draw.choice(len(STYLES), 2, replace=False):
        source = made.source(STYLES[int(style)])
        if source:
            made.intrude(source)
    for fast in (True, False):
        source = made.source(STYLES[int(draw.integers(len(STYLES)))])
        if source:
            made.scan(source, fast=fast)
    return Attacks(made.told, made.sources, made.edges)


class _Attacks:
    def __init__(self, world: World, cast: Cast, draw: Generator) -> None:
        self.world, self.cast, self.draw = world, cast, draw
        self.told = Conversations()
        self.sources: list[Source] = []
        self.edges: list[Edge] = []
        self.known: dict[Edge, int] = {}
        self.targets = [
            (party, socket)
            for party in world.parties.values()
            if party.kind in ("pod", "host") and not party.system
            for socket in party.workload.listens
            if socket[0] == TCP
        ]

    def source(self, style: str) -> Source | None:
        found = self._source(style)
        if found:
            self.sources.append(found)
        return found

    def _source(self, style: str) -> Source | None:
        draw, world = self.draw, self.world
        since = float(draw.uniform(0.1, 0.8)) * DAY
        if style == "outside":
            address = (10 << 24 | 200 << 16) + int(draw.integers(1 << 16))
            if draw.random() < 0.5:
                address = (45 << 24) + int(draw.integers(1 << 24))
            return Source(style, "outside", -1, address, since)
        kind = {"replica": "pod", "rogue": "pod", "node": "node", "host": "host"}[style]
        parties = [
            party
            for party in world.parties.values()
            if party.kind == kind
            and not party.system
            and not party.scheduled
            and party.name.startswith("rogue/") == (style == "rogue")
        ]
        if not parties:
            return None
        party = parties[int(draw.integers(len(parties)))]
        if style == "rogue":
            since = party.lives[0].start + draw.uniform(1, 10) * MINUTE
        (life,) = self.cast.alive(party, np.array([since]))
        if life < 0 or self.cast.end[life] < since + 2 * HOUR:
            return None
        return Source(style, party.name, int(life), int(self.cast.address[life]), since)

    def intrude(self, source: Source) -> None:
        """A few targets, each reached one to five times, through its Service or straight."""
        draw = self.draw
        until = min(DAY, float(self.cast.end[source.life]) if source.life >= 0 else DAY)
        quiet = draw.random() < 0.3
        wanted = int(draw.integers(1, 3)) if quiet else int(draw.integers(3, 9))
        for at in draw.permutation(len(self.targets)).tolist():
            party, socket = self.targets[at]
            if wanted and party.name != source.party and not self._true(source, party, socket):
                wanted -= 1
                times = draw.uniform(source.since, until, int(draw.integers(1, 6)))
                self._dial(source, party, socket, times, direct=0.5)
        for _ in range(0 if quiet else int(draw.integers(0, 6))):
            party, _ = self.targets[int(draw.integers(len(self.targets)))]
            socket = (TCP, int(draw.choice(PORTS)))
            if party.name != source.party and not self._true(source, party, socket):
                self._dial(source, party, socket, draw.uniform(source.since, until, 1), direct=1.0)

    def scan(self, source: Source, *, fast: bool) -> None:
        """Many pods and ports, within minutes or all through the day; some answer."""
        draw = self.draw
        until = min(DAY, float(self.cast.end[source.life]) if source.life >= 0 else DAY)
        parties = [
            party
            for party in self.world.parties.values()
            if party.kind in ("pod", "host") and party.name != source.party
        ]
        ports = draw.choice(PORTS, int(draw.integers(4, 16)), replace=False).tolist()
        ports += [int(self.targets[int(at)][1][1]) for at in draw.integers(0, len(self.targets), 4)]
        count = int(draw.integers(60, 300)) if fast else int(draw.integers(25, 90))
        length = draw.uniform(1, 10) * MINUTE if fast else until - source.since
        times = np.sort(source.since + draw.random(count) * min(length, until - source.since))
        for party in parties:
            chosen = times[draw.random(count) < 1 / len(parties)]
            for time in chosen.tolist():
                socket = (TCP, int(draw.choice(ports)))
                if not self._true(source, party, socket):
                    self._dial(source, party, socket, np.array([time]), direct=0.9)

    def _true(self, source: Source, party: Party, socket: Socket) -> bool:
        users = any(
            self.world.parties[edge.consumer].kind == "external"
            for edge in self.world.truth
            if (edge.provider, edge.protocol, edge.port) == (party.name, *socket)
        )
        if source.party == "outside" and users:
            return True
        if source.style == "node" and party.probe == socket:
            return True
        return Edge(source.party, party.name, *socket) in self.world.truth

    def _dial(
        self, source: Source, party: Party, socket: Socket, times: Numbers, *, direct: float
    ) -> None:
        lives = self.cast.alive(party, times)
        lives, times = lives[lives >= 0], times[lives >= 0]
        address = self.cast.address[lives]
        # From outside a Service's address leads nowhere.
        outside = source.style in ("outside", "host")
        dialled, port = self.cast.dialled(party, socket, address, direct=1.0 if outside else direct)
        if socket not in party.workload.listens:
            dialled, port = address, np.full(len(address), socket[1])
        edge = Edge(source.party, party.name, *socket)
        if edge not in self.known:
            self.known[edge] = len(self.edges)
            self.edges.append(edge)
        open_ = socket in party.workload.listens
        self.told.add(
            start=times, length=1.5, consumer=source.address, consumer_life=source.life,
            provider=address, provider_life=lives, protocol=socket[0], port=socket[1],
            dialled=dialled, dialled_port=port, why=ATTACK, edge=self.known[edge],
            tool=1 + int(self.draw.integers(3)),
            outcome=ANSWERED if open_ else REFUSED if self.draw.random() < 0.7 else UNANSWERED,
        )  # fmt: skip
