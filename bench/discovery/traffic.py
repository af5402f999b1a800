"""The application's own conversations, as columns: each edge at its own rate, by day and night."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from bench.discovery.graph import Edge, Socket
from bench.discovery.style import DAY, HOUR, Style
from bench.discovery.world import SPAN, Life, Party, World
from ringfence.model.protocol import UDP

ANSWERED, REFUSED, UNANSWERED = 0, 1, 2
TRUE, SERVING, NOISE, ATTACK, ONCE = range(5)
"""Why there is a conversation: the graph, the cluster's own services, noise, somebody hostile, or
somebody who looked once."""
_MOST = 6000
"""Conversations of an edge a day, so that a graph takes seconds."""
Numbers = NDArray[Any]

COLUMNS = {
    "start": "f8",
    "length": "f8",
    "consumer": "i8",  # addresses as numbers
    "provider": "i8",
    "protocol": "i8",
    "port": "i8",
    "dialled": "i8",
    "dialled_port": "i8",
    "consumer_life": "i8",  # positions in World.by_life, -1 where nobody's
    "provider_life": "i8",
    "outcome": "i8",
    "why": "i8",
    "edge": "i8",  # which of the true edges, or of the attacks; else -1
    "weight": "i8",  # how many such connections
    "tool": "i8",  # of the consumer's processes, 0 the usual one
}


@dataclass
class Conversations:
    """n conversations, a column each."""

    parts: list[dict[str, Numbers]] = field(default_factory=list)

    def add(self, **given: Any) -> None:
        count = len(given["start"])
        whole: dict[str, Any] = {
            "length": 1.0, "outcome": ANSWERED, "edge": -1, "weight": 1, "tool": 0,
            "consumer_life": -1, "provider_life": -1,
        } | given  # fmt: skip
        self.parts.append(
            {
                name: np.broadcast_to(np.asarray(whole[name], dtype=kind), count)
                for name, kind in COLUMNS.items()
            }
        )

    def columns(self) -> dict[str, Numbers]:
        return {name: np.concatenate([one[name] for one in self.parts]) for name in COLUMNS}


class Cast:
    """Who of a party is alive at a time."""

    def __init__(self, world: World, draw: Generator) -> None:
        self.world, self.draw = world, draw
        number = {id(life): at for at, life in enumerate(world.by_life)}
        self.numbers = {
            name: np.array([number[id(life)] for life in party.lives], dtype=np.int64)
            for name, party in world.parties.items()
        }
        self.address = np.array([life.address for life in world.by_life], dtype=np.int64)
        self.start = np.array([life.start for life in world.by_life])
        self.end = np.array([life.end for life in world.by_life])

    def alive(self, party: Party, times: Numbers) -> Numbers:
        """Some life of the party at each time, -1 where there is none."""
        starts, ends = party.spans()
        if not len(starts):
            return np.full(len(times), -1)
        at = times[:, None]
        # A pod takes a few seconds until it serves.
        there = (starts + 3 <= at) & (at < ends - 1)
        score = np.where(there, self.draw.random(there.shape), -1.0)
        best = score.argmax(axis=1)
        return np.where(there.any(axis=1), self.numbers[party.name][best], -1)

    def holder(self, address: int, times: Numbers) -> Numbers:
        """The life that has the address at each time, -1 where none does."""
        found = np.full(len(times), -1)
        for at in np.flatnonzero(self.address == address).tolist():
            found[(self.start[at] <= times) & (times < self.end[at])] = at
        return found

    def dialled(
        self, party: Party, socket: Socket, provider: Numbers, *, direct: float = 0.0
    ) -> tuple[Numbers, Numbers]:
        """What is dialled to reach addresses of a party: its Service, but for a share directly."""
        port = np.full(len(provider), socket[1])
        front = party.front
        if front is None or not front.address:
            return provider, port
        straight = self.draw.random(len(provider)) < direct
        return (
            np.where(straight, provider, front.address),
            np.where(straight, port, front.ports.get(socket, socket[1])),
        )


def by_day(draw: Generator, count: int, day: int) -> Numbers:
    """Times of a day, more about noon than at night."""
    grid = np.linspace(0, DAY, 97)
    rate = 1.0 + 0.75 * np.sin(2 * np.pi * (grid / HOUR - 8.5) / 24)
    total = np.concatenate([[0], np.cumsum((rate[1:] + rate[:-1]) / 2)])
    return day * DAY + np.interp(draw.random(count), total / total[-1], grid)


def application(world: World, edges: list[Edge], cast: Cast, draw: Generator) -> Conversations:
    """All that the graph has."""
    told, style = Conversations(), world.style
    rare = _rare(edges, style.rare, draw)
    for number, edge in enumerate(edges):
        consumer, provider = world.parties[edge.consumer], world.parties[edge.provider]
        socket = edge.protocol, edge.port
        kept = provider.workload.role in ("database", "cache", "broker") and edge.protocol != UDP
        kept &= number not in rare and consumer.kind != "external" and not consumer.scheduled
        kept &= edge not in world.given
        if kept and draw.random() < style.pooled:
            told.parts += _pool(cast, consumer, provider, socket, number).parts
            continue
        times = _times(consumer, number, rare, style, draw)
        if edge in world.given:
            told.parts += _passive(cast, edge, number).parts
        told.parts += _converse(cast, consumer, provider, socket, times, number).parts
    return told


def _passive(cast: Cast, edge: Edge, number: int) -> Conversations:
    """Transfers of a minute, each on a port of its own, at the provider's own address."""
    draw, ports = np.random.default_rng(number), cast.world.given[edge]
    consumer, provider = cast.world.parties[edge.consumer], cast.world.parties[edge.provider]
    count = int(draw.integers(12, 80))
    times = np.concatenate([by_day(draw, count, day) for day in range(2)])
    theirs, mine = cast.alive(consumer, times), cast.alive(provider, times)
    there = (theirs >= 0) & (mine >= 0)
    port = draw.choice(np.array(ports), len(times))[there]
    told, address = Conversations(), cast.address[mine[there]]
    told.add(
        start=times[there], length=60.0, consumer=cast.address[theirs[there]],
        consumer_life=theirs[there], provider=address, provider_life=mine[there],
        protocol=edge.protocol, port=port, dialled=address, dialled_port=port, why=TRUE,
        edge=number,
    )  # fmt: skip
    return told


