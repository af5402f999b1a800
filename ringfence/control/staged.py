"""A staged trial: what the connections of its nodes say of it, and what is to be done.

Analysis says which connections a version denies. Only those count that are governed by a workspace
in which the set on trial and the one before differ. One is dropped *unforeseen* where the set on
trial allows it, or where it had passed, and been allowed by that set, before the trial. What was
dropped before as well is not the trial's doing; nor is what a quarantine judges, or what the set
before denies of connections with other nodes, where that still holds.
"""

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from enum import Enum
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from ringfence.control.agents import Agents, NodeKey
from ringfence.control.analysis import History, Judged, judge
from ringfence.control.errors import ConflictError
from ringfence.control.judged import JudgedBy
from ringfence.flows.connections import Records, records
from ringfence.flows.disposition import Dispositions, Through, dispose
from ringfence.inventory.snapshot import NOWHERE, Snapshot
from ringfence.model.address import Address, format_address
from ringfence.model.ids import ClusterId, NodeName, TenantId, WorkspaceName
from ringfence.model.protocol import format_protocol
from ringfence.model.quarantine import QUARANTINE
from ringfence.model.words import counted, named
from ringfence.model.workload import ItemKind
from ringfence.store.flows import FlowStore
from ringfence.store.flows.queries import HOPS_AT
from ringfence.store.relational.trials import Trial

_NAMED = 5
_PATIENCE_NS = 30 * 10**9
"""Less than after what agents go back by themselves (`trial.py`)."""
_PROGRAMMING_NS = 2 * 10**9
"""What a node may take until new rules are in force."""


@dataclass(frozen=True, slots=True)
class Seen:
    """Conversations at a trial's nodes, and how many of them were dropped unforeseen."""

    conversations: int
    unforeseen: int
    examples: tuple[str, ...] = ()

    @property
    def share(self) -> float:
        """Of the conversations, how much was dropped unforeseen."""
        return self.unforeseen / self.conversations if self.conversations else 0.0

    def __str__(self) -> str:
        """As people are told."""
        of = counted(self.conversations, "conversation")
        named = f": {'; '.join(self.examples)}" if self.examples else ""
        return f"{self.unforeseen} of {of} dropped unforeseen{named}"


NOTHING_SEEN = Seen(0, 0)


def choose_nodes(agents: Agents, names: Collection[str]) -> tuple[NodeKey, ...]:
    """The nodes of these names, NAME or CLUSTER/NAME, or else the connected one with most pods.

    Raises NotFoundError, and ConflictError where a name is several nodes' or no agent is connected.
    """
    found = []
    for name in names:
        cluster, separator, node = name.rpartition("/")
        found.append(agents.named(NodeName(node), ClusterId(cluster) if separator else None))
    if not names:
        connected = [agent for agent in agents.all() if agent.connected]
        found = sorted(connected, key=lambda agent: -len(agent.state.pods))[:1]
    if absent := [agent.key[1] for agent in found if not agent.connected]:
        raise ConflictError(f"no agent is connected at {named(absent)}")
    if not found:
        raise ConflictError("no agent is connected: there is nowhere to begin")
    return tuple(agent.key for agent in found)


class Step(Enum):
    """What becomes of a trial now."""

    WAIT = "wait"
    KEEP = "keep"
    TAKE_BACK = "take back"


def decide(trial: Trial, seen: Seen, problem: str, now_ns: int) -> tuple[Step, str]:
    """What becomes of a staged trial, and why.

    `problem` says why nothing can be told, empty for nothing: what was seen is not known, or it is
    not in force at one of its nodes. That may pass until a while after the end. Before the end it
    is taken back only if one conversation dropped less would make no difference.
    """
    threshold = trial.threshold or 0.0
    over = now_ns >= trial.until_ns
    one_less = seen.unforeseen - 1
    surely = one_less > 0 and one_less >= threshold * seen.conversations
    if seen.share > threshold and (over or surely):
        return Step.TAKE_BACK, f"more than {threshold:.2%}, {seen}"
    if not over:
        return Step.WAIT, ""
    if problem:
        late = now_ns >= trial.until_ns + _PATIENCE_NS
        return (Step.TAKE_BACK, problem) if late else (Step.WAIT, "")
    if not seen.conversations:
        return Step.TAKE_BACK, "no conversation was seen at its nodes, so nothing is known of it"
    return Step.KEEP, str(seen)


@dataclass(frozen=True, slots=True)
class Tried:
    """What is on trial at some nodes, what was enforced before and is elsewhere; epoch ns."""

    judged_by: JudgedBy
    before: JudgedBy
    nodes: Collection[NodeKey]
    began_ns: int
    until_ns: int


@dataclass(frozen=True, slots=True)
class Before:
    """Keys of the conversations before a trial that passed and it allows, and of those dropped."""

    permitted: NDArray[np.bytes_]
    dropped: NDArray[np.bytes_]


