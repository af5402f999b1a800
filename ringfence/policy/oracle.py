"""The meaning of policy once more, slow and obvious: one connection, one rule at a time.

It exists to be read beside the definition and to be compared with the fast evaluator. It shares
no code with it, only the domain types, the filter language's `matches` and the policies that the
words of a quarantine stand for. Quotation marks hold the sentence that a step follows. Here is the
order, in `oracle_ends` whom it speaks of.
"""

from collections.abc import Iterator, Sequence

from ringfence.model.ids import ScopeName, Version
from ringfence.model.policy import Direction, Policy, Rank, Workspace
from ringfence.model.quarantine import QUARANTINE, Quarantine
from ringfence.model.query import matches
from ringfence.model.scope import ScopeTree
from ringfence.model.verdict import Decision, EndRole, EndVerdict, Layer, Stage, Verdict
from ringfence.model.workload import Item
from ringfence.policy.connection import Connection
from ringfence.policy.moment import UNTOLD, Moment
from ringfence.policy.oracle_ends import Meaning
from ringfence.policy.quarantine import as_workspace


class Oracle:
    """Judges single connections by the definition."""

    def __init__(
        self,
        items: Sequence[Item],
        tree: ScopeTree,
        enforced: Sequence[tuple[Workspace, Version]],
        moment: Moment = UNTOLD,
        quarantines: Sequence[Quarantine] = (),
    ) -> None:
        self._tree = tree
        self._enforced = enforced
        self._quarantines = quarantines
        self._at_ns = moment.at_ns
        self._meaning = Meaning(items, tree, moment)

    def judge(self, connection: Connection) -> Verdict:
        """Follows "Each governed end decides for itself: consumer outbound, provider inbound"."""
        ends = [
            (EndRole.CONSUMER, Direction.OUTBOUND, connection.consumer),
            (EndRole.PROVIDER, Direction.INBOUND, connection.provider),
        ]
        # "The receiving node, if governed, decides inbound as a third end."
        if connection.node is not None:
            ends.append((EndRole.NODE, Direction.INBOUND, connection.node))
        verdicts = []
        for role, direction, address in ends:
            item = self._meaning.holder(address)
            if item is not None and item.is_workload:
                matching = tuple(self._decisions(connection, item, role, direction))
                verdicts.append(EndVerdict(role, direction, item.key, matching))
        return Verdict(tuple(verdicts))

    def _decisions(
        self, connection: Connection, subject: Item, role: EndRole, direction: Direction
    ) -> Iterator[Decision]:
        for place, (stage, workspace, version, said) in enumerate(self._order()):
            # "A workload is governed by every enforced workspace whose scope's full query it
            # matches, ancestors included."
            if not self._governs(workspace, subject):
                continue
            if isinstance(said, Direction):
                matched, action, name = said is direction, workspace.catch_all.of(said), None
            else:
                matched = self._meaning.policy_matches(workspace, said, connection, role, subject)
                action, name = said.action, said.id
            if matched:
                yield Decision(
                    Layer.RINGFENCE,
                    stage,
                    workspace.scope,
                    workspace.name,
                    version,
                    name,
                    place,
                    action,
                )

    # --- the order ---

    def _order(self) -> Iterator[tuple[Stage, Workspace, Version, Policy | Direction]]:
        # "A quarantine stands ahead of every workspace, the latest first; it denies the rest."
        for quarantine in sorted(self._quarantines, key=lambda one: (-one.since_ns, one.name)):
            apart = as_workspace(quarantine)
            for policy in apart.policies:
                yield Stage.ABSOLUTE, apart, Version(0), policy
            for direction in Direction:
                yield Stage.ABSOLUTE, apart, Version(0), direction
        # "Scope priority is pre-order, parents before children." Of one scope's workspaces, which
        # only an analysis brings together, the primary comes first.
        scopes = self._tree.preorder()
        down = [one for scope in scopes for one in self._workspaces_of(scope.name)]
        up = [one for scope in reversed(scopes) for one in self._workspaces_of(scope.name)]
        # 1. "absolute policies, from the highest-priority scope to the lowest"
        for workspace, version in down:
            for policy in self._sorted(workspace, Rank.ABSOLUTE):
                yield Stage.ABSOLUTE, workspace, version, policy
        # 2. "default policies, from the lowest-priority scope to the highest"
        for workspace, version in up:
            for policy in self._sorted(workspace, Rank.DEFAULT):
                yield Stage.DEFAULT, workspace, version, policy
        # 3. "catch-alls, from the lowest-priority scope to the highest; one per direction"
        for workspace, version in up:
            yield Stage.CATCH_ALL, workspace, version, Direction.INBOUND
            yield Stage.CATCH_ALL, workspace, version, Direction.OUTBOUND

    def _workspaces_of(self, scope: ScopeName) -> list[tuple[Workspace, Version]]:
        bound = [one for one in self._enforced if one[0].scope == scope]
        return sorted(bound, key=lambda one: (not one[0].primary, one[0].name))

    def _sorted(self, workspace: Workspace, rank: Rank) -> list[Policy]:
        """Follows "The smaller priority number comes first, then position"."""
        # "From `expires_ns` on it is as if the policy were not there."
        at_ns, policies = self._at_ns, workspace.policies
        numbered = enumerate(p for p in policies if p.expires_ns is None or at_ns < p.expires_ns)
        ranked = [(p.priority, at, p) for at, p in numbered if p.rank is rank]
        return [policy for _, _, policy in sorted(ranked, key=lambda entry: entry[:2])]

    def _governs(self, workspace: Workspace, item: Item) -> bool:
        if workspace.name != QUARANTINE:
            return self._meaning.in_scope(item, workspace.scope)
        query = next(one.query for one in self._quarantines if one.name == workspace.scope)
        return self._meaning.is_subject(item) and matches(query, item.labels)
