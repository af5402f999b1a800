"""What enforcing a version would block of the traffic that passes now, and the least to add."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from ringfence.control.analysis import History, judge
from ringfence.control.deciding import NOBODY, Deciding
from ringfence.control.discover import past, peers_of
from ringfence.control.judged import JudgedBy
from ringfence.discovery.behaviour import Numbers, distinct
from ringfence.discovery.decide import decide
from ringfence.discovery.drafts import Draft, Drafting
from ringfence.discovery.ends import Ends, NamedEnd
from ringfence.discovery.facts import Facts
from ringfence.discovery.host_names import with_host_names
from ringfence.discovery.observed import DIRECT, Observed, observe
from ringfence.discovery.peers import Peers, name_of
from ringfence.discovery.propose import policy_of
from ringfence.discovery.reasons import CORE, Outcome
from ringfence.flows.connections import Records, ServiceSockets
from ringfence.flows.disposition import Dispositions, conversations_of, passing
from ringfence.model.ids import PolicyId, Version
from ringfence.model.policy import Action, Cluster, ClusterEnd, Policy, Workspace
from ringfence.model.protocol import format_protocol
from ringfence.model.verdict import Decision, EndRole

MOST_BLOCKED = 1000
"""Routes of edges that are told of; who has more needs another version first."""

Denials = tuple[Decision, ...]


@dataclass(frozen=True, slots=True)
class Least:
    """The least policy for an edge, and the clusters it names that the workspace lacks.

    It is `held` if it is a policy of the workspace that awaits review, here without its review.
    """

    policy: Policy
    clusters: tuple[Cluster, ...]
    held: bool = False


@dataclass(frozen=True, slots=True)
class Blocked:
    """Conversations of one edge that pass now and would be denied, and what lets them pass.

    `still_denied_by` are the rules that deny them even where all that is proposed is added. `noise`
    is the reason why discovery would propose nothing for them, empty where it would. `review` says
    why somebody must look at them first: by the policy held that would let them pass, else by
    discovery; empty for others.
    """

    consumer: str
    provider: str
    """What was dialled: the Service where there is one."""
    backend: str | None
    """Who answered behind the Service."""
    protocol: int
    port: int
    """As dialled at a Service: the Service's own port."""
    conversations: int
    first_ns: int
    last_ns: int
    denied_by: Denials
    least: Least
    still_denied_by: Denials
    noise: str
    review: str


@dataclass(frozen=True, slots=True)
class WhatIf:
    """What would be blocked, in an order that stays, first what needs no review, last noise.

    `untold` edges are left out.
    """

    blocked: tuple[Blocked, ...]
    untold: int
    judged: int
    """Conversations that pass, and that the version has a say in."""
    conversations: int
    """Of all that would be blocked."""
    workloads: int
    """Of the scope, that have one."""


async def what_if(
    seen: Records,
    fate: Dispositions,
    history: History,
    until_ns: int,
    judged_by: JudgedBy,
    made: tuple[Workspace, Version],
) -> WhatIf:
    """Judge the connections that pass by the enforced set with `made`, one of its versions, in it.

    What did not pass tells who is a scanner or an intruder, as it tells discovery.
    """
    workspace, _ = made
    seen = await asyncio.to_thread(with_host_names, seen, history.names.known())
    passes = passing(seen, fate)
    judged = await judge(passes, history, until_ns, judged_by, workspace.name)
    denied = judged.in_view & ~judged.allowed
    lived = await asyncio.to_thread(past, seen, history.timeline.as_known())
    members = judged_by.within(lived.snapshot, workspace.name)
    blocked = passes.take(denied)
    waiting = await _waiting(blocked, history, until_ns, judged_by, made)

    def propose() -> tuple[Observed, _Doubts, dict[int, Least], int]:
        peers = peers_of(lived, seen, workspace.clusters)
        services = ServiceSockets(lived.snapshot)
        edges = observe(blocked, peers, services)
        doubts = _doubts(observe(seen, peers, services), np.flatnonzero(fate.passed)[denied], edges)
        noisy, held_back = (
            np.array([bool(one) for one in why], dtype=np.bool_)[edges.route_edge]
            for why in (doubts.noise, doubts.review)
        )
        heaviest = np.lexsort((-_conversations(edges), held_back, noisy))[:MOST_BLOCKED]
        least = _least(edges, Ends(lived.snapshot, members), workspace, heaviest.tolist())
        return edges, doubts, least, _workloads(blocked, peers, members)

    edges, doubts, least, workloads = await asyncio.to_thread(propose)
    lacking = set(edges.route[waiting.which < 0].tolist())
    added = [one for route, one in least.items() if route in lacking]
    ready = [waiting.least[at] for at in np.unique(waiting.which[waiting.which >= 0]).tolist()]
    amended = replace(judged_by, workspaces=_amended(judged_by, made, [*ready, *added]))
    after = await judge(blocked, history, until_ns, amended, workspace.name)
    before = judged.deciding.spread(np.flatnonzero(denied))
    groups = _Groups(blocked, edges, doubts, waiting, before, after.deciding)
    told = await asyncio.to_thread(groups.tell, least)
    untold = len(edges.route_edge) - len(least)
    said = int(conversations_of(passes.take(judged.in_view)).sum())
    return WhatIf(told, untold, said, int(_conversations(edges).sum()), workloads)


