"""The Ringfence layer: the one order of enforced rules, for judging, explaining, translating.

Three stages, the first match wins: *absolute* policies from the highest-priority scope to the
lowest, *default* policies from the lowest to the highest, *catch-alls* from the lowest to the
highest. Priority of scopes is pre-order, parents before children; inside a workspace the smaller
priority number comes first, then the position.

A rule decides only at members of its workspace's scope: outbound where the consumer is one,
inbound where the provider is. A workload that is a member of any enforced workspace always meets
at least that workspace's catch-all, so only an end that nothing governs is left undecided.
"""

from collections.abc import Iterable, Iterator
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from ringfence.inventory.snapshot import Snapshot
from ringfence.model.errors import InputError
from ringfence.model.ids import PolicyId, Version
from ringfence.model.policy import Action, Direction, Policy, Rank, Workspace
from ringfence.model.scope import ScopeTree
from ringfence.model.verdict import Decision, Layer, Stage
from ringfence.policy.ends import members, own_nodes, resolve
from ringfence.policy.layer import OrderedRule
from ringfence.policy.moment import UNTOLD, Moment
from ringfence.policy.parts import parts

Enforced = tuple[Workspace, Version]


class PolicySet:
    """What a set of enforced workspaces means for one inventory, at one moment.

    Independent of the order in which the workspaces are given. Raises InputError for a workspace
    given twice, and for a policy that names a scope or a cluster that there is not.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        tree: ScopeTree,
        enforced: Iterable[Enforced],
        moment: Moment = UNTOLD,
    ) -> None:
        self.snapshot = snapshot
        self.moment = moment
        self.tree = tree
        self.enforced = tuple(enforced)
        names = [workspace.name for workspace, _ in self.enforced]
        if len(set(names)) < len(names):
            raise InputError(f"a workspace is given twice: {', '.join(sorted(names))}")
        self._members = {
            workspace.scope: members(tree, snapshot, workspace.scope)
            for workspace, _ in self.enforced
        }
        self.rules: tuple[OrderedRule, ...] = tuple(
            rule
            for place, entry in enumerate(self._sequence())
            for rule in self._rules(place, *entry)
        )

    @cached_property
    def governed(self) -> BitMap:
        """The positions of the workloads that any enforced workspace governs."""
        return BitMap.union(BitMap(), *self._members.values())

    @cached_property
    def own_nodes(self) -> NDArray[np.int32]:
        """For each position that of its node; see `ends.own_nodes`."""
        return own_nodes(self.snapshot)

    def _sequence(self) -> Iterator[tuple[Stage, Workspace, Version, Policy | Direction]]:
        """All rules in order, unresolved: a policy, or the direction of a catch-all."""
        priority = {scope.name: place for place, scope in enumerate(self.tree.preorder())}

        def in_order(sign: int) -> list[Enforced]:
            """Workspaces by scope priority; of one scope's, the primary first."""
            return sorted(
                self.enforced,
                key=lambda one: (sign * priority[one[0].scope], not one[0].primary, one[0].name),
            )

        highest_first, lowest_first = in_order(1), in_order(-1)
        for workspace, version in highest_first:
            for policy in self._by_priority(workspace, Rank.ABSOLUTE):
                yield Stage.ABSOLUTE, workspace, version, policy
        for workspace, version in lowest_first:
            for policy in self._by_priority(workspace, Rank.DEFAULT):
                yield Stage.DEFAULT, workspace, version, policy
        for workspace, version in lowest_first:
            for direction in Direction:
                yield Stage.CATCH_ALL, workspace, version, direction

    def _rules(
        self,
        place: int,
        stage: Stage,
        workspace: Workspace,
        version: Version,
        said: Policy | Direction,
    ) -> Iterator[OrderedRule]:
        def decision(policy: PolicyId | None, action: Action) -> Decision:
            scope, name = workspace.scope, workspace.name
            return Decision(Layer.RINGFENCE, stage, scope, name, version, policy, place, action)

        governed = self._members[workspace.scope]
        if isinstance(said, Direction):
            action = workspace.catch_all.of(said)
            yield OrderedRule(decision(None, action), governed, direction=said)
            return
        decided = decision(said.id, said.action)
        consumer, provider = (
            resolve(end, said.action, workspace, self.tree, self.snapshot, self.moment.names)
            for end in (said.consumer, said.provider)
        )
        for one in parts(said, governed, consumer, provider, self.snapshot):
            yield OrderedRule(
                decided, one.members, one.consumer, one.provider, said.protocol, one.ports
            )

    def _by_priority(self, workspace: Workspace, rank: Rank) -> list[Policy]:
        """What has not expired of a rank, the smaller priority first, then by position."""
        chosen = [policy for policy in workspace.policies if policy.rank is rank]
        counting = [policy for policy in chosen if not policy.is_expired(self.moment.at_ns)]
        return sorted(counting, key=lambda policy: policy.priority)
