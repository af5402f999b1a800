"""Whose workspace a policy belongs in: the scope's own, or that of an ancestor.

An ancestor's workspace decides at both ends of what goes between the scopes below it, and is the
place of what all of them need. There a policy is added only: nothing is changed or taken away.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from pyroaring import BitMap

from ringfence.discovery.drafts import Draft
from ringfence.discovery.ends import Ends, NamedEnd
from ringfence.discovery.observed import Observed
from ringfence.discovery.peers import Anybody, Nodes, Peer
from ringfence.discovery.roles import Role
from ringfence.discovery.users import Users
from ringfence.model.errors import InputError
from ringfence.model.ids import ClusterId, PolicyId, ScopeName, WorkspaceName
from ringfence.model.policy import (
    Action,
    ClusterEnd,
    End,
    FilterEnd,
    Policy,
    Rank,
    ScopeEnd,
    ServiceEnd,
    Workspace,
)
from ringfence.model.protocol import PortRange
from ringfence.model.query import all_of
from ringfence.model.scope import ScopeTree
from ringfence.policy.ends import ResolvedEnd, members, resolve
from ringfence.policy.moment import UNTOLD


class Place(NamedTuple):
    """Where a policy stands."""

    workspace: WorkspaceName
    policy: PolicyId


@dataclass(frozen=True, slots=True)
class Placed:
    """Drafts by the workspace that they are for, and by edge what is allowed already."""

    drafts: tuple[tuple[Workspace, list[Draft]], ...]
    """The scope's own first, then ancestors'."""
    allowed: dict[int, Place]


class Ancestors:
    """The workspaces of a scope's ancestors; `add` is whether policies may be added to them.

    Default policies are read from the lowest scope up, so where one of them denies, what is
    proposed stays below it, and comes first.
    """

    def __init__(
        self, observed: Observed, ends: Ends, tree: ScopeTree, scope: ScopeName,
        held: Iterable[Workspace], *, add: bool,
    ) -> None:  # fmt: skip
        self._observed, self._ends, self.tree, self.scope = observed, ends, tree, scope
        self._add = add
        self._snapshot = observed.peers.snapshot
        self._roles = {role.cluster.name: role for role in observed.peers.roles}
        by_scope = {one.scope: one for one in held if one.primary}
        self._above: list[tuple[Workspace, BitMap]] = []  # the nearest first
        for ancestor in reversed(tree.path(scope)[:-1]):
            workspace = by_scope.get(ancestor.name)
            if workspace and any(map(_denies, workspace.policies)):
                break
            if workspace:
                self._above.append((workspace, members(tree, self._snapshot, ancestor.name)))
        self._resolved: dict[tuple[End, ScopeName], ResolvedEnd | None] = {}

    def place(self, own: Workspace, drafts: Iterable[Draft]) -> Placed:
        """Each draft in its workspace, in words that mean the same there."""
        placed: dict[WorkspaceName, tuple[Workspace, list[Draft]]] = {own.name: (own, [])}
        allowed: dict[int, Place] = {}
        together = list(drafts)
        shared = (one.edges for one in together if self._is_shared(one))
        users = Users(self._observed, np.array(sorted(set().union(*shared)), dtype=np.int64))
        for one in together:
            known = self._allowed_by(one, users)
            if known:
                place, edges = known
                allowed |= dict.fromkeys(edges, place)
                continue
            home = self._home(one)
            told, where = self._told_in(one, home or own, users), home or own
            placed.setdefault(where.name, (where, []))[1].append(told)
        return Placed(tuple(placed.values()), allowed)

    def _home(self, draft: Draft) -> Workspace | None:
        """The ancestor's workspace that a draft belongs in; None for the scope's own.

        Core services are for everybody below the nearest one. What else has an end in another
        scope belongs to the nearest that holds both. Who asked looks at what awaits review.
        """
        if draft.review or not (self._above and self._add):
            return None
        # Whom no ancestor's workspace decides over does not make it another's.
        elsewhere = self._elsewhere(draft) & self._above[-1][1]
        if not draft.name and not elsewhere:
            return None
        return next(one for one, held in self._above if draft.name or elsewhere <= held)

    def _is_shared(self, draft: Draft) -> bool:
        """Whether it is of a core service for everybody of the scope."""
        return bool(draft.name) and draft.consumer.end == ScopeEnd(self.scope)

    def _told_in(self, draft: Draft, home: Workspace, users: Users) -> Draft:
        if self._is_shared(draft):
            draft = users.of(draft, home.scope, members(self.tree, self._snapshot, home.scope))
        if home.scope == self.scope:
            return draft
        return replace(
            draft,
            consumer=self._without_cluster(draft.consumer),
            provider=self._without_cluster(draft.provider),
        )

    def _allowed_by(self, draft: Draft, users: Users) -> tuple[Place, frozenset[int]] | None:
        """A policy of an ancestor's workspace that allows the whole draft already, and what edges.

        Where several do so together, the first of them.
        """
        for home, _ in () if draft.review else self._above:
            told = self._told_in(draft, home, users)
            held = [one for one in home.policies if self._covers(one, told, home)]
            if held and all(any(_has(one, port) for one in held) for port in told.ports or (0,)):
                return Place(home.name, held[0].id), told.edges
        return None

    def _elsewhere(self, draft: Draft) -> BitMap:
        """The workloads at the ends of a draft's edges over which the scope does not decide."""
        seen, at = self._observed, np.array(sorted(draft.edges), dtype=np.int64)
        consumers = [seen.peers[one] for one in np.unique(seen.consumer[at]).tolist()]
        providers = [seen.peers[one] for one in np.unique(seen.provider[at]).tolist()]
        found = BitMap.union(BitMap(), *map(self._workloads, (*consumers, *providers)))
        if isinstance(draft.provider.end, ServiceEnd) and Anybody() in consumers:
            # From outside it is nodes that receive.
            roles = [one for one in providers if isinstance(one, Role)]
            clusters = {self._snapshot.items[at].cluster for role in roles for at in role.members}
            for cluster in clusters:
                found |= self._workloads(Nodes(cluster))
        return found

    def _workloads(self, peer: Peer) -> BitMap:
        if self._ends.inside(peer):
            return BitMap()
        match peer:
            case Role():
                return peer.members
            case Nodes(cluster):
                return self._nodes(cluster)
            case _:
                return BitMap()

    def _nodes(self, cluster: ClusterId) -> BitMap:
        items = self._snapshot.items
        return BitMap(at for at in self._snapshot.nodes if items[at].cluster == cluster)

    def _without_cluster(self, named: NamedEnd) -> NamedEnd:
        if not isinstance(named.end, ClusterEnd):
            return named
        scope, role = self.tree.full_query(self.scope), self._roles[named.end.cluster]
        return replace(named, end=FilterEnd(all_of(scope, role.cluster.query)))

    def _covers(self, held: Policy, draft: Draft, home: Workspace) -> bool:
        """Whether a policy allows somewhat of the draft's ports to all that the draft does."""
        return (
            held.action is Action.ALLOW
            and not held.review
            and held.expires_ns is None
            and not held.icmp
            and held.protocol in (None, draft.protocol)
            and self._contains(held.provider, draft.provider.end, home)
            and self._contains(held.consumer, draft.consumer.end, home)
        )

    def _contains(self, held: End, end: End, home: Workspace) -> bool:
        if held == end:
            return True
        wide, narrow = self._resolve(held, home), self._resolve(end, home)
        return (
            wide is not None
            and narrow is not None
            and narrow != ResolvedEnd()
            and narrow.items <= wide.items
            and narrow.services <= wide.services
            and (not narrow.services or narrow.same_cluster == wide.same_cluster)
            and (wide.own_node or not narrow.own_node)
            and all(any(a <= c and d <= b for a, b in wide.ranges) for c, d in narrow.ranges)
        )

    def _resolve(self, end: End, home: Workspace) -> ResolvedEnd | None:
        """Who an end is; None where that is not known here (what names and sets hold)."""
        key = end, home.scope
        if key not in self._resolved:
            try:
                found = resolve(end, Action.ALLOW, home, self.tree, self._snapshot, UNTOLD)
            except InputError:
                self._resolved[key] = None
            else:
                self._resolved[key] = None if found.unknown else found
        return self._resolved[key]


def _denies(policy: Policy) -> bool:
    return policy.action is Action.DENY and policy.rank is Rank.DEFAULT


def _has(policy: Policy, port: int) -> bool:
    """Whether a policy has a port, 0 for every port."""
    return not policy.ports or any(
        isinstance(one, PortRange) and port in one for one in policy.ports
    )
