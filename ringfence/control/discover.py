"""Discovery over what was seen: from conversations to a proposed workspace."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ringfence.discovery.behaviour import behaviour
from ringfence.discovery.decide import Decisions, decide
from ringfence.discovery.ends import Ends
from ringfence.discovery.facts import Facts
from ringfence.discovery.observed import Observed, answered, observe
from ringfence.discovery.peers import Peers
from ringfence.discovery.propose import Proposal, propose
from ringfence.discovery.roles import roles
from ringfence.flows.connections import Records, ServiceSockets, records
from ringfence.inventory.timeline import Timeline
from ringfence.model.ids import RevisionId, ScopeName, WorkspaceName
from ringfence.model.policy import Workspace
from ringfence.model.scope import ScopeTree
from ringfence.model.workload import Item
from ringfence.policy.ends import members


@dataclass(frozen=True, slots=True)
class Discovery:
    """A proposal, and every edge that was observed with what was decided over it."""

    proposal: Proposal
    observed: Observed
    decisions: Decisions

    @property
    def workspace(self) -> Workspace:
        """The proposed workspace."""
        return self.proposal.workspace


def discover(
    hops: pa.Table, timeline: Timeline, tree: ScopeTree, scope: ScopeName, name: WorkspaceName
) -> Discovery:
    """Propose a workspace for a scope from hops (`store.flows.queries.HOPS`)."""
    return discover_in(records(hops), timeline, tree, scope, name)


def discover_in(
    seen: Records, timeline: Timeline, tree: ScopeTree, scope: ScopeName, name: WorkspaceName
) -> Discovery:
    """Propose a workspace for a scope from conversations."""

    def item_of(revision: int) -> Item | None:
        return timeline.revision(RevisionId(revision))[0] if revision else None

    since = int(seen.column("first_ns").min(initial=np.iinfo(np.int64).max))
    until = int(seen.column("last_ns").max(initial=0))
    snapshot = timeline.between(since, until + 1) if len(seen) else timeline.latest()
    within = members(tree, snapshot, scope)
    behaved = behaviour(seen.take(answered(seen)), item_of, snapshot)
    peers = Peers(snapshot, roles(snapshot, snapshot.subjects, behaved), item_of)
    observed = observe(seen, peers, ServiceSockets(snapshot))
    decisions = decide(observed, Facts(observed))
    only_nodes = bool(within) and within <= snapshot.nodes
    made = propose(observed, decisions, Ends(snapshot, within), scope, name, only_nodes=only_nodes)
    return Discovery(made, observed, decisions)