def _rare(edges: list[Edge], share: float, draw: Generator) -> dict[int, bool]:
    """Which edges are seldom used, and whether at first only in the window's last fifth."""
    count = max(1, round(share * len(edges) + 0.49))
    chosen = draw.choice(len(edges), min(count, len(edges)), replace=False)
    return {int(at): bool(draw.random() < 0.35) for at in chosen}


def _times(
    consumer: Party,
    number: int,
    rare: dict[int, bool],
    style: Style,
    draw: Generator,
) -> Numbers:
    """When the edge is used, in both days."""
    if number in rare:
        first = 0.8 * DAY if rare[number] else 0.0
        days = [
            draw.uniform(since, until, int(draw.integers(1, 6)))
            for since, until in ((first, DAY), (DAY, SPAN))
        ]
    else:
        rate = min(float(draw.lognormal(np.log(style.median), style.spread)), _MOST)
        rate = max(rate, 6.0)
        days = [by_day(draw, int(draw.poisson(rate)), day) for day in range(2)]
    times = np.concatenate(days)
    if consumer.scheduled and len(times):
        # What a job does it does while it runs.
        lives = [life for life in consumer.lives if life.end > 0 and life.start < SPAN - 60]
        if rare.get(number):
            lives = [life for life in lives if life.start > 0.8 * DAY] or lives
        chosen = draw.integers(0, len(lives), len(times))
        starts, ends = (np.array([getattr(one, at) for one in lives]) for at in ("start", "end"))
        times = starts[chosen] + 4 + draw.random(len(times)) * (ends - starts - 6)[chosen]
        times = times[(times >= 0) & (times < SPAN)]
    return times


def _converse(
    cast: Cast, consumer: Party, provider: Party, socket: Socket, times: Numbers, number: int
) -> Conversations:
    draw, count, told = cast.draw, len(times), Conversations()
    theirs, mine = _end(cast, consumer, times), _provider(cast, provider, times)
    # A host is in no Kubernetes cluster, and knows no Service addresses.
    straight = 1.0 if consumer.kind == "host" else 0.0
    dialled, dialled_port = cast.dialled(provider, socket, mine[1], direct=straight)
    if consumer.kind == "external":
        dialled, dialled_port = _from_outside(cast, provider, socket, dialled, dialled_port)
    there = (theirs[1] > 0) & (mine[1] > 0)
    columns: dict[str, Numbers] = {
        "start": times,
        "length": draw.exponential(8.0, count) + 0.01,
        "consumer": theirs[1],
        "consumer_life": theirs[0],
        "provider": mine[1],
        "provider_life": mine[0],
        "dialled": dialled,
        "dialled_port": dialled_port,
        "outcome": np.where(draw.random(count) < 0.002, REFUSED, ANSWERED) if count > 50 else 0,
    }
    chosen = {name: np.broadcast_to(one, count)[there] for name, one in columns.items()}
    told.add(**chosen, protocol=socket[0], port=socket[1], why=TRUE, edge=number)
    return told


