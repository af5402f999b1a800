"""What enforcing a version would block of the traffic that passes now, and the least to add."""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ringfence.control.analysis import History, judge
from ringfence.control.deciding import NOBODY, Deciding
from ringfence.control.judged import JudgedBy
from ringfence.discovery.edges import Edge, Peer, edges
from ringfence.discovery.least import LeastPolicies
from ringfence.flows.connections import Records, ServiceSockets
from ringfence.inventory.timeline import Timeline
from ringfence.model.ids import RevisionId, Version
from ringfence.model.policy import Action, Policy, Workspace
from ringfence.model.verdict import Decision, EndRole
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
    blocked = passing.take(kept)
    snapshot = history.timeline.latest()
    members = judged_by.within(snapshot, workspace.name)
    sockets = ServiceSockets(snapshot)

    def found(rows: NDArray[np.intp]) -> list[Edge]:
        return edges(blocked.take(rows), _items(history.timeline), sockets)

    def propose() -> tuple[list[Edge], LeastPolicies, dict[_Key, Policy]]:
        least = LeastPolicies(snapshot, workspace, members)
        every = sorted(found(np.arange(len(blocked))), key=_by_weight)
        return every, least, {_key(edge): least.of(edge) for edge in every[:MOST_BLOCKED]}

    every, least, policies = await asyncio.to_thread(propose)
    added = replace(workspace, policies=(*workspace.policies, *_distinct(policies.values())))
    others = (one for one in judged_by.workspaces if one[0].name != workspace.name)
    amended = replace(judged_by, workspaces=(*others, (added, made[1])))
    after = await judge(blocked, history, until_ns, amended, workspace.name)

    def tell() -> list[Blocked]:
        before, denied = _denials(judged.deciding, np.flatnonzero(kept))
        then, still = _denials(after.deciding, np.arange(len(blocked)))
        groups, which = np.unique(np.stack([denied, still], axis=1), axis=0, return_inverse=True)
        return [
            Blocked(edge, before[first], policies[_key(edge)], then[last])
            for number, (first, last) in enumerate(groups.tolist())
            for edge in found(np.flatnonzero(which.reshape(-1) == number))
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


def _denials(deciding: Deciding, rows: NDArray[np.intp]) -> tuple[list[Denials], NDArray[np.intp]]:
    """The distinct sets of rules that deny, none where all is allowed, and which each row has."""
    numbers = np.stack([deciding.numbers[role][rows] for role in EndRole], axis=1)
    decided, which = np.unique(numbers, axis=0, return_inverse=True)
    known: dict[Denials, int] = {}
    codes = []
    for some in decided.tolist():
        rules = [deciding.rules[at] for at in some if at != NOBODY]
        denies = tuple(dict.fromkeys(one for one in rules if one.action is Action.DENY))
        codes.append(known.setdefault(denies, len(known)))
    return list(known), np.array(codes, np.intp)[which.reshape(-1)]


def _items(timeline: Timeline) -> Callable[[int], Item | None]:
    return lambda revision: timeline.revision(RevisionId(revision))[0] if revision else None


def _key(edge: Edge) -> _Key:
    """What makes an edge the same, however often and when it was seen."""
    return edge.consumer, edge.provider, edge.backend, edge.protocol, edge.port


def _by_weight(edge: Edge) -> tuple[object, ...]:
    return -edge.connections, *map(repr, _key(edge))
