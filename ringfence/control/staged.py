"""A staged trial: what the connections of its nodes say of it, and what is to be done.

Analysis says which connections a version denies. A conversation is dropped *unforeseen* where the
enforced set allows it, or where it had passed, and been allowed by that set, before the trial. What
was dropped before as well is not the trial's doing.
"""

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from ringfence.control.agents import Agents, NodeKey
from ringfence.control.analysis import History, judge
from ringfence.control.errors import ConflictError
from ringfence.control.judged import JudgedBy
from ringfence.flows.connections import Records, records
from ringfence.flows.disposition import Through, dispose
from ringfence.inventory.snapshot import NOWHERE
from ringfence.model.address import Address, format_address
from ringfence.model.ids import ClusterId, NodeName, TenantId
from ringfence.model.protocol import format_protocol
from ringfence.model.words import counted, named
from ringfence.store.flows import FlowStore
from ringfence.store.flows.queries import HOPS
from ringfence.store.relational.trials import Trial

_NAMED = 5
_PROGRAMMING_NS = 2 * 10**9
"""What a node may take until new rules are in force."""
_PLACES = ("consumer_node", "provider_node", "node")


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


def decide(trial: Trial, seen: Seen, absent: str, now_ns: int) -> tuple[Step, str]:
    """What becomes of a staged trial, and why.

    `absent` says at which of its nodes it is not in force, empty for none. Before its end it is
    taken back only if one conversation dropped less would make no difference.
    """
    threshold = trial.threshold or 0.0
    over = now_ns >= trial.until_ns
    one_less = seen.unforeseen - 1
    surely = one_less > 0 and one_less >= threshold * seen.conversations
    if seen.share > threshold and (over or surely):
        return Step.TAKE_BACK, f"more than {threshold:.2%}, {seen}"
    if not over:
        return Step.WAIT, ""
    if absent:
        return Step.TAKE_BACK, absent
    if not seen.conversations:
        return Step.TAKE_BACK, "no conversation was seen at its nodes, so nothing is known of it"
    return Step.KEEP, str(seen)


@dataclass(frozen=True)
class Watch:
    """Where to look; agents report every `interval_ns`."""

    store: FlowStore
    tenant: TenantId
    history: History
    through: Callable[[], Through]
    interval_ns: int

    async def look(
        self,
        judged_by: JudgedBy,
        nodes: Collection[NodeKey],
        began_ns: int,
        until_ns: int,
        now_ns: int,
    ) -> Seen:
        """The conversations since a trial began, held against those of as long before that."""
        # A window in which both sets decided tells of neither.
        settled_ns = began_ns + self.interval_ns + _PROGRAMMING_NS
        if now_ns <= settled_ns:
            return NOTHING_SEEN
        workspace = judged_by.workspaces[0][0].name
        through = self.through()

        async def told(since: int, until: int) -> tuple[Records, NDArray[np.bool_], _Fate]:
            window = {"tenant": self.tenant, "since": since, "until": until}
            hops = await self.store.query(HOPS, window)
            all_records = await asyncio.to_thread(records, hops)
            seen = all_records.take(_at(all_records, nodes))
            judged = await judge(seen, self.history, until, judged_by, workspace)
            found = await asyncio.to_thread(dispose, seen, through, now_ns)
            return seen, judged.allowed, _Fate(found.passed, found.dropped)

        earlier, allowed, fate = await told(2 * began_ns - until_ns, began_ns)
        keys = _keys(earlier)
        permitted, dropped_before = keys[fate.passed & allowed], keys[fate.dropped]
        seen, allowed, fate = await told(settled_ns, now_ns)
        keys = _keys(seen)
        unforeseen = fate.dropped & (allowed | np.isin(keys, permitted))
        unforeseen &= ~np.isin(keys, dropped_before)
        known = fate.passed | fate.dropped
        return Seen(int(known.sum()), int(unforeseen.sum()), self._name(seen.take(unforeseen)))

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
                    snapshot.locate(addresses).tolist(), addresses, strict=True
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


@dataclass(frozen=True, slots=True)
class _Fate:
    passed: NDArray[np.bool_]
    dropped: NDArray[np.bool_]


def _at(seen: Records, nodes: Collection[NodeKey]) -> NDArray[np.bool_]:
    """Which of the connections have an end at one of the nodes, or were told of by its agent.

    Of one that was dropped at its consumer there is nothing but that.
    """
    cluster = seen.column("kubernetes_cluster").astype(np.str_)
    places = [seen.column(name).astype(np.str_) for name in _PLACES]
    found = np.zeros(len(seen), dtype=np.bool_)
    for name, node in nodes:
        found |= (cluster == name) & np.logical_or.reduce([place == node for place in places])
    return found


def _keys(seen: Records) -> NDArray[np.bytes_]:
    """Who dialled what, to whom it led: what makes a conversation the same again, shape (n,)."""
    ends = [seen.column(end) for end in ("first_consumer", "dialled", "provider")]
    numbers = [
        np.ascontiguousarray(seen.column(name).astype(">u2")).view(np.uint8).reshape(-1, 2)
        for name in ("protocol", "dialled_port", "provider_port")
    ]
    whole = np.ascontiguousarray(np.concatenate([*ends, *numbers], axis=1))
    return whole.view(f"S{whole.shape[1]}").ravel()
