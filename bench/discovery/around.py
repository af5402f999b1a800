"""What every cluster's agents see besides the application: its own services, and noise."""

import numpy as np
from numpy.random import Generator

from bench.discovery.style import DAY, HOUR
from bench.discovery.traffic import (
    ANSWERED,
    NOISE,
    ONCE,
    REFUSED,
    SERVING,
    UNANSWERED,
    Cast,
    Conversations,
    by_day,
)
from bench.discovery.world import API_ADDRESS, DNS_ADDRESS, SPAN, Party, World
from ringfence.model.protocol import ICMP, TCP, UDP

UPSTREAM, CLOCK, METADATA = 10 << 24 | 2, 10 << 24 | 3, 0xA9FEA9FE
BROADCAST, MDNS = 0xFFFFFFFF, 0xE00000FB
API_PORT, KUBELET_PORT = 6443, 10250
PROBE_S = 10


def services(world: World, cast: Cast, draw: Generator) -> Conversations:
    """DNS, the API server, kubelets and their probes, time: all of it needed."""
    told = Conversations()
    _dns(told, world, cast, draw)
    _api(told, world, cast, draw)
    _probes(told, world, cast)
    return told


def _dns(told: Conversations, world: World, cast: Cast, draw: Generator) -> None:
    resolver = world.parties["kube-system/coredns"]
    for party in world.pods():
        if party is resolver:
            continue
        times = np.concatenate([by_day(draw, int(draw.integers(20, 90)), day) for day in range(2)])
        theirs, mine = cast.alive(party, times), cast.alive(resolver, times)
        there = (theirs >= 0) & (mine >= 0)
        count = int(there.sum())
        told.add(
            start=times[there], length=0.02, consumer=cast.address[theirs[there]],
            consumer_life=theirs[there], provider=cast.address[mine[there]],
            provider_life=mine[there], protocol=np.where(draw.random(count) < 0.01, TCP, UDP),
            port=53, dialled=DNS_ADDRESS, dialled_port=53, why=SERVING,
        )  # fmt: skip
    times = np.concatenate([by_day(draw, 400, day) for day in range(2)])
    theirs = cast.alive(resolver, times)
    told.add(
        start=times, length=0.05, consumer=cast.address[theirs], consumer_life=theirs,
        provider=UPSTREAM, protocol=UDP, port=53, dialled=UPSTREAM, dialled_port=53, why=SERVING,
    )  # fmt: skip


def _api(told: Conversations, world: World, cast: Cast, draw: Generator) -> None:
    first = cast.numbers[world.nodes[0].name][0]
    server = int(cast.address[first])
    asking = [
        party
        for party in world.pods()
        if party.system or (party.workload.role in ("monitoring", "discovery", "client")
                            and party.workload.kind != "Pod" and draw.random() < 0.25)
    ]  # fmt: skip
    for party in asking:
        times = draw.uniform(0, SPAN, 60)
        theirs = cast.alive(party, times)
        there = theirs >= 0
        told.add(
            start=times[there], length=600.0 if party.system else 2.0,
            consumer=cast.address[theirs[there]], consumer_life=theirs[there], provider=server,
            provider_life=first, protocol=TCP, port=API_PORT, dialled=API_ADDRESS,
            dialled_port=443, why=SERVING,
        )  # fmt: skip
    metrics = world.parties["kube-system/metrics-server"]
    for node in world.nodes:
        life = cast.numbers[node.name][0]
        address = int(cast.address[life])
        minutes = np.arange(30.0, SPAN, 900)
        asker = cast.alive(metrics, minutes)
        there = asker >= 0
        told.add(
            start=minutes[there], consumer=cast.address[asker[there]], consumer_life=asker[there],
            provider=address, provider_life=life, protocol=TCP, port=KUBELET_PORT,
            dialled=address, dialled_port=KUBELET_PORT, why=SERVING,
        )  # fmt: skip
        # The way to the API server is a fail-safe of nodes, and needs no policy.
        hours = np.arange(draw.uniform(0, HOUR), SPAN, 6 * HOUR)
        hours = hours if life != first else hours[:0]
        told.add(
            start=hours, length=6 * HOUR - 1, consumer=address, consumer_life=life,
            provider=server, provider_life=first, protocol=TCP, port=API_PORT, dialled=server,
            dialled_port=API_PORT, why=NOISE,
        )  # fmt: skip
        clock = np.arange(draw.uniform(0, 1024), SPAN, 1024.0)
        told.add(
            start=clock, length=0.05, consumer=address, consumer_life=life, provider=CLOCK,
            protocol=UDP, port=123, dialled=CLOCK, dialled_port=123, why=SERVING,
        )  # fmt: skip


