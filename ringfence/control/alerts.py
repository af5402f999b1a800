"""Compliance of what is enforced: what escapes or is misdropped becomes an alert.

Conversations with one cause are one alert: the category, the deciding rules, the roles of both
ends, protocol and port. It is resolved when nothing was told of it for a while; the same cause
after that is another alert. Notices stand in the database until their sinks have them.
"""

import asyncio
import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import msgspec

from ringfence.control.background import Background
from ringfence.control.continuous import HOUR_NS, KEPT_NS, Continuous
from ringfence.control.metrics import Metrics
from ringfence.control.times import Clock, format_time
from ringfence.export.alerts.interface import Notice
from ringfence.model.ids import TenantId, WorkspaceName
from ringfence.model.protocol import WITH_PORTS, format_port, format_protocol
from ringfence.model.tally import UNTOWARD, Cause
from ringfence.model.verdict import Decision, Stage
from ringfence.policy.handle import tell_decision
from ringfence.store.relational.alerts import (
    Alert,
    forget_alerts,
    load_alerts,
    put_alert,
    queue_notices,
)
from ringfence.store.relational.database import Database
from ringfence.store.relational.trials import load_trial
from ringfence.store.relational.verdicts import Told, told_since

SILENCE_NS = 900 * 10**9
"""When nothing was told of it for so long an alert is resolved."""
RETURN_NS = 300 * 10**9
"""How long after a start none is resolved: agents come back with what they kept."""
LATE_NS = 24 * HOUR_NS
"""What is told later than this, by an agent that was cut off, opens none."""
_LOOK_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Seen:
    """The conversations of one cause since some time; epoch ns."""

    conversations: int
    first_ns: int
    last_ns: int


class Alerts:
    """Opens and resolves alerts."""

    def __init__(
        self,
        clock: Clock,
        database: Database,
        tenant: TenantId,
        continuous: Continuous,
        metrics: Metrics,
    ) -> None:
        self._clock, self._database, self._tenant = clock, database, tenant
        self._continuous, self._judged = continuous, asyncio.Event()
        self._following = Background("alerts", self._pause, self._look, metrics)
        self._on_look: list[Callable[[], None]] = []
        self._began_ns = 0
        self.queued = asyncio.Event()
        """Set when there are notices for sinks."""

    async def start(self) -> None:
        """Look whenever something was judged, and from time to time."""
        self._began_ns = self._clock()
        self._continuous.subscribe(self._judged.set)
        self._following.start()

    async def stop(self) -> None:
        """Look no more."""
        await self._following.stop()

    def subscribe(self, on_look: Callable[[], None]) -> None:
        """Have a quick function called when alerts have been looked after."""
        self._on_look.append(on_look)

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(_LOOK_SECONDS):
                await self._judged.wait()
        except TimeoutError:
            pass
        self._judged.clear()

    async def _look(self) -> None:
        await self._renew()
        for callback in self._on_look:
            callback()

    async def _renew(self) -> None:
        now_ns = self._clock()
        async with self._database.read() as connection:
            known = await load_alerts(connection, self._tenant, now_ns - LATE_NS)
            opened = {one.cause: one for one in known if one.resolved_ns is None}
            oldest = min((one.first_ns for one in opened.values()), default=now_ns)
            since_ns = min(oldest, now_ns - LATE_NS) // HOUR_NS * HOUR_NS
            told = await told_since(
                connection, self._tenant, since_ns, now_ns, categories=UNTOWARD, enforced=True
            )
            trial = await load_trial(connection, self._tenant)
        staged = trial is not None and trial.nodes is not None
        # While it was down nothing could be told: what agents kept comes first.
        silence = now_ns - self._began_ns > RETURN_NS
        changed = await asyncio.to_thread(
            changes, known, told, now_ns, may_open=not staged, may_resolve=silence
        )
        if not changed:
            return
        async with self._database.write() as connection:
            for one in changed:
                await put_alert(connection, self._tenant, one)
            news = [one for one in changed if is_news(opened, one)]
            await queue_notices(connection, self._tenant, map(notice, news))
            await forget_alerts(connection, self._tenant, now_ns - KEPT_NS)
        self.queued.set()


def is_news(opened: Mapping[Cause, Alert], alert: Alert) -> bool:
    """Whether sinks are to hear of what has become of an alert."""
    return alert.cause not in opened or alert.resolved_ns is not None


