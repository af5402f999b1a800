"""What an edit of the scope tree would do, told before it is done.

Scopes have no versions: an edit changes at once whom the enforced workspaces govern, whom their
policies name, and whose policies are read first.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import combinations

from pyroaring import BitMap

from ringfence.inventory.snapshot import Snapshot
from ringfence.model.ids import ScopeName, WorkspaceName
from ringfence.model.scope import ScopeTree
from ringfence.model.verdict import Decision
from ringfence.policy.ends import members
from ringfence.policy.order import PolicySet
from ringfence.policy.parties import Parties


@dataclass(frozen=True)
class Move:
    """Workloads that leave the same scopes and join the same ones; positions."""

    left: tuple[ScopeName, ...]
    joined: tuple[ScopeName, ...]
    workloads: BitMap


@dataclass(frozen=True)
class RuleChange:
    """An enforced rule that the edit changes, and at which workloads; positions.

    `gained` and `lost` are where it begins and ceases to decide. `altered` are where it goes on to,
    but names other peers.
    """

    decision: Decision
    gained: BitMap
    lost: BitMap
    altered: BitMap


@dataclass(frozen=True)
class Swap:
    """Two enforced workspaces of which the other one comes first from now on.

    `first` and `second` stand in the new order of priority; `workloads`, positions, are governed
    by both.
    """

    first: WorkspaceName
    second: WorkspaceName
    workloads: BitMap


@dataclass(frozen=True)
class Impact:
    """What an edit does; everything empty for nothing."""

    moves: tuple[Move, ...]
    rules: tuple[RuleChange, ...] = ()
    swaps: tuple[Swap, ...] = ()
    workspaces: tuple[WorkspaceName, ...] = field(init=False)
    """The enforced workspaces that are touched, by name."""
    workloads: BitMap = field(init=False)
    """Positions of the workloads at which other rules decide, or the same in another order."""

    def __post_init__(self) -> None:
        names = {change.decision.workspace for change in self.rules}
        names |= {name for swap in self.swaps for name in (swap.first, swap.second)}
        object.__setattr__(self, "workspaces", tuple(sorted(names)))
        changed = [part for one in self.rules for part in (one.gained, one.lost, one.altered)]
        touched = BitMap.union(BitMap(), *changed, *(swap.workloads for swap in self.swaps))
        object.__setattr__(self, "workloads", touched)


def impact(before: PolicySet, after: PolicySet) -> Impact:
    """What becomes of workloads and rules when the tree of `after` replaces that of `before`.

    Both are of one inventory and the same enforced versions.
    """
    return Impact(
        tuple(_moves(before.snapshot, before.tree, after.tree)),
        tuple(_rule_changes(before, after)),
        tuple(_swaps(before, after)),
    )


def _moves(snapshot: Snapshot, old: ScopeTree, new: ScopeTree) -> Iterator[Move]:
    """Moves, those of most workloads first."""
    nothing = BitMap()
    before, after = (
        {scope.name: members(tree, snapshot, scope.name) for scope in tree.preorder()}
        for tree in (old, new)
    )
    left: dict[int, list[ScopeName]] = {}
    joined: dict[int, list[ScopeName]] = {}
    for name in [*after, *(name for name in before if name not in after)]:
        was, will = before.get(name, nothing), after.get(name, nothing)
        for scopes, positions in ((left, was - will), (joined, will - was)):
            for position in positions:
                scopes.setdefault(position, []).append(name)
    groups: dict[tuple[tuple[ScopeName, ...], tuple[ScopeName, ...]], BitMap] = {}
    for position in {**left, **joined}:
        key = tuple(left.get(position, ())), tuple(joined.get(position, ()))
        groups.setdefault(key, BitMap()).add(position)
    for key, workloads in sorted(groups.items(), key=lambda group: (-len(group[1]), group[0])):
        yield Move(*key, workloads)


@dataclass
class _Policy:
    """Where a policy decided, decides, and has a part that changed."""

    decision: Decision
    was: BitMap = field(default_factory=BitMap)
    will: BitMap = field(default_factory=BitMap)
    changed: BitMap = field(default_factory=BitMap)


def _rule_changes(before: PolicySet, after: PolicySet) -> Iterator[RuleChange]:
    """The policies that change, in their new order; a workspace's two catch-alls count as one."""
    held, now = ({rule.identity: rule for rule in one.rules} for one in (before, after))
    old_parties, new_parties = Parties(before), Parties(after)
    policies: dict[tuple[str | None, ...], _Policy] = {}
    for identity, rule in {**now, **held}.items():
        old, new = held.get(identity), now.get(identity)
        was = old_parties.deciding(old) if old else BitMap()
        will = new_parties.deciding(new) if new else BitMap()
        decision = rule.decision
        key = decision.workspace, decision.scope, decision.policy
        one = policies.setdefault(key, _Policy(decision))
        one.was |= was
        one.will |= will
        ends_stay = old and new and (old.consumer, old.provider) == (new.consumer, new.provider)
        one.changed |= was ^ will if ends_stay else was | will
    for one in policies.values():
        kept = one.changed & one.was & one.will
        if one.changed:
            yield RuleChange(one.decision, one.will - one.was, one.was - one.will, kept)


def _swaps(before: PolicySet, after: PolicySet) -> Iterator[Swap]:
    place = {scope.name: place for place, scope in enumerate(before.tree.preorder())}
    now = {scope.name: place for place, scope in enumerate(after.tree.preorder())}
    bound = sorted((workspace for workspace, _ in after.enforced), key=lambda one: now[one.scope])
    governed = {one.scope: members(after.tree, after.snapshot, one.scope) for one in bound}
    for first, second in combinations(bound, 2):
        if place[first.scope] > place[second.scope]:
            both = governed[first.scope] & governed[second.scope]
            if both:
                yield Swap(first.name, second.name, both)