def _end(cast: Cast, party: Party, times: Numbers) -> tuple[Numbers, Numbers]:
    if party.kind == "external":  # people, hardly ever twice from one address
        some = (24 << 24) + cast.draw.integers(0, 20 << 24, max(3, len(times) // 2 + 1))
        return np.full(len(times), -1), some[cast.draw.integers(0, len(some), len(times))]
    lives = cast.alive(party, times)
    return lives, np.where(lives >= 0, cast.address[lives], 0)


def _provider(cast: Cast, party: Party, times: Numbers) -> tuple[Numbers, Numbers]:
    if party.kind == "external":
        known = np.array(party.addresses)
        return np.full(len(times), -1), known[cast.draw.integers(0, len(known), len(times))]
    lives = cast.alive(party, times)
    return lives, np.where(lives >= 0, cast.address[lives], 0)


def _from_outside(
    cast: Cast, provider: Party, socket: Socket, dialled: Numbers, port: Numbers
) -> tuple[Numbers, Numbers]:
    """People come by a node's port or by the load balancer."""
    front = provider.front
    if front is None or socket not in front.node_ports:
        return dialled, port
    if front.balancer:
        return np.full(len(dialled), front.balancer), np.full(len(port), front.ports[socket])
    nodes = np.array([one.lives[0].address for one in cast.world.nodes])
    chosen = nodes[cast.draw.integers(0, len(nodes), len(dialled))]
    return chosen, np.full(len(port), front.node_ports[socket])


def _pool(
    cast: Cast, consumer: Party, provider: Party, socket: Socket, number: int
) -> Conversations:
    """Connections that are kept for hours, opened when a pod starts."""
    draw, told = cast.draw, Conversations()
    starts, lengths, lives = [], [], []
    for life, at in zip(consumer.lives, cast.numbers[consumer.name].tolist(), strict=True):
        for _ in range(int(draw.integers(1, 4))):
            since = max(life.start, -DAY) + draw.uniform(3, 30)
            while since < min(life.end, SPAN):
                length = float(draw.lognormal(np.log(4 * HOUR), 0.8))
                starts.append(since)
                lengths.append(min(length, life.end - since - 1, SPAN - since))
                lives.append(at)
                since += length + draw.uniform(1, 20)
    times, length, theirs = np.array(starts), np.array(lengths), np.array(lives)
    mine, address = _provider(cast, provider, times)
    if provider.kind != "external":
        length = np.minimum(length, np.where(mine >= 0, cast.end[mine] - times - 1, length))
    straight = 1.0 if consumer.kind == "host" else 0.0
    dialled, dialled_port = cast.dialled(provider, socket, address, direct=straight)
    there = (address > 0) & (length > 0) & (times + length > 0)
    told.add(
        start=times[there], length=length[there], consumer=cast.address[theirs[there]],
        consumer_life=theirs[there], provider=address[there], provider_life=mine[there],
        dialled=dialled[there], dialled_port=dialled_port[there], protocol=socket[0],
        port=socket[1], why=TRUE, edge=number,
    )  # fmt: skip
    return told


def failures(world: World, edges: list[Edge], cast: Cast, draw: Generator) -> Conversations:
    """Retries to pods that are gone, and connections that come before a pod listens."""
    told = Conversations()
    for edge in edges:
        consumer, provider = world.parties[edge.consumer], world.parties[edge.provider]
        if consumer.kind == "external":
            continue
        for life, at in zip(provider.lives, cast.numbers.get(provider.name, ()), strict=False):
            for gone, when in ((True, life.end), (False, life.start)):
                if 0 < when < SPAN and draw.random() < 0.35:
                    _fail(told, cast, (consumer, provider), edge, (life, int(at), when, gone))
    return told


def _fail(
    told: Conversations,
    cast: Cast,
    ends: tuple[Party, Party],
    edge: Edge,
    what: tuple[Life, int, float, bool],
) -> None:
    draw, (consumer, provider) = cast.draw, ends
    life, at, when, gone = what
    count = int(draw.integers(1, 6))
    times = when + draw.uniform(1, 300, count) if gone else when + draw.uniform(0, 3, count)
    theirs = cast.alive(consumer, times)
    address = np.full(count, life.address)
    dialled, port = cast.dialled(provider, (edge.protocol, edge.port), address)
    # The address may be another's by now, who refuses.
    holder = cast.holder(life.address, times) if gone else np.full(count, at)
    there = theirs >= 0
    told.add(
        start=times[there], consumer=cast.address[theirs[there]], consumer_life=theirs[there],
        provider=address[there], provider_life=holder[there], dialled=dialled[there],
        dialled_port=port[there], protocol=edge.protocol, port=edge.port, why=NOISE,
        outcome=np.where(holder < 0, UNANSWERED, REFUSED)[there],
    )  # fmt: skip
