"""A proposal beside what was approved: what differs, and how often each approved policy decided.

Policies are compared by meaning first (`discovery.changes`), and then by the conversations of the
proposal's time: what the approved set lets pass anyway is nothing new, and a policy that decided
one is of use, whatever is proposed in its place.
"""

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from ringfence.control.analysis import History, Judged, judge
from ringfence.control.discover import AS_USUAL, Discovery, Wanted, discover_in, past
from ringfence.control.judged import JudgedBy
from ringfence.discovery.changes import ChangeKind, PolicyChange, changes
from ringfence.discovery.host_names import with_host_names
from ringfence.discovery.observed import answered, conversations_of
from ringfence.flows.connections import Records
from ringfence.model.ids import PolicyId, ScopeName, Version, WorkspaceName
from ringfence.model.policy import Action, CatchAll, Workspace
from ringfence.model.protocol import UDP
from ringfence.model.scope import ScopeTree
from ringfence.model.verdict import EndRole
from ringfence.model.words import counted

_UNNAMED = Version(0)
_MINUTE_NS = 60 * 10**9
_SPANS = (("day", 24 * 60 * _MINUTE_NS), ("hour", 60 * _MINUTE_NS), ("minute", _MINUTE_NS))


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a policy beyond the time of a proposal, epoch ns.

    Since when it stands as it does, since when it is held against all that arrives without a break,
    and when it last decided anything; None where that is not known.
    """

    made_ns: int | None = None
    watched_ns: int | None = None
    last_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Use:
    """How many conversations of the time a policy decided, and when it last decided any.

    `note` says of one without any for how long that is so, and whether others decide first.
    """

    policy: PolicyId
    conversations: int
    last_ns: int | None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Comparison:
    """What differs from the approved workspace, and the use of each of its policies."""

    changes: tuple[PolicyChange, ...] = ()
    uses: tuple[Use, ...] = ()

    @property
    def notes(self) -> dict[PolicyId, str]:
        """What is to be said of policies, by id."""
        return {one.policy: one.note for one in self.uses if one.note}


NOTHING = Comparison()
"""Of what was approved there is nothing."""


@dataclass(frozen=True, slots=True)
class _Hits:
    """Conversations that a policy decided."""

    conversations: int = 0
    last_ns: int | None = None


@dataclass
class _Seen:
    """Conversations that came to be, in one scope, to be judged by workspaces of it."""

    records: Records
    history: History
    tree: ScopeTree
    until_ns: int
    counts: NDArray[np.int64] = field(init=False)
    last_ns: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        self.counts = conversations_of(self.records)
        self.last_ns = self.records.column("last_ns").astype(np.int64)

    async def by(self, workspace: Workspace) -> "_Verdicts":
        judged_by = JudgedBy(self.tree, ((workspace, _UNNAMED),))
        return _Verdicts(await judge(self.records, self.history, self.until_ns, judged_by))


class _Verdicts:
    """What a workspace said to conversations: the policy that decided at each end, as a number."""

    def __init__(self, judged: Judged) -> None:
        self.allowed, rules = judged.allowed, judged.deciding.rules
        self.names = [one.policy or one.rule or "the catch-all" for one in rules]
        self.policies = list(dict.fromkeys(one.policy for one in rules if one.policy))
        place = {policy: at for at, policy in enumerate(self.policies)}
        at = np.array([place[one.policy] if one.policy else -1 for one in rules] + [-1], np.int64)
        self.rules = judged.deciding.numbers
        self.ends = {role: at[self.rules[role]] for role in EndRole}

    def rows(self, policy: PolicyId) -> dict[EndRole, NDArray[np.intp]]:
        """Which conversations a policy decided at which end."""
        number = self.policies.index(policy)
        return {role: np.flatnonzero(end == number) for role, end in self.ends.items()}

    def among(self, chosen: NDArray[np.bool_]) -> set[PolicyId]:
        """The policies that decided at least one of some conversations."""
        numbers = np.unique(np.concatenate([end[chosen] for end in self.ends.values()]))
        return {self.policies[at] for at in numbers.tolist() if at >= 0}

    def hits(self, seen: _Seen) -> dict[PolicyId, _Hits]:
        """What each policy decided; a conversation that one decides at both ends counts once."""
        total = np.zeros(len(self.policies), np.int64)
        last = np.zeros(len(self.policies), np.int64)
        before: list[NDArray[np.int64]] = []
        for end in self.ends.values():
            fresh = end >= 0
            for other in before:
                fresh &= end != other
            before.append(end)
            np.add.at(total, end[fresh], seen.counts[fresh])
            np.maximum.at(last, end[fresh], seen.last_ns[fresh])
        pairs = zip(self.policies, total.tolist(), last.tolist(), strict=True)
        return {policy: _Hits(count, latest) for policy, count, latest in pairs if count}


async def discover_beside(
    seen: Records,
    history: History,
    tree: ScopeTree,
    scope: ScopeName,
    until_ns: int,
    wanted: Wanted = AS_USUAL,
    known: Mapping[PolicyId, Known] | None = None,
) -> tuple[Discovery, Comparison]:
    """Propose a workspace from what was seen until then, and compare it with the approved.

    Threads do the work, by what is known as it begins.
    """
    approved = wanted.approved
    name = approved.name if approved else WorkspaceName(scope)
    lived = await asyncio.to_thread(past, seen, history.timeline.as_known())
    seen = await asyncio.to_thread(with_host_names, seen, history.names.known())
    found = await asyncio.to_thread(discover_in, lived, seen, tree, scope, name, wanted)
    if approved is None:
        return found, NOTHING
    return found, await compare(approved, found, seen, history, tree, until_ns, known)


async def compare(
    approved: Workspace,
    found: Discovery,
    records: Records,
    history: History,
    tree: ScopeTree,
    until_ns: int,
    known: Mapping[PolicyId, Known] | None = None,
) -> Comparison:
    """Hold a proposal and what was approved against the conversations that it was made from.

    `until_ns`, epoch ns, is the end of their time.
    """
    proposed = found.workspace
    differing = list(changes(approved, proposed, until_ns))
    # What was approved for a scope of the control plane counts in a file's inventory as well.
    approved = replace(approved, scope=proposed.scope)
    allowing = [one for one in approved.policies if one.action is Action.ALLOW]
    counting = [one.id for one in allowing if one.counts(until_ns)]
    seen = _Seen(records.take(_came_to_be(records)), history, tree, found.observed.until_ns + 1)
    hits: dict[PolicyId, _Hits] = {}
    covered: dict[PolicyId, str] = {}
    familiar: set[PolicyId] = set()
    if len(seen.records):
        verdicts = await seen.by(approved)
        hits = verdicts.hits(seen)
        idle = [one for one in counting if one not in hits]
        covered = await _covered(seen, approved, verdicts, idle) if idle else {}
        familiar = await _familiar(seen, proposed, verdicts)
    uses = []
    for one in approved.policies:
        told, hit = (known or {}).get(one.id, Known()), hits.get(one.id, _Hits())
        times = [at for at in (hit.last_ns, told.last_ns) if at is not None and at <= until_ns]
        last_ns = max(times, default=None)
        note = covered.get(one.id, "")
        if one.id in counting and not hit.conversations and not note:
            note = silence(told, last_ns, found.observed.since_ns, until_ns)
        uses.append(Use(one.id, hit.conversations, last_ns, note))
    return Comparison(tuple(_telling(differing, familiar, hits)), tuple(uses))


def _came_to_be(records: Records) -> NDArray[np.bool_]:
    """Conversations that were answered, and datagrams that nobody need answer."""
    mute = (records.column("protocol") == UDP) & (records.column("refused") == 0)
    return np.asarray(answered(records) | (mute & (records.dropped == 0)))


def _telling(
    differing: Collection[PolicyChange], familiar: Collection[PolicyId], used: Collection[PolicyId]
) -> list[PolicyChange]:
    """Without what only is written in another way."""
    needless = {ChangeKind.ADDED: familiar, ChangeKind.UNUSED: used}
    return [one for one in differing if one.policy.id not in needless.get(one.kind, ())]


async def _covered(
    seen: _Seen, approved: Workspace, verdicts: _Verdicts, idle: Collection[PolicyId]
) -> dict[PolicyId, str]:
    """Of policies that decided nothing, those that would if others did not decide first."""
    policies = tuple(one for one in approved.policies if one.id in idle)
    nothing = CatchAll(Action.DENY, Action.DENY)
    alone = await seen.by(replace(approved, policies=policies, catch_all=nothing))
    found = {}
    for policy in alone.policies:
        rows = alone.rows(policy)
        numbers = np.concatenate([verdicts.rules[role][at] for role, at in rows.items()])
        firsts = [verdicts.names[at] for at in np.unique(numbers).tolist() if at >= 0]
        which = np.unique(np.concatenate(list(rows.values())))
        said = counted(int(seen.counts[which].sum()), "conversation")
        others = ", ".join(dict.fromkeys(firsts))
        found[policy] = f"covered: {said} of its own were decided by {others} before it"
    return found


async def _familiar(seen: _Seen, proposed: Workspace, verdicts: _Verdicts) -> set[PolicyId]:
    """The proposed policies that let pass only what the approved ones do."""
    approved = tuple(replace(one, review="") for one in proposed.policies)
    would = await seen.by(replace(proposed, policies=approved))
    every = np.ones(len(seen.records), np.bool_)
    return would.among(every) - would.among(~verdicts.allowed)


def silence(known: Known, last_ns: int | None, seen_since_ns: int, until_ns: int) -> str:
    """For how long a policy decided nothing: no longer than it stands, and than anybody looked."""
    looked_ns = min(seen_since_ns, known.watched_ns or seen_since_ns)
    if looked_ns >= until_ns:
        return "nothing was seen in this time"
    if last_ns is not None:
        return f"no traffic for {_span(until_ns - max(last_ns, looked_ns))}"
    if known.made_ns is not None and known.made_ns >= looked_ns:
        return f"never since it was made {_span(until_ns - known.made_ns)} ago"
    return f"no traffic for {_span(until_ns - looked_ns)}, all that is known"


def _span(time_ns: int) -> str:
    for unit, unit_ns in _SPANS:
        if time_ns >= unit_ns:
            return counted(time_ns // unit_ns, unit)
    return "less than a minute"