@dataclass(frozen=True, slots=True)
class _Waiting:
    """Policies that await review, and for each connection which would let it pass; else -1."""

    least: list[Least]
    reviews: list[str]
    which: NDArray[np.int64]


async def _waiting(
    blocked: Records,
    history: History,
    until_ns: int,
    judged_by: JudgedBy,
    made: tuple[Workspace, Version],
) -> _Waiting:
    """Judge what is blocked as if nothing that lets pass awaited review in the version."""
    workspace, _ = made
    held = [one for one in workspace.policies if one.review and one.action is Action.ALLOW]
    which = np.full(len(blocked), -1, np.int64)
    ready = [Least(replace(one, review=""), (), held=True) for one in held]
    if held:
        reviewed = replace(judged_by, workspaces=_amended(judged_by, made, ready))
        deciding = (await judge(blocked, history, until_ns, reviewed, workspace.name)).deciding
        place = {one.id: at for at, one in enumerate(held)}
        of_rule = [
            place.get(rule.policy, -1) if rule.policy and rule.workspace == workspace.name else -1
            for rule in deciding.rules
        ]
        # Nobody's number, -1, finds the last.
        of_number = np.array([*of_rule, -1], np.int64)
        for role in EndRole:
            which = np.where(which < 0, of_number[deciding.numbers[role]], which)
    return _Waiting(ready, [one.review for one in held], which)


@dataclass(frozen=True, slots=True)
class _Doubts:
    """For each edge why discovery takes it for noise, or holds it for review; else empty."""

    noise: list[str]
    review: list[str]


def _doubts(all_: Observed, kept: NDArray[Any], blocked: Observed) -> _Doubts:
    """What discovery has against each edge that is blocked, by all that was seen.

    `kept` are the connections that are blocked. Core services are no noise here.
    """
    decisions = decide(all_, Facts(all_))
    noise = (decisions.outcome == Outcome.NOISE) & ~decisions.of(*CORE)
    review = decisions.outcome == Outcome.REVIEW
    known = np.zeros(len(blocked), dtype=np.int64)
    known[blocked.edges] = all_.edges[kept]
    edges = known.tolist()
    return _Doubts(
        [next(decisions.reasons(edge)) if noise[edge] else "" for edge in edges],
        ["; ".join(decisions.reasons(edge)) if review[edge] else "" for edge in edges],
    )


def _amended(
    judged_by: JudgedBy, made: tuple[Workspace, Version], least: Iterable[Least]
) -> tuple[tuple[Workspace, Version], ...]:
    """What is judged by, with all that is proposed in the version, what it holds in its place."""
    workspace, number = made
    policies = {one.policy.id: one.policy for one in least}
    clusters = {cluster.name: cluster for one in least for cluster in one.clusters}
    kept = [policies.pop(one.id, one) for one in workspace.policies]
    added = replace(
        workspace,
        clusters=(*workspace.clusters, *clusters.values()),
        policies=(*kept, *policies.values()),
    )
    others = (one for one in judged_by.workspaces if one[0].name != workspace.name)
    return *others, (added, number)


def _conversations(seen: Observed) -> Numbers:
    """Of each route, answered or not."""
    return seen.by_route.conversations + seen.by_route.failures


def _workloads(blocked: Records, peers: Peers, members: BitMap) -> int:
    """How many of the scope are at an end."""
    ends = [peers.parties(blocked, end) for end in ("first_consumer", "provider")]
    items = [peers.item(at) for at in np.unique(np.concatenate(ends)).tolist() if at in members]
    return len(
        {(one.cluster, one.namespace, one.workload_name or one.name) for one in items if one}
    )


