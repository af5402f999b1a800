"""The Ringfence layer: the one order of enforced rules, for judging, explaining, translating.

Three stages, the first match wins: *absolute* policies from the highest-priority scope to the
lowest, *default* policies from the lowest to the highest, *catch-alls* from the lowest to the
highest. Quarantines stand ahead of all others, the latest first. Priority of scopes is pre-order,
parents before children; inside a workspace the smaller priority number comes first, then the
position.

A rule decides only at members of its workspace's scope: outbound where the consumer is one,
inbound where the provider is. A workload that is a member of any enforced workspace always meets
at least that workspace's catch-all, so only an end that nothing governs is left undecided.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from ringfence.inventory.snapshot import Snapshot, View
from ringfence.model.errors import InputError
from ringfence.model.ids import PolicyId, ScopeName, Version, WorkspaceName
from ringfence.model.policy import Action, Denied, Direction, End, Policy, Rank, Workspace
from ringfence.model.quarantine import Quarantine
from ringfence.model.scope import ScopeTree
from ringfence.model.verdict import Decision, Layer, Stage
from ringfence.policy.ends import ResolvedEnd, members, own_nodes, resolve
from ringfence.policy.layer import OrderedRule
from ringfence.policy.moment import UNTOLD, Moment
from ringfence.policy.parts import parts
from ringfence.policy.quarantine import as_workspace, quarantined

Enforced = tuple[Workspace, Version]
Entry = tuple[Stage, Workspace, Version, Policy | Direction]
"""A rule, unresolved: a policy, or a direction, of which all is meant."""
UNVERSIONED = Version(0)
"""Stands for the version of a quarantine."""


class PolicySet:
    """What a set of enforced workspaces, and of quarantines, means for one inventory and moment.

    Independent of the order in which they are given. Raises InputError for a workspace given
    twice, and for a policy that names a scope, a cluster, a filter or an address set that is none.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        tree: ScopeTree,
        enforced: Iterable[Enforced],
        moment: Moment = UNTOLD,
        quarantines: Iterable[Quarantine] = (),
    ) -> None:
        self.snapshot = snapshot
        self.moment = moment
        self.tree = tree
        self.enforced = tuple(enforced)
        self.quarantines = in_order_of_time(quarantines)
        names = [workspace.name for workspace, _ in self.enforced]
        if len(set(names)) < len(names):
            raise InputError(f"a workspace is given twice: {', '.join(sorted(names))}")
        apart = [(as_workspace(one), quarantined(snapshot, one)) for one in self.quarantines]
        self._quarantines = [workspace for workspace, _ in apart]
        self._members = {
            place_of(workspace): members(tree, snapshot, workspace.scope)
            for workspace, _ in self.enforced
        } | {place_of(workspace): held for workspace, held in apart}
        self.rules: tuple[OrderedRule, ...] = tuple(
            rule
            for place, entry in enumerate(
                all_entries(tree, self.enforced, moment.at_ns, self.quarantines)
            )
            for rule in entry_rules(
                place, entry, self._members[place_of(entry[1])], self.resolve, snapshot
            )
        )

    @property
    def workspaces(self) -> tuple[Workspace, ...]:
        """All that the rules come from: the enforced ones, and the quarantines'."""
        return (*(workspace for workspace, _ in self.enforced), *self._quarantines)

    @cached_property
    def governed(self) -> BitMap:
        """The positions of the workloads that any enforced workspace or quarantine governs."""
        return BitMap.union(BitMap(), *self._members.values())

    @cached_property
    def own_nodes(self) -> NDArray[np.int32]:
        """For each position that of its node; see `ends.own_nodes`."""
        return own_nodes(self.snapshot)

    def resolve(self, end: End, action: Action, workspace: Workspace) -> ResolvedEnd:
        """Who an end of a policy with the action is; the policy is one of the workspace."""
        return resolve(end, action, workspace, self.tree, self.snapshot, self.moment)


def all_entries(
    tree: ScopeTree,
    enforced: Iterable[Enforced],
    at_ns: int,
    quarantines: Iterable[Quarantine],
) -> Iterator[Entry]:
    """The rules of quarantines, the latest first, and then of workspaces, in order."""
    for one in in_order_of_time(quarantines):
        workspace = as_workspace(one)
        for policy in workspace.policies:
            yield Stage.ABSOLUTE, workspace, UNVERSIONED, policy
        for direction in Direction:
            yield Stage.ABSOLUTE, workspace, UNVERSIONED, direction
    yield from sequence(tree, enforced, at_ns)


def in_order_of_time(quarantines: Iterable[Quarantine]) -> tuple[Quarantine, ...]:
    """Quarantines, the latest first."""
    return tuple(sorted(quarantines, key=lambda one: (-one.since_ns, one.name)))


def entry_rules(
    place: int,
    entry: Entry,
    governed: BitMap,
    resolved: Callable[[End, Action, Workspace], ResolvedEnd],
    snapshot: View,
) -> Iterator[OrderedRule]:
    """The rules that an entry comes to, where it decides at the governed workloads."""
    stage, workspace, version, said = entry

    def decision(policy: PolicyId | None, action: Action) -> Decision:
        scope, name = workspace.scope, workspace.name
        return Decision(Layer.RINGFENCE, stage, scope, name, version, policy, place, action)

    answers = workspace.denied is Denied.REJECT
    if isinstance(said, Direction):
        action = workspace.catch_all.of(said)
        rejects = answers and action is Action.DENY
        yield OrderedRule(decision(None, action), governed, direction=said, rejects=rejects)
        return
    decided = decision(said.id, said.action)
    consumer = resolved(said.consumer, said.action, workspace)
    provider = resolved(said.provider, said.action, workspace)
    for one in parts(said, governed, consumer, provider, snapshot):
        yield OrderedRule(
            decided,
            one.members,
            one.consumer,
            one.provider,
            said.protocol,
            one.ports,
            expires_ns=said.expires_ns,
            rejects=answers and said.action is Action.DENY,
        )


def place_of(workspace: Workspace) -> tuple[WorkspaceName, ScopeName]:
    """What tells it from others: a scope may be called as a quarantined workload is."""
    return workspace.name, workspace.scope


def sequence(
    tree: ScopeTree, enforced: Iterable[Enforced], at_ns: int = UNTOLD.at_ns
) -> Iterator[Entry]:
    """All rules of workspaces, of policies that count at that time, in order."""
    given = tuple(enforced)
    priority = {scope.name: place for place, scope in enumerate(tree.preorder())}

    def in_order(sign: int) -> list[Enforced]:
        """Workspaces by scope priority; of one scope's, the primary first."""
        return sorted(
            given,
            key=lambda one: (sign * priority[one[0].scope], not one[0].primary, one[0].name),
        )

    highest_first, lowest_first = in_order(1), in_order(-1)
    for workspace, version in highest_first:
        for policy in _by_priority(workspace, Rank.ABSOLUTE, at_ns):
            yield Stage.ABSOLUTE, workspace, version, policy
    for workspace, version in lowest_first:
        for policy in _by_priority(workspace, Rank.DEFAULT, at_ns):
            yield Stage.DEFAULT, workspace, version, policy
    for workspace, version in lowest_first:
        for direction in Direction:
            yield Stage.CATCH_ALL, workspace, version, direction


def _by_priority(workspace: Workspace, rank: Rank, at_ns: int) -> list[Policy]:
    """What counts of a rank, the smaller priority first, then by position."""
    chosen = [policy for policy in workspace.policies if policy.rank is rank]
    counting = [policy for policy in chosen if policy.counts(at_ns)]
    return sorted(counting, key=lambda policy: policy.priority)
