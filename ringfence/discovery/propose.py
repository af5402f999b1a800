"""The least workspace under which everything that was seen to be needed still works."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ringfence.discovery.ancestors import Ancestors, Place
from ringfence.discovery.behaviour import Mask
from ringfence.discovery.boundary import Boundary
from ringfence.discovery.compress import LEVELS, Whole, by_port, compress
from ringfence.discovery.core_services import core
from ringfence.discovery.decide import Decisions
from ringfence.discovery.drafts import Draft, Drafting, evidence_of
from ringfence.discovery.ends import Ends
from ringfence.discovery.given_ports import with_given
from ringfence.discovery.granularity import Granularity, Widening
from ringfence.discovery.naming import policy_ids
from ringfence.discovery.observed import Observed
from ringfence.discovery.ports import ranges
from ringfence.discovery.reasons import Reason
from ringfence.model.ids import PolicyId, WorkspaceName
from ringfence.model.policy import (
    Action,
    CatchAll,
    Cluster,
    ClusterEnd,
    Policy,
    Workspace,
)
from ringfence.model.protocol import WITH_PORTS, PortRange


@dataclass(frozen=True)
class Proposal:
    """A workspace, and for each route of the observed edges the policy that it is part of.

    `ancestors` are the workspaces of ancestors as they are to be, with the `added` policies more.
    """

    workspace: Workspace
    ancestors: tuple[Workspace, ...]
    added: frozenset[Place]
    policies: dict[int, Place]


def propose(
    observed: Observed,
    decisions: Decisions,
    ends: Ends,
    above: Ancestors,
    name: WorkspaceName,
    granularity: Granularity,
) -> Proposal:
    """A workspace for the scope below these ancestors; the same for equal input."""
    scope = above.scope
    finest = granularity.boundary is Boundary.VERY_FINE
    drafts = Drafting(observed, ends, each_address=finest).drafts(decisions)
    drafts = Widening(observed, ends, scope).widen(drafts, granularity.boundary)
    services = [
        replace(one, why=("a core service, for all who use it",))
        for one in core(observed, decisions, ends, scope)
    ]
    catch_all = CatchAll(Action.DENY, Action.ALLOW if ends.only_nodes else Action.DENY)
    own = Workspace(name, scope, primary=True, catch_all=catch_all, clusters=(), policies=())
    placed = above.place(own, [*services, *drafts])
    by_edge = {(edge, False): policy for edge, policy in placed.allowed.items()}
    whole = Whole(observed.peers.snapshot, above.tree)
    given = decisions.of(Reason.GIVEN_OUT)
    made: list[tuple[Policy, ...]] = []
    for home, its in placed.drafts:
        found = _policies(observed, its, whole, home, granularity, given)
        made.append(tuple(sorted((policy for _, policy in found), key=lambda one: one.id)))
        by_edge |= {
            (edge, bool(draft.review)): Place(home.name, policy.id)
            for draft, policy in found
            for edge in draft.edges
        }
    ours, *theirs = made
    routes = {
        route: by_edge[edge, review]
        for route, edge in enumerate(observed.route_edge.tolist())
        for review in (False, True)
        if (edge, review) in by_edge
    }
    return Proposal(
        replace(own, clusters=_clusters(observed, ours), policies=ours),
        tuple(
            replace(home, policies=(*home.policies, *added))
            for (home, _), added in zip(placed.drafts[1:], theirs, strict=True)
        ),
        frozenset(
            Place(home.name, policy.id)
            for (home, _), its in zip(placed.drafts[1:], theirs, strict=True)
            for policy in its
        ),
        routes,
    )


def _clusters(observed: Observed, policies: Sequence[Policy]) -> tuple[Cluster, ...]:
    """The clusters that policies name, by name."""
    used = {
        end.cluster
        for policy in policies
        for end in (policy.consumer, policy.provider)
        if isinstance(end, ClusterEnd)
    }
    return tuple(role.cluster for role in observed.peers.roles if role.cluster.name in used)


def _policies(
    observed: Observed,
    drafts: Sequence[Draft],
    whole: Whole,
    home: Workspace,
    granularity: Granularity,
    given: Mask,
) -> list[tuple[Draft, Policy]]:
    """The policies that a workspace gets, each with what it is made of; core services first."""
    ordinary = [one for one in drafts if not one.name]
    # Coarser steps give more consumers the same ports: these are not to be more policies then.
    coarse = granularity.boundary not in {Boundary.VERY_FINE, Boundary.FINE}
    if granularity.compress == LEVELS[0]:
        compressed = [
            *by_port(ordinary, lambda one: _ranges(observed, one, granularity.ports, given))
        ]
    else:
        roles = observed.peers.roles
        compressed = compress(ordinary, roles, whole, granularity.compress, long=coarse)
        compressed = with_given(compressed, observed, given)
    drafts = [*(one for one in drafts if one.name), *compressed]
    ids = policy_ids(drafts, {policy.id for policy in home.policies})
    return [
        (one, policy_of(observed, one, said, granularity.ports, given))
        for one, said in zip(drafts, ids, strict=True)
    ]


def policy_of(
    observed: Observed, draft: Draft, said: PolicyId, level: int, given: Mask | None = None
) -> Policy:
    """The policy that a draft becomes; `level` is how far its ports are generalised.

    `given` are the edges to ports that a provider gives out, where that is known.
    """
    ports = _ranges(observed, draft, level, given)
    if draft.ports and ports != ranges(draft.ports, 1):
        wider = f"{len(draft.ports)} ports seen, which make a range"
        draft = replace(draft, why=(*draft.why, wider))
    return Policy(
        id=said,
        consumer=draft.consumer.end,
        provider=draft.provider.end,
        protocol=draft.protocol,
        ports=ports,
        action=Action.ALLOW,
        description=draft.description,
        review=draft.review,
        evidence=evidence_of(observed, draft),
    )


def _ranges(
    observed: Observed, draft: Draft, level: int, given: Mask | None
) -> tuple[PortRange, ...]:
    """The ports of a draft as its policy has them; none stands for every port."""
    if draft.protocol not in WITH_PORTS:
        return ()
    edges = np.array(sorted(draft.edges), dtype=np.int64)
    free = edges[given[edges]] if given is not None else edges[:0]
    return ranges(draft.ports, level, draft.ports & {*observed.port[free].tolist()})
