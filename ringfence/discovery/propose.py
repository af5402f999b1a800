"""The least workspace under which everything that was seen to be needed still works."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ringfence.discovery.boundary import Boundary
from ringfence.discovery.compress import compress
from ringfence.discovery.core_services import core
from ringfence.discovery.decide import Decisions
from ringfence.discovery.drafts import Draft, Drafting, evidence_of
from ringfence.discovery.ends import Ends
from ringfence.discovery.granularity import Granularity, Widening
from ringfence.discovery.observed import Observed
from ringfence.discovery.ports import ranges
from ringfence.model.ids import PolicyId, ScopeName, WorkspaceName
from ringfence.model.policy import (
    Action,
    CatchAll,
    Cluster,
    ClusterEnd,
    Policy,
    ServiceEnd,
    Workspace,
)
from ringfence.model.protocol import WITH_PORTS, format_protocol


@dataclass(frozen=True)
class Proposal:
    """A workspace, and for each route of the observed edges the id of the policy it is part of."""

    workspace: Workspace
    policies: dict[int, PolicyId]


def propose(
    observed: Observed,
    decisions: Decisions,
    ends: Ends,
    scope: ScopeName,
    name: WorkspaceName,
    granularity: Granularity,
) -> Proposal:
    """A workspace for the scope; the same for equal input."""
    finest = granularity.boundary is Boundary.VERY_FINE
    drafts = Drafting(observed, ends, each_address=finest).drafts(decisions)
    drafts = Widening(observed, ends, scope).widen(drafts, granularity.boundary)
    ordinary = compress(drafts, observed.peers.roles, granularity.compress)
    services = [
        replace(one, why=("a core service: one policy for all who use it",))
        for one in core(observed, decisions, ends, scope)
    ]
    drafts = [*services, *ordinary]
    ids = _ids(drafts)
    policies = [
        policy_of(observed, one, said, granularity.ports)
        for one, said in zip(drafts, ids, strict=True)
    ]
    by_edge = {
        (edge, bool(draft.review)): said
        for draft, said in zip(drafts, ids, strict=True)
        for edge in draft.edges
    }
    workspace = Workspace(
        name=name,
        scope=scope,
        primary=True,
        catch_all=CatchAll(Action.DENY, Action.ALLOW if ends.only_nodes else Action.DENY),
        clusters=_clusters(observed, policies),
        policies=tuple(sorted(policies, key=lambda policy: policy.id)),
    )
    routes = {
        route: by_edge[edge, review]
        for route, edge in enumerate(observed.route_edge.tolist())
        for review in (False, True)
        if (edge, review) in by_edge
    }
    return Proposal(workspace, routes)


def _clusters(observed: Observed, policies: Sequence[Policy]) -> tuple[Cluster, ...]:
    """The clusters that policies name, by name."""
    used = {
        end.cluster
        for policy in policies
        for end in (policy.consumer, policy.provider)
        if isinstance(end, ClusterEnd)
    }
    return tuple(role.cluster for role in observed.peers.roles if role.cluster.name in used)


def policy_of(observed: Observed, draft: Draft, said: PolicyId, level: int) -> Policy:
    """The policy that a draft becomes; `level` is how far its ports are generalised."""
    ports = ranges(draft.ports, level) if draft.protocol in WITH_PORTS else ()
    if draft.ports and ports != ranges(draft.ports, 1):
        wider = f"{len(draft.ports)} different ports were seen, which make a range"
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


def _ids(drafts: Sequence[Draft]) -> list[PolicyId]:
    """An id for each, made longer where two would share it."""
    plain = [one.name or f"{one.consumer.name}-to-{one.provider.name}" for one in drafts]
    kinds = [
        f"{said}-{'service' if isinstance(one.provider.end, ServiceEnd) else 'direct'}"
        for said, one in zip(plain, drafts, strict=True)
    ]
    spoken = [
        f"{said}-{format_protocol(one.protocol).lower()}"
        for said, one in zip(kinds, drafts, strict=True)
    ]
    chosen = plain
    for longer in (kinds, spoken):
        count = Counter(chosen)
        chosen = [
            long if count[said] > 1 else said for said, long in zip(chosen, longer, strict=True)
        ]
    given: Counter[str] = Counter()
    found = []
    for said in chosen:
        given[said] += 1
        found.append(PolicyId(f"{said}-{given[said]}" if given[said] > 1 else said))
    return found
