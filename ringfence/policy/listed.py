"""A workload's rules as people read them: in order, with who is meant by name, and what widens."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ringfence.inventory.snapshot import NOWHERE, Snapshot
from ringfence.model.address import Address, Network, format_address
from ringfence.model.ids import ClusterId, NodeName
from ringfence.model.policy import Direction
from ringfence.model.workload import Item, ItemKind
from ringfence.policy.compile import Compiled
from ringfence.policy.handle import as_written, format_handle, is_widened, tell_decision
from ringfence.policy.program import (
    NodeBinding,
    NodePolicy,
    PodBinding,
    Rule,
    SetId,
    as_programs,
)

MOST_NAMED = 10
"""Of the members of a set; the others are counted."""
_MOST_SPLIT = 256
"""A block of so many addresses at most may stand for workloads side by side."""


@dataclass(frozen=True, slots=True)
class Members:
    """Who a set holds: the first ones by name, or as blocks where no workload is, and how many."""

    set: SetId
    first: tuple[str, ...]
    count: int


@dataclass(frozen=True, slots=True)
class ListedRule:
    """A rule at its place, from 1, in the program of `hook` that is asked as the `program`th.

    `hook` is where the kernel asks it: input and output judge the workload's own connections,
    prerouting what a node receives for Services. Fail-safes stand in no program: theirs is 0.
    """

    hook: str
    program: int
    place: int
    rule: Rule
    peers: Members | None
    local: Members | None
    widenings: tuple[str, ...]

    @property
    def direction(self) -> Direction:
        """Whose decision it is."""
        return Direction.OUTBOUND if self.hook == "output" else Direction.INBOUND


@dataclass(frozen=True, slots=True)
class Listing:
    """All rules of one workload; `widenings` are those that no rule of it tells by itself."""

    item: Item
    node: NodeName
    uid: str
    """By which its node's agent knows its namespace: a pod's, empty for the node's own."""
    rules: tuple[ListedRule, ...]
    widenings: tuple[str, ...]


def place_of(item: Item) -> tuple[NodeName, str]:
    """The node whose agent holds a workload's rules, and the uid by which that knows it."""
    if item.kind is ItemKind.POD:
        return NodeName(item.node), item.key.rpartition("/")[2]
    return NodeName(item.name), ""


def listed(snapshot: Snapshot, compiled: Compiled, position: int) -> Listing:
    """The rules of the workload at a position; none where nothing governs it."""
    item = snapshot.items[position]
    node, uid = place_of(item)
    policy = compiled.policies.get((item.cluster, node))
    mine = [one for one in compiled.widenings if one.workload == item.key]
    wider: dict[str, dict[str, None]] = {}
    for one in mine:
        wider.setdefault(format_handle(one.decision), {})[one.text] = None
    found = tuple(_rules(snapshot, item.cluster, policy, uid, wider)) if policy else ()
    told = {text for one in found for text in one.widenings}
    rest = [f"{tell_decision(one.decision)}: {one.text}" for one in mine if one.text not in told]
    return Listing(item, node, uid, found, tuple(dict.fromkeys(rest)))


def _rules(
    snapshot: Snapshot,
    home: ClusterId,
    policy: NodePolicy,
    uid: str,
    wider: dict[str, dict[str, None]],
) -> Iterator[ListedRule]:
    binding = next((pod for pod in policy.pods if pod.uid == uid), None) if uid else policy.binding
    for hook, program, rules in _programs(policy, binding) if binding else ():
        for place, rule in enumerate(rules, 1):
            told = wider.get(as_written(rule.handle), ()) if is_widened(rule.handle) else ()
            yield ListedRule(
                hook,
                program,
                place,
                rule,
                _members(snapshot, home, policy, rule.peers),
                _members(snapshot, home, policy, rule.local),
                tuple(told),
            )


def _programs(
    policy: NodePolicy, binding: PodBinding | NodeBinding
) -> Iterator[tuple[str, int, tuple[Rule, ...]]]:
    node = binding if isinstance(binding, NodeBinding) else None
    if node:
        yield "input", 0, node.fail_safes_in
        yield "output", 0, node.fail_safes_out
    for hook, bound in (
        ("input", binding.inbound),
        ("output", binding.outbound),
        ("prerouting", node.received if node else None),
    ):
        for at, name in enumerate(as_programs(bound), 1):
            yield hook, at, policy.programs[name].as_dialled


def _members(
    snapshot: Snapshot, home: ClusterId, policy: NodePolicy, held: SetId | None
) -> Members | None:
    if held is None:
        return None
    blocks = policy.sets[held]
    names = dict.fromkeys(name for block in blocks for name in _names(snapshot, home, block))
    return Members(held, tuple(names)[:MOST_NAMED], len(names))


def _names(snapshot: Snapshot, home: ClusterId, block: Network) -> Iterable[str]:
    """Who holds the addresses of a block, if somebody holds each of them; else the block.

    As its workload's Kubernetes cluster sees it.
    """
    size = block.last - block.first + 1
    if size > _MOST_SPLIT:
        return (str(block),)
    addresses = [Address((block.first + at).to_bytes(16)) for at in range(size)]
    holders = [snapshot.at(address, home) for address in addresses]
    if NOWHERE in holders:
        return (format_address(addresses[0]) if size == 1 else str(block),)
    return (snapshot.items[at].display for at in holders)
