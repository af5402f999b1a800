"""How often each policy of a version decided, and what nobody needed for long."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from sqlalchemy.ext.asyncio import AsyncConnection

from ringfence.control.continuous import KEPT_NS, Span, segments
from ringfence.model.flow import Category
from ringfence.model.ids import TenantId
from ringfence.model.policy import Policy
from ringfence.model.tally import Cause, Tally
from ringfence.model.words import counted
from ringfence.store.relational.enforcement import enforced_sets
from ringfence.store.relational.verdicts import Named, Told, asked_for

DAY_NS = 24 * 3600 * 10**9
IDLE_DAYS = 30
"""For so long without traffic a policy may be one that nobody needs any more."""


@dataclass(frozen=True, slots=True)
class Hits:
    """The conversations that a policy decided, by category; `policy` None for the catch-alls.

    `note` says that there were none, and in how long; empty where there were some lately.
    """

    policy: str | None
    conversations: dict[Category, int]
    last_ns: int | None
    note: str = ""


def count_hits(
    named: Named, policies: Sequence[Policy], told: Iterable[Told], spans: Iterable[Span]
) -> list[Hits]:
    """The hits of a version's policies, then of its catch-alls, in `told` of it.

    `spans` are when the version was under analysis, apart from each other.
    """
    spans = tuple(spans)
    found = count_tallies(named, policies, (one.tally for one in told))
    return [replace(one, note=_note(one.last_ns, spans)) for one in found]


async def watched(
    connection: AsyncConnection, tenant: TenantId, named: Named, span: Span, now_ns: int
) -> list[Span]:
    """The parts of a time in which a version was under analysis: asked for, or as enforced.

    Of a set that is on trial at some nodes nothing is told, and of what is forgotten no more.
    """
    since_ns, until_ns = span = max(span[0], now_ns - KEPT_NS), min(span[1], now_ns)
    if since_ns >= until_ns:
        return []
    sets = await enforced_sets(connection, tenant, span)
    held = [one for one in segments(span, sets, 0) if named in one.enforced.workspaces]
    trials = [one.span for one in held if one.staged]
    spans = [one.span for one in held if not one.staged]
    for asked in await asked_for(connection, tenant, named, until_ns):
        spans += _outside(asked, trials)
    found: list[Span] = []
    for start_ns, end_ns in sorted(spans):
        begins = max(start_ns, found[-1][1] if found else since_ns)
        ends = min(end_ns, until_ns)
        if begins < ends:
            found.append((begins, ends))
    return found


def _outside(span: Span, others: Iterable[Span]) -> Iterator[Span]:
    """The parts of a time outside others, which ascend; some are empty."""
    begins, ends = span
    for other_begins, other_ends in others:
        yield begins, min(ends, other_begins)
        begins = max(begins, other_ends)
    yield begins, ends


def count_tallies(named: Named, policies: Sequence[Policy], tallies: Iterable[Tally]) -> list[Hits]:
    """The same without notes."""
    counts: dict[str | None, Counter[Category]] = {one.id: Counter() for one in policies}
    counts[None] = Counter()
    last: dict[str | None, int] = {}
    for one in tallies:
        for policy in _deciding(named, one.cause):
            counts.setdefault(policy, Counter())[one.cause.category] += one.conversations
            last[policy] = max(last.get(policy, 0), one.last_ns)
    return [Hits(policy, dict(found), last.get(policy)) for policy, found in counts.items()]


def _deciding(named: Named, cause: Cause) -> set[str | None]:
    """The policies of the version that decided at an end; one at both counts once."""
    return {rule.policy for _, rule in cause.rules if (rule.workspace, rule.version) == named}


def _note(last_ns: int | None, spans: Iterable[Span]) -> str:
    """Of nothing but the time under analysis it is known that there was no traffic."""
    since_ns = last_ns or 0
    days = sum(max(0, end - max(start, since_ns)) for start, end in spans) // DAY_NS
    if days >= IDLE_DAYS:
        return f"no traffic for {counted(days, 'day')} of analysis"
    if last_ns is None:
        return f"no traffic in {counted(days, 'day') if days else 'under a day'} of analysis"
    return ""
