"""The kernel's own rules at the ends of explained connections, asked of their nodes' agents."""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ringfence.control.agents import NodeKey
from ringfence.control.inspections import Inspections
from ringfence.wire.generated.agent_pb2 import Inspected, KernelRule, MetElement, Probe

_MOST_ASKED = 20
"""Namespaces that are looked at for one question: a Service may have a thousand backends."""


@dataclass(frozen=True)
class Asked:
    """A connection as it comes to one namespace: `uid` is the pod's, empty for the node's own."""

    node: NodeKey
    uid: str
    probe: Probe


@dataclass(frozen=True)
class LiveRule:
    """A rule of the kernel that judges, and the elements of its sets that hold the connection."""

    rule: KernelRule
    elements: tuple[MetElement, ...]


@dataclass(frozen=True)
class Judging:
    """The rules that judge one connection in one namespace, in order, the last one in the end.

    `problem` is why they are not known, empty if they are: then none means that it passes, for no
    rule speaks of it.
    """

    rules: tuple[LiveRule, ...] = ()
    problem: str = ""


async def judging(inspections: Inspections, asked: Sequence[Asked | None]) -> list[Judging | None]:
    """What judges each connection, None for those that nothing is to be asked of."""
    places = list(dict.fromkeys((one.node, one.uid) for one in asked if one))
    probes = {
        place: [one.probe for one in asked if one and (one.node, one.uid) == place]
        for place in places
    }
    answers = await asyncio.gather(
        *(inspections.ask(*place, probes[place]) for place in places[:_MOST_ASKED])
    )
    told = {
        place: _told(answer, len(probes[place]))
        for place, answer in zip(places, answers, strict=False)
    }
    skipped = Judging(problem=f"no more than {_MOST_ASKED} places are asked at a time")
    return [
        next(told.get((one.node, one.uid), iter(())), skipped) if one else None for one in asked
    ]


def _told(answer: Inspected, count: int) -> Iterator[Judging]:
    """One for each probe of a place, in order."""
    if answer.problem or len(answer.met) != count:
        return iter([Judging(problem=answer.problem or "the agent's answer lacks some")] * count)
    rules = {rule.handle: rule for rule in answer.rules}
    return iter(
        [
            Judging(
                tuple(
                    LiveRule(rules[one.handle], tuple(one.elements))
                    for one in met.rules
                    if one.handle in rules
                ),
                met.problem,
            )
            for met in answer.met
        ]
    )