def changes(
    known: Iterable[Alert],
    told: Iterable[Told],
    now_ns: int,
    *,
    may_open: bool,
    may_resolve: bool = True,
) -> list[Alert]:
    """The alerts to be written: of those known of the last LATE_NS, and of what was told lately."""
    found = []
    before: dict[Cause, list[Alert]] = {}
    by_cause: dict[Cause, list[Told]] = {}
    for one in told:
        by_cause.setdefault(one.tally.cause, []).append(one)
    for alert in known:
        before.setdefault(alert.cause, []).append(alert)
        if alert.resolved_ns is not None:
            continue
        since_ns = alert.first_ns // HOUR_NS * HOUR_NS
        seen = _seen(one for one in by_cause.get(alert.cause, ()) if one.end_ns > since_ns)
        now = alert
        if seen:
            last_ns = max(seen.last_ns, alert.last_ns)
            count = max(seen.conversations, alert.conversations)
            now = replace(alert, conversations=count, last_ns=last_ns)
        if now != alert:
            found.append(replace(now, heard_ns=now_ns))
        elif may_resolve and now_ns - max(now.last_ns, now.heard_ns) > SILENCE_NS:
            found.append(replace(now, resolved_ns=now_ns))
    for cause, some in by_cause.items() if may_open else ():
        alerts = before.get(cause, [])
        if any(one.resolved_ns is None for one in alerts):
            continue
        seen = _seen(one for one in some if _is_new(one.tally.last_ns, alerts, now_ns))
        if seen is not None:
            counts = seen.conversations, seen.first_ns, seen.last_ns
            found.append(Alert(_id(cause, seen.first_ns), cause, *counts, heard_ns=now_ns))
    return found


def _is_new(last_ns: int, alerts: Iterable[Alert], now_ns: int) -> bool:
    """Whether no alert of its cause has told of it yet, and it is not too late to."""
    known = any(one.first_ns <= last_ns <= one.last_ns for one in alerts)
    return not known and now_ns - last_ns <= LATE_NS


def _seen(told: Iterable[Told]) -> Seen | None:
    """What was told of one cause. Several workspaces tell of the same conversations: once."""
    by_time: dict[int, dict[WorkspaceName, int]] = {}
    first_ns, last_ns = 2**63 - 1, 0
    for one in told:
        counts = by_time.setdefault(one.start_ns, {})
        name = one.named[0]
        counts[name] = counts.get(name, 0) + one.tally.conversations
        first_ns = min(first_ns, one.tally.last_ns)
        last_ns = max(last_ns, one.tally.last_ns)
    total = sum(max(counts.values()) for counts in by_time.values())
    return Seen(total, first_ns, last_ns) if by_time else None


def _id(cause: Cause, first_ns: int) -> str:
    text = msgspec.json.encode([cause, first_ns])
    return hashlib.blake2b(text, digest_size=8).hexdigest()


def notice(alert: Alert) -> Notice:
    """What sinks are told of an alert."""
    cause = alert.cause
    protocol, port = format_traffic(cause)
    return Notice(
        id=alert.id,
        state="opened" if alert.resolved_ns is None else "resolved",
        category=cause.category.value,
        consumer=cause.consumer,
        provider=cause.provider,
        protocol=protocol,
        port=port,
        decided_by=format_rules(rule for _, rule in cause.rules),
        conversations=alert.conversations,
        first=format_time(alert.first_ns),
        last=format_time(alert.last_ns),
    )


def format_traffic(cause: Cause) -> tuple[str, str]:
    """The protocol and the port of a cause; the port is empty where it has none."""
    has_port = cause.protocol in WITH_PORTS or cause.port
    port = format_port(cause.protocol, cause.port) if has_port else ""
    return format_protocol(cause.protocol), port


def format_rules(rules: Iterable[Decision]) -> list[str]:
    """Rules as people read them, each once."""
    return list(dict.fromkeys(map(_rule, rules)))


def _rule(rule: Decision) -> str:
    """`ACTION WORKSPACE/POLICY@pN`; of Kubernetes' policies their own name, `fail-safe/NAME`."""
    if rule.stage is Stage.FAIL_SAFE:
        return f"{rule.action} {tell_decision(rule)}"
    name = rule.policy or "catch-all"
    place = f"{rule.workspace}/{name}@p{rule.version}" if rule.workspace else name
    return f"{rule.action} {place}"
