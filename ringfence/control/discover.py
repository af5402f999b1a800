"""Discovery over what was seen: from the flow store to a proposed workspace."""

from dataclasses import dataclass

import pyarrow as pa

from ringfence.discovery.edges import edges
from ringfence.discovery.noise import Noise, sift
from ringfence.discovery.propose import propose
from ringfence.flows.connections import ServiceSockets, records
from ringfence.inventory.timeline import Timeline
from ringfence.model.ids import RevisionId, ScopeName, WorkspaceName
from ringfence.model.policy import Workspace
from ringfence.model.scope import ScopeTree
from ringfence.model.workload import Item
from ringfence.policy.ends import members


@dataclass(frozen=True, slots=True)
class Discovery:
    """A proposal, how many edges it comes from, and what was left out."""

    workspace: Workspace
    edges: int
    noise: list[Noise]


def discover(
    hops: pa.Table, timeline: Timeline, tree: ScopeTree, scope: ScopeName, name: WorkspaceName
) -> Discovery:
    """Propose a workspace for a scope from hops (`store.flows.queries.HOPS`)."""
    snapshot = timeline.latest()

    def item_of(revision: int) -> Item | None:
        return timeline.revision(RevisionId(revision))[0] if revision else None

    needed, noise = sift(records(hops))
    found = edges(needed, item_of, ServiceSockets(snapshot))
    workspace = propose(found, snapshot, scope, members(tree, snapshot, scope), name)
    return Discovery(workspace, len(found), noise)
