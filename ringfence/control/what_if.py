"""What enforcing a version would block of the traffic that passes now, and the least to add."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ringfence.control.analysis import History, Judged, judge
from ringfence.control.judged import JudgedBy
from ringfence.discovery.edges import Edge, Peer, edges
from ringfence.discovery.least import LeastPolicies
from ringfence.flows.connections import Records, ServiceSockets
from ringfence.inventory.timeline import Timeline
from ringfence.model.ids import RevisionId, Version
from ringfence.model.policy import Action, Policy, Workspace
from ringfence.model.verdict import Decision
from ringfence.model.workload import Item

MOST_BLOCKED = 1000
"""Edges that are told of; who has more needs another version first."""

Denials = tuple[Decision, ...]
_Key = tuple[Peer, Peer, Peer | None, int, int]


@dataclass(frozen=True, slots=True)
class Blocked:
    """An edge that passes now and would be denied, and the policy that lets it pass.

    `still_denied_by` are the rules that deny it even where all the policies proposed are added.
    """

    edge: Edge
    denied_by: Denials
    policy: Policy
    still_denied_by: Denials


@dataclass(frozen=True, slots=True)
class WhatIf:
    """What would be blocked, in an order that stays; `untold` edges more are not told of."""

    blocked: tuple[Blocked, ...]
    untold: int
    conversations: int
    """Of all that would be blocked."""
    workloads: int
    """Of the scope, that have one."""


async def what_if(
    passing: Records,
    history: History,
    until_ns: int,
    judged_by: JudgedBy,
    made: tuple[Workspace, Version],
) -> WhatIf:
    """Judge connections that pass by the enforced set with `made`, one of its versions, in it."""
    workspace, _ = made
    judged = await judge(passing, history, until_ns, judged_by, workspace.name)
    kept = judged.in_view & ~judged.allowed
    blocked, denied = passing.take(kept), _denials(judged, np.flatnonzero(kept).tolist())
    snapshot = history.timeline.latest()
    members = judged_by.within(snapshot, workspace.name)
    sockets = ServiceSockets(snapshot)

    def found(rows: Sequence[int]) -> list[Edge]:
        return edges(blocked.take(np.array(rows, np.intp)), _items(history.timeline), sockets)

    def propose() -> tuple[list[Edge], LeastPolicies, dict[_Key, Policy]]:
        least = LeastPolicies(snapshot, workspace, members)
        every = sorted(found(range(len(blocked))), key=_by_weight)
        return every, least, {_key(edge): least.of(edge) for edge in every[:MOST_BLOCKED]}

    every, least, policies = await asyncio.to_thread(propose)
    added = replace(workspace, policies=(*workspace.policies, *_distinct(policies.values())))
    others = (one for one in judged_by.workspaces if one[0].name != workspace.name)
    amended = replace(judged_by, workspaces=(*others, (added, made[1])))
    after = await judge(blocked, history, until_ns, amended, workspace.name)
    still = _denials(after, range(len(blocked)))
    groups: dict[tuple[Denials, Denials], list[int]] = {}
    for row, pair in enumerate(zip(denied, still, strict=True)):
        groups.setdefault(pair, []).append(row)

    def tell() -> list[Blocked]:
        return [
            Blocked(edge, before, policies[_key(edge)], then)
            for (before, then), rows in groups.items()
            for edge in found(rows)
            if _key(edge) in policies
        ]

    told = await asyncio.to_thread(tell)
    ends = {peer for edge in every for peer in (edge.consumer, edge.provider, edge.backend)}
    return WhatIf(
        tuple(sorted(told, key=lambda one: repr(_key(one.edge)))),
        len(every) - len(policies),
        sum(edge.connections for edge in every),
        sum(peer in least for peer in ends),
    )


def _distinct(policies: Iterable[Policy]) -> list[Policy]:
    return list({policy.id: policy for policy in policies}.values())


def _denials(judged: Judged, rows: Iterable[int]) -> list[Denials]:
    """The rules that deny each of these connections, none where it is allowed."""
    return [
        tuple(
            dict.fromkeys(one for one in judged.deciding[row].values() if one.action is Action.DENY)
        )
        for row in rows
    ]


def _items(timeline: Timeline) -> Callable[[int], Item | None]:
    return lambda revision: timeline.revision(RevisionId(revision))[0] if revision else None


def _key(edge: Edge) -> _Key:
    """What makes an edge the same, however often and when it was seen."""
    return edge.consumer, edge.provider, edge.backend, edge.protocol, edge.port


def _by_weight(edge: Edge) -> tuple[object, ...]:
    return -edge.connections, *map(repr, _key(edge))
