"""A graph and a seed become two days: what is written down of the first, and the truth of both."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import Generator

from bench.discovery.around import noise, services
from bench.discovery.attacks import Attacks, attacks
from bench.discovery.graph import Edge, Graph
from bench.discovery.style import DAY, Style
from bench.discovery.traffic import (
    ANSWERED,
    ATTACK,
    COLUMNS,
    REFUSED,
    TRUE,
    Cast,
    Conversations,
    Numbers,
    application,
    failures,
)
from bench.discovery.world import World, build
from ringfence.model.protocol import TCP

EPHEMERAL = 32_768, 60_999
"""Linux's range of ports of clients."""


@dataclass(frozen=True)
class Simulation:
    world: World
    edges: list[Edge]
    """The true ones, by number."""
    seen: Numbers
    """Of each true edge its conversations that are in the rows of the first day."""
    slots: Numbers
    """In how many slots of time of five minutes."""
    met: set[int]
    """The lives, by position, of which a true conversation is in the rows of the first day."""
    attacks: Attacks
    rows: dict[str, Numbers]
    """Of the first day: what agents tell."""
    told: dict[str, Numbers]
    """Every conversation of both days, as `traffic.COLUMNS`."""


def simulate(graph: Graph, seed: int, style: Style) -> Simulation:
    draw = np.random.default_rng([seed, *graph.name.encode()])
    world = build(graph, style, draw)
    cast = Cast(world, draw)
    edges = sorted(world.truth)
    hostile = attacks(world, cast, draw)
    whole = Conversations()
    for part in (
        application(world, edges, cast, draw),
        failures(world, edges, cast, draw),
        services(world, cast, draw),
        noise(world, cast, draw),
        hostile.told,
    ):
        whole.parts += part.parts
    told = whole.columns()
    seen, numbers = _observed(told, world, draw)
    true = (seen["why"] == TRUE) & ~seen["turned"]
    counted = [
        _distinct_by(seen["edge"][true], values[true], len(edges))
        for values in (numbers, seen["slot"] * world.style.slot_s // 300)
    ]
    met = {*seen["consumer_life"][true].tolist(), *seen["provider_life"][true].tolist()}
    return Simulation(world, edges, *counted, met, hostile, _rows(seen, draw), told)


def _observed(
    told: dict[str, Numbers], world: World, draw: Generator
) -> tuple[dict[str, Any], Numbers]:
    """Conversations cut into slots of time, less what agents lost; and which each part is of."""
    style = world.style
    end = told["start"] + told["length"]
    inside = np.flatnonzero((end > 0) & (told["start"] < DAY))
    start, end = np.maximum(told["start"][inside], 0.0), np.minimum(end[inside], DAY - 0.001)
    first = (start // style.slot_s).astype(np.int64)
    last = (end // style.slot_s).astype(np.int64)
    count = np.maximum(last - first, 0) + 1
    which = np.repeat(np.arange(len(inside)), count)
    step = np.arange(len(which)) - np.repeat(np.cumsum(count) - count, count)
    slot = first[which] + step
    parts: dict[str, Any] = {name: told[name][inside][which] for name in COLUMNS}
    parts["slot"] = slot
    parts["from"] = np.maximum(start[which], slot * style.slot_s)
    parts["to"] = np.maximum(
        np.minimum(end[which], (slot + 1) * style.slot_s - 0.001), parts["from"]
    )
    opens = (step == 0) & (told["start"][inside][which] >= 0)
    lost = draw.random(len(which)) < style.missing_syn
    parts["opened"] = opens & ~(lost & (parts["outcome"] == ANSWERED))
    # Long connections are quiet for most of the time: not every slot sees a packet of theirs.
    quiet = (step > 0) & (draw.random(len(which)) < 0.5)
    kept = ~quiet & ~_lost(parts, world, draw)
    parts["turned"] = (
        ~parts["opened"]
        & (parts["outcome"] == ANSWERED)
        & (parts["protocol"] == TCP)
        & (parts["why"] != ATTACK)
        & (draw.random(len(which)) < style.turned)
    )
    return {name: values[kept] for name, values in parts.items()}, inside[which][kept]


def _lost(parts: dict[str, Any], world: World, draw: Generator) -> Numbers:
    """Batches of a node and slot that never came, and rows that sampling left out."""
    style = world.style
    nodes = np.array([life.node for life in world.by_life] + [-1])
    told_by = nodes[parts["consumer_life"]]
    told_by = np.where(told_by < 0, nodes[parts["provider_life"]], told_by) + 1
    slots = DAY // style.slot_s
    gone = draw.random((len(world.nodes) + 1, slots)) < style.lost_batches
    sampled = draw.random(len(told_by)) < style.lost_rows
    return np.asarray(gone[told_by, parts["slot"]] | sampled)


def _distinct_by(group: Numbers, value: Numbers, count: int) -> Numbers:
    pairs = np.unique(np.stack([group, value]), axis=1) if len(group) else np.zeros((2, 0), int)
    return np.bincount(pairs[0].astype(np.int64), minlength=count)


def _rows(seen: dict[str, Any], draw: Generator) -> dict[str, Numbers]:
    """One row for each two ends, protocol, port and slot."""
    turned = seen["turned"]
    client = draw.integers(*EPHEMERAL, len(turned))
    key = {
        "consumer": np.where(turned, seen["provider"], seen["consumer"]),
        "provider": np.where(turned, seen["consumer"], seen["provider"]),
        "protocol": seen["protocol"],
        "port": np.where(turned, client, seen["port"]),
        "dialled": np.where(turned, seen["consumer"], seen["dialled"]),
        "dialled_port": np.where(turned, client, seen["dialled_port"]),
        "slot": seen["slot"],
        "consumer_life": np.where(turned, seen["provider_life"], seen["consumer_life"]),
        "provider_life": np.where(turned, seen["consumer_life"], seen["provider_life"]),
    }
    order = np.lexsort(tuple(key.values()))
    sorted_ = {name: values[order] for name, values in key.items()}
    begins = np.ones(len(order), dtype=bool)
    if len(order):
        begins[1:] = np.logical_or.reduce(
            [values[1:] != values[:-1] for values in sorted_.values()]
        )
    at = np.flatnonzero(begins)

    def add(values: Numbers) -> Numbers:
        return np.add.reduceat(values[order].astype(np.int64), at)

    weight, outcome, opened = seen["weight"], seen["outcome"], seen["opened"]
    answered = outcome == ANSWERED
    rows = {name: values[at] for name, values in sorted_.items()}
    rows |= {
        "first": np.minimum.reduceat(seen["from"][order], at),
        "last": np.maximum.reduceat(seen["to"][order], at),
        "opened": add(weight * opened),
        "answered": add(weight * (opened & answered)),
        "refused": add(weight * (opened & (outcome == REFUSED))),
        "forward_packets": add(weight * np.where(answered, 6, np.where(outcome == REFUSED, 1, 3))),
        "reverse_packets": add(weight * np.select([answered, outcome == REFUSED], [5, 1], 0)),
        "tool": seen["tool"][order][at],
        "turned": turned[order][at].astype(np.int64),
        "no_syn": (add(weight * opened) == 0).astype(np.int64),
    }
    return rows
