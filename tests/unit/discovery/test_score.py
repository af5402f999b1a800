"""The scores of discovery: what the truth itself gets, and what too much and too little get."""

from dataclasses import replace

import pytest

from bench.discovery.files import address
from bench.discovery.graph import Edge
from bench.discovery.proposed import ALL
from bench.discovery.score import Scores, score_workspace
from bench.discovery.simulate import Simulation, simulate
from bench.discovery.style import STYLES
from bench.discovery.world import Party
from ringfence.model.address import parse_network
from ringfence.model.ids import PolicyId, WorkspaceName
from ringfence.model.policy import (
    Action,
    CatchAll,
    CidrEnd,
    End,
    FilterEnd,
    OutsideEnd,
    Policy,
    ServiceEnd,
    Workspace,
)
from ringfence.model.protocol import PortRange
from ringfence.model.query import parse
from tests.unit.discovery.test_simulation import shop

ANYONE = CidrEnd((parse_network("0.0.0.0/0"),))


@pytest.fixture(scope="module")
def simulation() -> Simulation:
    return simulate(shop(), 1, STYLES["plain"])


def end(party: Party) -> End:
    if party.kind == "external":
        known = tuple(parse_network(address(one)) for one in party.addresses)
        return OutsideEnd() if party.workload.id == "user" else CidrEnd(known)
    if party.kind == "host":
        names = " or ".join(f'name = "{life.name}"' for life in party.lives)
        return FilterEnd(parse(names))
    within = f'kubernetes.namespace = "{party.namespace}"'
    return FilterEnd(parse(f'{within} and kubernetes.owner.name = "{party.workload.id}"'))


def allow(simulation: Simulation, edge: Edge) -> Policy:
    consumer, provider = (simulation.world.parties[one] for one in (edge.consumer, edge.provider))
    dialled, port = end(provider), edge.port
    if consumer.kind == "external" and provider.front:
        dialled = ServiceEnd(provider.front.namespace, provider.front.name)
        port = provider.front.ports[edge.protocol, edge.port]
    name = f"{edge.consumer}-{edge.provider}-{edge.port}".replace("/", "-")
    ports = (PortRange(port, port),)
    return Policy(PolicyId(name), end(consumer), dialled, edge.protocol, ports, Action.ALLOW)


def workspace(*policies: Policy) -> Workspace:
    closed = CatchAll(Action.DENY, Action.DENY)
    return Workspace(WorkspaceName(ALL), ALL, True, closed, (), policies)


def scored(simulation: Simulation, *policies: Policy) -> Scores:
    return score_workspace(simulation, workspace(*policies))[0]


def ideal(simulation: Simulation) -> list[Policy]:
    return [allow(simulation, edge) for edge in simulation.edges]


def test_the_truth_is_without_fault(simulation: Simulation) -> None:
    scores, notes = score_workspace(simulation, workspace(*ideal(simulation)))
    assert [note for note in notes if "own" not in note] == []
    # Users stand for whoever is outside, an end that the graph counts once.
    assert scores.right == len(simulation.edges)
    assert (scores.found, scores.told) == (scores.wanted, scores.observed)
    assert scores.wanted > 5
    assert (scores.wrong, scores.needless, scores.blocked, scores.intruders) == (0, 0, 0, 0)
    assert scores.policies == scores.truth
    assert scores.serving_blocked > 0


def test_what_is_missing_is_missed(simulation: Simulation) -> None:
    busiest = simulation.edges[int(simulation.seen.argmax())]
    rest = [allow(simulation, edge) for edge in simulation.edges if edge != busiest]
    scores = scored(simulation, *rest)
    assert (scores.found, scores.told) == (scores.wanted - 1, scores.observed - 1)
    assert scores.blocked > 0


def test_review_is_told_but_not_allowed(simulation: Simulation) -> None:
    first, *rest = ideal(simulation)
    seldom = replace(first, review="seen once")
    scores = scored(simulation, seldom, *rest)
    assert scores.told == scores.observed
    assert (scores.reviews, scores.proposals) == (1, len(simulation.edges))
    assert scores.right == len(simulation.edges) - 1


def test_what_is_too_much_is_needless(simulation: Simulation) -> None:
    everything = Policy(PolicyId("any"), ANYONE, ANYONE, None, (), Action.ALLOW)
    scores = scored(simulation, everything)
    assert scores.wrong > 10 * scores.right
    assert scores.needless > 10 * scores.needed
    assert scores.intruders > 5