@dataclass(frozen=True)
class Watch:
    """Where to look; agents report every `interval_ns`."""

    store: FlowStore
    tenant: TenantId
    history: History
    through: Callable[[], Through]
    interval_ns: int

    def settled_ns(self, tried: Tried) -> int:
        """From when on windows tell of a trial: one in which both sets decided tells of neither."""
        return tried.began_ns + self.interval_ns + _PROGRAMMING_NS

    async def look_before(self, tried: Tried, now_ns: int) -> Before:
        """The conversations of as long before a trial as it lasts."""
        since_ns = 2 * tried.began_ns - tried.until_ns
        seen, fate = await self._told(tried, since_ns, tried.began_ns, now_ns)
        judged = await judge(seen, self.history, tried.began_ns, tried.judged_by)
        keys = _keys(seen)
        return Before(keys[fate.passed & judged.allowed], keys[fate.dropped])

    async def look(self, tried: Tried, before: Before, now_ns: int) -> Seen:
        """The conversations since a trial began, held against those before."""
        seen, fate = await self._told(tried, self.settled_ns(tried), now_ns, now_ns)
        # A conversation may go on from before a quarantine.
        apart = tuple(replace(one, since_ns=0) for one in tried.judged_by.quarantines)
        tries = replace(tried.judged_by, quarantines=apart)
        judged, by_before = [
            await judge(seen, self.history, now_ns, by, *_names(by, other))
            for by, other in ((tries, tried.before), (tried.before, tries))
        ]
        counts = (judged.in_view | by_before.in_view) & ~_quarantined(judged)
        keys = _keys(seen)
        unforeseen = counts & fate.dropped & (judged.allowed | np.isin(keys, before.permitted))
        unforeseen &= ~np.isin(keys, before.dropped)
        snapshot = self.history.timeline.latest()
        elsewhere = await asyncio.to_thread(_elsewhere, seen, tried.nodes, snapshot)
        unforeseen &= by_before.allowed | ~elsewhere
        known = counts & (fate.passed | fate.dropped)
        return Seen(int(known.sum()), int(unforeseen.sum()), self._name(seen.take(unforeseen)))

    async def _told(
        self, tried: Tried, since_ns: int, until_ns: int, now_ns: int
    ) -> tuple[Records, Dispositions]:
        """The conversations at a trial's nodes in a time, and what became of them."""
        window = {"tenant": self.tenant, "since": since_ns, "until": until_ns}
        hops = await self.store.query(HOPS_AT, window | {"nodes": list(tried.nodes)})
        seen = await asyncio.to_thread(records, hops)
        return seen, await asyncio.to_thread(dispose, seen, self.through(), now_ns)

    def _name(self, some: Records) -> tuple[str, ...]:
        """The first few conversations, as people write them."""
        first = some.take(np.arange(min(len(some), _NAMED)))
        snapshot = self.history.timeline.latest()

        def names(end: str) -> list[str]:
            addresses = first.column(end)
            return [
                snapshot.items[item].display
                if item != NOWHERE
                else format_address(Address(address.tobytes()))
                for item, address in zip(
                    snapshot.locate(addresses, first.seen_from).tolist(), addresses, strict=True
                )
            ]

        ends = zip(
            names("first_consumer"), names("provider"), first.column("protocol").tolist(),
            first.column("provider_port").tolist(), strict=True,
        )  # fmt: skip
        return tuple(
            f"{consumer} to {provider} {format_protocol(protocol)} {port}"
            for consumer, provider, protocol, port in ends
        )


def _names(by: JudgedBy, other: JudgedBy) -> list[WorkspaceName]:
    """The workspaces of one set that the other one has not got, or of another version."""
    others = {(one.name, version) for one, version in other.workspaces}
    return [one.name for one, version in by.workspaces if (one.name, version) not in others]


def _quarantined(judged: Judged) -> NDArray[np.bool_]:
    """At which connections a quarantine decided."""
    deciding = judged.deciding
    of_one = np.array([one.workspace == QUARANTINE for one in deciding.rules] + [False])
    ends = [of_one[numbers] for numbers in deciding.numbers.values()]
    return np.asarray(np.logical_or.reduce(ends))


def _elsewhere(seen: Records, nodes: Collection[NodeKey], snapshot: Snapshot) -> NDArray[np.bool_]:
    """Which of the connections have an end at another node than these."""
    outside = np.zeros(len(snapshot.items) + 1, dtype=np.bool_)  # NOWHERE finds the last one
    for at in snapshot.subjects:
        item = snapshot.items[at]
        place = item.node if item.kind is ItemKind.POD else item.name
        outside[at] = (item.cluster, place) not in nodes
    seen_from = seen.seen_from
    ends = (snapshot.locate(seen.column(end), seen_from) for end in ("first_consumer", "provider"))
    return np.logical_or(*(outside[end] for end in ends))


def _keys(seen: Records) -> NDArray[np.bytes_]:
    """Where who dialled what, to whom it led: what makes a conversation the same again."""
    seen_from = seen.seen_from
    names = [blake2b(one.encode(), digest_size=8).digest() for one in seen_from.clusters]
    homes = np.frombuffer(b"".join(names), dtype=np.uint8).reshape(-1, 8)[seen_from.which]
    ends = [seen.column(end) for end in ("first_consumer", "dialled", "provider")]
    numbers = [
        np.ascontiguousarray(seen.column(name).astype(">u2")).view(np.uint8).reshape(-1, 2)
        for name in ("protocol", "dialled_port", "provider_port")
    ]
    whole = np.ascontiguousarray(np.concatenate([homes, *ends, *numbers], axis=1))
    return whole.view(f"S{whole.shape[1]}").ravel()
