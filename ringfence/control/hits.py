"""How often each policy of a version decided, and what nobody needed for long."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from ringfence.model.flow import Category
from ringfence.model.policy import Policy
from ringfence.model.tally import Cause, Tally
from ringfence.model.words import counted
from ringfence.store.relational.verdicts import Named, Told

DAY_NS = 24 * 3600 * 10**9
IDLE_DAYS = 30
"""For so long without traffic a policy may be one that nobody needs any more."""
_NOT_YET = "no traffic yet, in under a day of analysis"


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
    named: Named, policies: Sequence[Policy], told: Iterable[Told], watched_ns: int, now_ns: int
) -> list[Hits]:
    """The hits of a version's policies, then of its catch-alls, in `told` of it.

    `watched_ns` is since when the version is under analysis, epoch ns.
    """
    found = count_tallies(named, policies, (one.tally for one in told))
    return [replace(one, note=_note(one.last_ns, watched_ns, now_ns)) for one in found]


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


def _note(last_ns: int | None, watched_ns: int, now_ns: int) -> str:
    idle = (now_ns - max(last_ns or 0, watched_ns)) // DAY_NS
    if idle >= IDLE_DAYS:
        return f"no traffic for {counted(idle, 'day')}"
    if last_ns is None:
        return f"no traffic yet, in {counted(idle, 'day')} of analysis" if idle > 0 else _NOT_YET
    return ""
