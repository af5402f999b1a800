"""What is told of reach is what the evaluator says of each connection."""

from dataclasses import replace
from itertools import product

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ringfence.inventory.snapshot import NOWHERE
from ringfence.model.address import Address, is_v4
from ringfence.model.protocol import ICMP, TCP, UDP
from ringfence.policy.connection import Connection, tabulate
from ringfence.policy.evaluate import evaluate
from ringfence.policy.reach import Reach, Survey
from ringfence.policy.reachable import cells_by_peer, gained
from tests.property.policy_world import OUTSIDE, World, enforced, worlds

DESTINATIONS = [(TCP, 80), (TCP, 8079), (TCP, 65535), (UDP, 443), (ICMP, 0), (99, 0)]
FEWER = settings(max_examples=settings().max_examples // 4 or 1)
"""For each world is tried with all its pairs."""
Peer = int | Address
"""The position of a workload, or an address outside."""


class Told:
    """What is told of each peer, from its own side as a consumer and as a provider."""

    def __init__(self, reach: Reach) -> None:
        self._survey = reach.survey
        self._by_workload = {
            (at, consumer): cells_by_peer(reach, at, consumer=consumer)
            for at in reach.survey.snapshot.subjects
            for consumer in (True, False)
        }

    def allowed(self, consumer: Peer, provider: Peer, cell: int) -> set[bool]:
        """As told of each end that is a workload; one answer if they agree."""
        sides = (consumer, provider, True), (provider, consumer, False)
        return {
            self._says(mine, peer, cell, consumes)
            for mine, peer, consumes in sides
            if isinstance(mine, int)
        }

    def _says(self, mine: int, peer: Peer, cell: int, consumer: bool) -> bool:
        workloads, outside = self._by_workload[mine, consumer]
        row = workloads[peer] if isinstance(peer, int) else outside[self._end(peer)]
        return bool(row[cell // 8] >> (7 - cell % 8) & 1)

    def _end(self, address: Address) -> int:
        number = int.from_bytes(address)
        outside = self._survey.ends[self._survey.inside :]
        spans = [any(first <= number <= last for first, last in end.ranges) for end in outside]
        return spans.index(True)


def held_by(world: World, at: int) -> tuple[Address, ...]:
    addresses = world.snapshot.items[at].addresses
    return tuple(
        one for one in addresses if world.snapshot.at(one, world.snapshot.items[at].cluster) == at
    )


@FEWER
@given(worlds())
def test_reach_agrees_with_the_evaluator(world: World) -> None:
    policy_set = world.policy_set()
    reach = Survey([policy_set]).judge(0)
    cells = {
        (protocol, port): at
        for at, cell in enumerate(reach.survey.cells)
        for protocol, port in DESTINATIONS
        if cell.first <= port <= cell.last
        and cell.protocol == (reach.survey.other_protocol if protocol == 99 else protocol)
    }
    peers: list[tuple[Peer, tuple[Address, ...]]] = [
        *((at, held_by(world, at)) for at in world.snapshot.subjects),
        *((address, (address,)) for address in OUTSIDE),
    ]
    asked, meant = [], []
    for (consumer, mine), (provider, its) in product(peers, peers):
        if not (isinstance(consumer, int) or isinstance(provider, int)):
            continue
        for (protocol, port), one, other in product(DESTINATIONS, mine, its):
            if is_v4(one) == is_v4(other):
                asked.append(Connection(protocol, one, other, port, other, port))
                meant.append((consumer, provider, cells[protocol, port]))
    ends = [[one if isinstance(one, int) else NOWHERE for one in told[:2]] for told in meant]
    consumers, providers = np.array(ends, dtype=np.int32).T
    columns = tabulate(world.snapshot, asked)
    # Of two that share an address each is meant in turn, wherever it is seen from.
    shared = np.array(
        [
            [len(world.snapshot.each_holder(end)) > 1 for end in (one.consumer, one.provider)]
            for one in asked
        ]
    )
    located = np.stack([columns.consumer_item, columns.provider_item], axis=1)
    assert (shared | (located == np.array(ends))).all()
    columns = replace(columns, consumer_item=consumers, provider_item=providers)
    verdicts = evaluate(policy_set, columns).allowed
    expected: dict[tuple[Peer, Peer, int], bool] = {}
    for key, verdict in zip(meant, verdicts.tolist(), strict=True):
        expected[key] = expected.get(key, False) or verdict
    told = Told(reach)
    for (consumer, provider, cell), verdict in expected.items():
        if consumer != provider:
            assert told.allowed(consumer, provider, cell) == {verdict}


@FEWER
@given(worlds(), st.data())
def test_nothing_is_gained_exactly_where_nothing_more_is_allowed(
    world: World, data: st.DataObject
) -> None:
    layers = [world.policy_set(), world.policy_set(data.draw(enforced(world.tree)))]
    survey = Survey(layers)
    old, new = survey.judge(0), survey.judge(1)
    assert not gained(old, old)
    more = new.allowed & ~old.allowed
    alone = [at for at, end in enumerate(survey.ends) if len(end.workloads) == 1]
    more[alone, alone] = 0
    own = any(
        np.any(new.own.get(pair, new.allowed[pair]) & ~old.own.get(pair, old.allowed[pair]))
        for pair in {*old.own, *new.own}
    )
    assert bool(gained(old, new)) == bool(more.any() or own)
