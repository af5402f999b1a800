"""Discovery over what was seen: from conversations to a proposed workspace."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ringfence.discovery.ancestors import Ancestors
from ringfence.discovery.behaviour import COLUMNS, Mask, behaviour
from ringfence.discovery.coverage import Coverage, coverage, decided_over
from ringfence.discovery.decide import Decisions, decide, telling
from ringfence.discovery.ends import Ends
from ringfence.discovery.excluded import excluded
from ringfence.discovery.facts import Facts
from ringfence.discovery.granularity import FINE, Granularity
from ringfence.discovery.host_names import with_host_names
from ringfence.discovery.observed import Observed, answered, observe
from ringfence.discovery.peers import Peers
from ringfence.discovery.propose import Proposal, propose
from ringfence.discovery.roles import roles
from ringfence.flows.connections import Records, ServiceSockets
from ringfence.inventory.as_known import AsKnown
from ringfence.inventory.snapshot import Snapshot
from ringfence.inventory.timeline import Timeline
from ringfence.model.errors import InputError
from ringfence.model.ids import RevisionId, ScopeName, WorkspaceName
from ringfence.model.policy import Action, CatchAll, Cluster, Workspace
from ringfence.model.query import Query
from ringfence.model.scope import ScopeTree
from ringfence.model.workload import Item
from ringfence.policy.ends import members


@dataclass(frozen=True, slots=True)
class Wanted:
    """How a proposal is to be: how fine, without which workloads, and beside what is approved.

    `above` are workspaces as they are: what those of the scope's ancestors allow is not proposed,
    and policies are added to them unless it is all to be in the scope's `own`. `begin`: where there
    is none, the nearest ancestor gets one.
    """

    granularity: Granularity = FINE
    exclude: Query | None = None
    approved: Workspace | None = None
    above: Sequence[Workspace] = ()
    own: bool = False
    begin: bool = False
    taken: Collection[WorkspaceName] = ()
    """The names of other workspaces that there are."""


AS_USUAL = Wanted()


@dataclass(frozen=True, slots=True)
class Discovery:
    """A proposal, every edge that was observed with what was decided, and how much that covers."""

    proposal: Proposal
    observed: Observed
    decisions: Decisions
    coverage: Coverage
    ends: Ends
    begun: Workspace | None = None
    """The workspace that the nearest ancestor gets, or could get where none has any."""
    exclude: Query | None = None
    """For whom nothing was to be proposed."""

    @property
    def workspace(self) -> Workspace:
        """The proposed workspace."""
        return self.proposal.workspace

    @property
    def in_scope(self) -> Mask:
        """The edges that have an end in the scope; all of them where it holds everybody."""
        return decided_over(self.observed, self.ends) | self.ends.everybody


@dataclass(frozen=True, slots=True)
class Past:
    """Who lived in the time of some conversations, as last known in it, and by revision."""

    snapshot: Snapshot
    items: dict[int, Item]


def past(seen: Records, known: AsKnown) -> Past:
    """What is known of those who had conversations."""
    since = int(seen.column("first_ns").min(initial=np.iinfo(np.int64).max))
    until = int(seen.column("last_ns").max(initial=0))
    ends = [seen.column(f"{end}_revision") for end in ("first_consumer", "provider")]
    revisions = np.unique(np.concatenate(ends)).tolist()
    return Past(
        # Who is gone by now has left conversations, and an address to another.
        known.between(since, until + 1) if len(seen) else known.latest(),
        {one: known.item(RevisionId(one)) for one in revisions if one},
    )


def peers_of(lived: Past, seen: Records, approved: Sequence[Cluster] = ()) -> Peers:
    """Who is one of what role by all that was seen; approved clusters stay as they are.

    What scanners, intruders and whoever looked once did tells nothing of a workload. Who they are
    shows against the replicas of each, and then roles are made of the rest.
    """
    good = answered(seen)
    replicas = _peers(lived, seen, good, approved, judged=False)
    if replicas.roles.declared:
        return replicas
    observed = observe(seen, replicas, ServiceSockets(lived.snapshot))
    told = telling(decide(observed, Facts(observed)))
    return _peers(lived, seen, good & told[observed.edges], approved, judged=True)


def _peers(
    lived: Past, seen: Records, chosen: Mask, approved: Sequence[Cluster], *, judged: bool
) -> Peers:
    snapshot, item_of = lived.snapshot, lived.items.get
    behaved = behaviour(seen.only(COLUMNS).take(chosen), item_of, snapshot)
    found = roles(snapshot, snapshot.subjects, behaved, approved, judged=judged)
    return Peers(snapshot, found, item_of)


def discover(
    seen: Records,
    timeline: Timeline,
    tree: ScopeTree,
    scope: ScopeName,
    name: WorkspaceName,
    wanted: Wanted = AS_USUAL,
) -> Discovery:
    """Propose a workspace for a scope from what was seen."""
    lived = past(seen, timeline.as_known())
    return discover_in(lived, with_host_names(seen), tree, scope, name, wanted)


def discover_in(
    lived: Past,
    seen: Records,
    tree: ScopeTree,
    scope: ScopeName,
    name: WorkspaceName,
    wanted: Wanted = AS_USUAL,
) -> Discovery:
    """Propose a workspace for a scope from what was seen of those who lived then."""
    snapshot = lived.snapshot
    ends = Ends(snapshot, members(tree, snapshot, scope))
    fixed = wanted.approved.clusters if wanted.approved else ()
    observed = observe(seen, peers_of(lived, seen, fixed), ServiceSockets(snapshot))
    decisions = decide(observed, Facts(observed), excluded(observed, wanted.exclude))
    begun = None if wanted.own else _begun(tree, scope, name, wanted)
    held = (begun,) if begun and wanted.begin else wanted.above
    above = Ancestors(observed, ends, tree, scope, held, add=not wanted.own)
    proposal = propose(observed, decisions, ends, above, name, wanted.granularity)
    covered = coverage(observed, decisions, ends)
    return Discovery(proposal, observed, decisions, covered, ends, begun, wanted.exclude)


def _begun(
    tree: ScopeTree, scope: ScopeName, own: WorkspaceName, wanted: Wanted
) -> Workspace | None:
    """A workspace of the nearest ancestor that denies nobody anything.

    None where there is no ancestor, where one has a primary workspace, and where another workspace
    is called so; raises InputError where it is to begin then.
    """
    ancestors = [one.name for one in tree.path(scope)[:-1]]
    if not ancestors or any(one.primary and one.scope in ancestors for one in wanted.above):
        return None
    name, opened = WorkspaceName(ancestors[-1]), CatchAll(Action.ALLOW, Action.ALLOW)
    if name in {own, *wanted.taken, *(one.name for one in wanted.above)}:
        if wanted.begin:
            raise InputError(
                f"--begin would begin a workspace {name}, and another is called so: give scope"
                f" {name} a primary workspace, or leave --begin out"
            )
        return None
    return Workspace(name, ancestors[-1], True, opened, (), ())


def noise(found: Discovery) -> Iterable[tuple[str, int, str]]:
    """For each reason of noise in the scope: the reason, how many edges, and one of them."""
    observed, decisions = found.observed, found.decisions
    within = np.flatnonzero(found.in_scope)
    deciding = decisions.deciding[within]
    _, first, count = np.unique(deciding, return_index=True, return_counts=True)
    for at, edges in sorted(zip(within[first].tolist(), count.tolist(), strict=True)):
        if decisions.is_noise(at):
            yield next(iter(decisions.reasons(at))), edges, observed.format(at)
