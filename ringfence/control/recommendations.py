"""Recommends policies unasked: runs discovery for watched scopes, and keeps what differs.

Held against is the latest version of the scope's workspace, so that what was accepted is not
recommended again. One scope is looked at after the other, each once an hour, and none while agents'
reports wait to be stored. A recommendation that says the same as the one before is that one still;
the sinks of alerts hear of what is new.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial

import structlog

from ringfence.control.alerts import Alerts
from ringfence.control.approved import known_of, load_above, load_approved
from ringfence.control.background import Background, attempt
from ringfence.control.comparison import NOTHING, Comparison, discover_beside
from ringfence.control.continuous import HOUR_NS
from ringfence.control.discover import Wanted
from ringfence.control.discovered import changes_of, use_of
from ringfence.control.errors import NotFoundError
from ringfence.control.ingest import FlowIngest
from ringfence.control.metrics import Metrics
from ringfence.control.observed import observed
from ringfence.control.policies import load_tree
from ringfence.control.staged import Watch
from ringfence.control.times import Clock, format_time
from ringfence.discovery.changes import ChangeKind, PolicyChange
from ringfence.export.alerts.interface import Recommended
from ringfence.model.ids import ScopeName
from ringfence.model.policy import Policy, Workspace
from ringfence.policy.document import Documents, format_documents, parse_documents
from ringfence.store.relational.alerts import queue_notices
from ringfence.store.relational.database import Database
from ringfence.store.relational.recommendations import (
    Recommendation,
    all_recommendations,
    put_recommendation,
)

_LOG = structlog.get_logger(__name__)
EVERY_NS = HOUR_NS
_BEHIND_NS = 60 * 10**9
_LOOK_SECONDS = 1.0


class Recommendations:
    """Looks at each watched scope once an hour."""

    def __init__(
        self,
        clock: Clock,
        database: Database,
        watch: Watch,
        ingest: FlowIngest,
        alerts: Alerts,
        metrics: Metrics,
    ) -> None:
        self._clock, self._database, self._watch, self._ingest = clock, database, watch, ingest
        self._alerts = alerts
        self._wanted: set[ScopeName] = set()
        self._asked = asyncio.Event()
        self._due_ns = 0
        self._following = Background("recommendations", self._pause, self._look, metrics, 60)

    async def start(self) -> None:
        """Look where it is time to."""
        self._following.start()

    async def stop(self) -> None:
        """Look no more; what is recommended stays."""
        await self._following.stop()

    def renew(self, scope: ScopeName) -> None:
        """Look at a scope as soon as may be."""
        self._wanted.add(scope)
        self._asked.set()

    async def _pause(self) -> None:
        while not self._asked.is_set() and self._clock() < self._due_ns:
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_SECONDS):
                    await self._asked.wait()
        self._asked.clear()

    async def _look(self) -> None:
        async with self._database.read() as connection:
            every = await all_recommendations(connection, self._watch.tenant)
        now_ns, next_ns = self._clock(), [self._clock() + EVERY_NS]
        for one in every:
            looked_ns = one.looked_ns
            if one.scope in self._wanted or looked_ns is None or now_ns < looked_ns:
                looked_ns = now_ns - EVERY_NS
            if now_ns < looked_ns + EVERY_NS:
                next_ns.append(looked_ns + EVERY_NS)
                continue
            if self._ingest.is_behind:
                next_ns.append(now_ns + _BEHIND_NS)
                break
            self._wanted.discard(one.scope)
            problem = await attempt(partial(self._recommend, one, now_ns), lambda: None)
            if problem:
                await self._put(replace(one, looked_ns=now_ns, problem=problem))
        self._due_ns = min(next_ns)

    async def _recommend(self, one: Recommendation, now_ns: int) -> None:
        watch = self._watch
        async with self._database.read() as connection:
            tree = await load_tree(connection, watch.tenant)
            if one.scope not in tree:
                raise NotFoundError(f"there is no scope {one.scope!r} any more")
            held = await load_approved(connection, watch.tenant, one.scope, latest=True)
            known = await known_of(connection, watch.tenant, held, now_ns) if held else {}
            above = await load_above(connection, watch.tenant, tree, one.scope)
        since_ns = now_ns - one.window_seconds * 10**9
        seen = await observed(watch.store, watch.tenant, since_ns, now_ns)
        # What is accepted makes a version of this workspace alone.
        wanted = Wanted(approved=held[0] if held else None, above=above, own=True)
        found, compared = await discover_beside(
            seen, watch.history, tree, one.scope, now_ns, wanted, known
        )
        proposed = found.workspace
        if held is None:
            added = (PolicyChange(ChangeKind.ADDED, policy) for policy in proposed.policies)
            compared = Comparison(tuple(added), NOTHING.uses)
        document = await asyncio.to_thread(format_documents, Documents(workspaces=(proposed,)))
        fresh = replace(
            one,
            looked_ns=now_ns,
            problem="",
            version=held[1] if held else None,
            proposed=document,
            changes=tuple(changes_of(compared)),
            approved=tuple(map(use_of, compared.uses)),
        )
        said, before = _said(fresh), _said(one) if one.changed_ns is not None else None
        if said != before:
            fresh = replace(fresh, changed_ns=now_ns)
            _LOG.info("new recommendation", scope=one.scope, changes=len(fresh.changes))
        news = [
            f"{kind} {policy}"
            for kind, policy, rule in said
            if (kind, policy, rule) not in (before or ())
        ]
        await self._put(fresh, news)

    async def _put(self, one: Recommendation, news: Sequence[str] = ()) -> None:
        """Write down what is recommended, and have sinks hear of what is new in it."""
        told = Recommended(
            f"recommendation-{one.scope}-{one.changed_ns}",
            one.scope,
            [*news],
            format_time(self._clock()),
        )
        async with self._database.write() as connection:
            await put_recommendation(connection, self._watch.tenant, one)
            await queue_notices(connection, self._watch.tenant, [told] if news else [])
        if news:
            self._alerts.queued.set()


def _said(one: Recommendation) -> list[tuple[str, str, Policy | None]]:
    """What a recommendation says, but for how often anything was seen."""
    policies = {policy.id: policy.rule for policy in read_proposed(one).policies}
    found = []
    for change in one.changes:
        # What is new may have the name of what is of no use any more.
        unused = change["change"] == ChangeKind.UNUSED
        rule = None if unused else policies.get(change["policy"])
        rule = rule and replace(rule, review="review" if rule.review else "")
        found.append((change["change"], change["policy"], rule))
    return found


def read_proposed(one: Recommendation) -> Workspace:
    """The workspace that discovery proposed for a scope."""
    (workspace,) = parse_documents(one.proposed, f"recommended for {one.scope}").workspaces
    return workspace