def _least(seen: Observed, ends: Ends, workspace: Workspace, routes: list[int]) -> dict[int, Least]:
    """For each route the least that lets it pass, as discovery would draft it.

    The same for routes that need the same; no two policies have one id, nor one of the workspace.
    """
    drafting = Drafting(seen, ends)
    needed = {route: drafting.draft(route) for route in routes}
    drafts: dict[tuple[NamedEnd, NamedEnd, int, frozenset[int]], Draft] = {}
    for one in needed.values():
        held = drafts.setdefault(_key(one), one)
        drafts[_key(one)] = replace(held, edges=held.edges | one.edges)
    clusters = {role.cluster.name: role.cluster for role in seen.peers.roles if not role.approved}
    taken: set[str] = {policy.id for policy in workspace.policies}
    made = {}
    for key, draft in drafts.items():
        policy = policy_of(seen, draft, _id(draft, taken), 1)
        named = [
            end.cluster for end in (policy.consumer, policy.provider) if isinstance(end, ClusterEnd)
        ]
        lacking = tuple(clusters[name] for name in dict.fromkeys(named) if name in clusters)
        made[key] = Least(policy, lacking)
    return {route: made[_key(one)] for route, one in needed.items()}


def _key(draft: Draft) -> tuple[NamedEnd, NamedEnd, int, frozenset[int]]:
    return draft.consumer, draft.provider, draft.protocol, draft.ports


def _id(draft: Draft, taken: set[str]) -> PolicyId:
    """After its ends, as discovery names it, and its traffic; it is taken then.

    Who accepts a policy names its id: unlike discovery's it is not chosen by what else there is.
    """
    traffic = "-".join([format_protocol(draft.protocol).lower(), *map(str, draft.ports)])
    wanted = found = f"{draft.consumer.name}-to-{draft.provider.name}-{traffic}"
    number = 2
    while found in taken:
        found, number = f"{wanted}-{number}", number + 1
    taken.add(found)
    return PolicyId(found)


class _Groups:
    """Connections put together by their route, what denies them and what awaits review."""

    def __init__(
        self,
        blocked: Records,
        seen: Observed,
        doubts: _Doubts,
        waiting: _Waiting,
        before: Deciding,
        after: Deciding,
    ) -> None:
        self._seen, self._doubts, self._waiting = seen, doubts, waiting
        self._before, denied = _denials(before)
        self._after, still = _denials(after)
        keys = seen.route, denied, still, waiting.which
        first, group = distinct(*keys)
        self._keys = zip(*(key[first].tolist() for key in keys), strict=True)
        opened = np.maximum(blocked.column("opened").astype(np.int64), 1)
        self._count = np.zeros(len(first), np.int64)
        self._since = np.full(len(first), np.iinfo(np.int64).max)
        self._until = np.zeros(len(first), np.int64)
        np.add.at(self._count, group, opened)
        np.minimum.at(self._since, group, blocked.column("first_ns").astype(np.int64))
        np.maximum.at(self._until, group, blocked.column("last_ns").astype(np.int64))

    def tell(self, least: dict[int, Least]) -> tuple[Blocked, ...]:
        """Those of some routes."""
        told = (
            replace(
                self._one(group, route, self._before[denied], least[route], self._after[still]),
                **self._held(waits),
            )
            for group, (route, denied, still, waits) in enumerate(self._keys)
            if route in least
        )
        return tuple(sorted(told, key=lambda one: (bool(one.noise), bool(one.review))))

    def _held(self, waits: int) -> dict[str, Any]:
        """What differs where a policy that awaits review would let pass."""
        if waits < 0:
            return {}
        return {"least": self._waiting.least[waits], "review": self._waiting.reviews[waits]}

    def _one(
        self, group: int, route: int, denied_by: Denials, least: Least, still: Denials
    ) -> Blocked:
        seen, edge = self._seen, int(self._seen.route_edge[route])
        front = int(seen.route_front[route])
        consumer, provider = (seen.peers[int(end[edge])] for end in (seen.consumer, seen.provider))
        through = front != DIRECT
        return Blocked(
            consumer=name_of(consumer),
            provider=name_of(seen.fronts[front] if through else provider),
            backend=name_of(provider) if through else None,
            protocol=int(seen.protocol[edge]),
            port=int(seen.route_port[route] if through else seen.port[edge]),
            conversations=int(self._count[group]),
            first_ns=int(self._since[group]),
            last_ns=int(self._until[group]),
            denied_by=denied_by,
            least=least,
            still_denied_by=still,
            noise=self._doubts.noise[edge],
            review=self._doubts.review[edge],
        )


def _denials(deciding: Deciding) -> tuple[list[Denials], NDArray[np.int64]]:
    """The distinct sets of rules that deny, none where all is allowed, and which each row has."""
    numbers = np.stack([deciding.numbers[role] for role in EndRole], axis=1)
    decided, which = np.unique(numbers, axis=0, return_inverse=True)
    known: dict[Denials, int] = {}
    codes = []
    for some in decided.tolist():
        rules = [deciding.rules[at] for at in some if at != NOBODY]
        denies = tuple(dict.fromkeys(one for one in rules if one.action is Action.DENY))
        codes.append(known.setdefault(denies, len(known)))
    return list(known), np.array(codes, np.int64)[which.reshape(-1)]
