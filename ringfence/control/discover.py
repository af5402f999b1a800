"""Discovery over what was seen: from conversations to a proposed workspace."""

from dataclasses import dataclass

from ringfence.discovery.edges import edges
from ringfence.discovery.noise import Noise, sift
from ringfence.discovery.propose import propose
from ringfence.flows.connections import Records, ServiceSockets
from ringfence.inventory.snapshot import Snapshot
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
    seen: Records,
    timeline: Timeline,
    snapshot: Snapshot,
    tree: ScopeTree,
    scope: ScopeName,
    name: WorkspaceName,
) -> Discovery:
    """Propose a workspace for a scope from what was seen, for the workloads of the snapshot."""

    def item_of(revision: int) -> Item | None:
        return timeline.revision(RevisionId(revision))[0] if revision else None

    needed, noise = sift(seen)
    found = edges(needed, item_of, ServiceSockets(snapshot))
    workspace = propose(found, snapshot, scope, members(tree, snapshot, scope), name)
    return Discovery(workspace, len(found), noise)