def _probes(told: Conversations, world: World, cast: Cast) -> None:
    """The kubelet's, from the pod's own node, in each slot of time so many."""
    slot = world.style.slot_s
    for party in world.pods():
        if party.probe is None:
            continue
        for life, at in zip(party.lives, cast.numbers[party.name].tolist(), strict=True):
            since, until = max(life.start, 0.0) + 5, min(life.end, SPAN) - 1
            if since >= until:
                continue
            edges = np.arange(since // slot * slot, until, slot)
            starts, ends = np.maximum(edges, since), np.minimum(edges + slot, until)
            node = int(cast.numbers[world.nodes[life.node].name][0])
            told.add(
                start=starts, length=np.maximum(ends - starts - 1, 0.01),
                consumer=cast.address[node], consumer_life=node, provider=life.address,
                provider_life=at, protocol=TCP, port=party.probe[1], dialled=life.address,
                dialled_port=party.probe[1], why=SERVING,
                weight=np.maximum((ends - starts) // PROBE_S, 1),
            )  # fmt: skip


def noise(world: World, cast: Cast, draw: Generator) -> Conversations:
    """What nobody needs a policy for."""
    told = Conversations()
    for node in world.nodes:
        life = int(cast.numbers[node.name][0])
        times = draw.uniform(0, SPAN, 6)
        told.add(
            start=times, consumer=cast.address[life], consumer_life=life, provider=BROADCAST,
            protocol=UDP, port=67, dialled=BROADCAST, dialled_port=67, why=NOISE,
            outcome=UNANSWERED,
        )  # fmt: skip
    pods = [party for party in world.pods() if party.lives and not party.system]
    for party in draw.permutation(np.array(pods, dtype=object))[: max(2, len(pods) // 5)]:
        times = draw.uniform(0, SPAN, int(draw.integers(1, 8)))
        _alone(told, cast, party, times, (UDP, 5353), MDNS, UNANSWERED)
        if draw.random() < 0.5:
            _alone(told, cast, party, times + 1, (TCP, 80), METADATA, ANSWERED)
    _once(told, world, cast, draw, pods)
    return told


def _alone(
    told: Conversations,
    cast: Cast,
    party: Party,
    times: np.ndarray,
    socket: tuple[int, int],
    address: int,
    outcome: int,
) -> None:
    theirs = cast.alive(party, times)
    there = theirs >= 0
    told.add(
        start=times[there], consumer=cast.address[theirs[there]], consumer_life=theirs[there],
        provider=address, protocol=socket[0], port=socket[1], dialled=address,
        dialled_port=socket[1], why=NOISE, outcome=outcome,
    )  # fmt: skip


def _once(
    told: Conversations, world: World, cast: Cast, draw: Generator, pods: list[Party]
) -> None:
    """Somebody looks whether a pod answers, from another pod or a node; and pings it."""
    for _ in range(int(draw.integers(3, 8))):
        mine = pods[int(draw.integers(len(pods)))]
        other = pods[int(draw.integers(len(pods)))]
        time = np.array([draw.uniform(0, DAY)])
        provider = cast.alive(other, time)
        consumer = (
            cast.alive(mine, time)
            if draw.random() < 0.6
            else cast.numbers[world.nodes[int(draw.integers(len(world.nodes)))].name][:1]
        )
        if mine is other or provider[0] < 0 or consumer[0] < 0:
            continue
        socket = other.workload.listens[0] if other.workload.listens else (TCP, 8080)
        ping = draw.random() < 0.2
        protocol, port = (ICMP, 8 << 8) if ping else socket
        dialled, dialled_port = cast.dialled(other, socket, cast.address[provider])
        told.add(
            start=time, consumer=cast.address[consumer], consumer_life=consumer,
            provider=cast.address[provider], provider_life=provider, protocol=protocol, port=port,
            dialled=cast.address[provider] if ping else dialled,
            dialled_port=port if ping else dialled_port, why=ONCE, tool=1,
            outcome=ANSWERED if ping or other.workload.listens else REFUSED,
        )  # fmt: skip
