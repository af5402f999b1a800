"""What discovery found, for programs to read: each observed edge with its outcome and reasons."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ringfence.control.admitted import Admitted
from ringfence.control.comparison import NOTHING, Comparison, Use
from ringfence.control.discover import Discovery, Wanted, noise
from ringfence.control.times import format_time
from ringfence.discovery.boundary import Boundary
from ringfence.discovery.changes import ChangeKind
from ringfence.discovery.drafts import confidence
from ringfence.discovery.granularity import Granularity
from ringfence.discovery.observed import DIRECT, Observed
from ringfence.discovery.peers import name_of
from ringfence.discovery.reasons import Outcome, Reason
from ringfence.model.errors import InputError
from ringfence.model.instant import format_instant
from ringfence.model.keys import parse_filter
from ringfence.model.policy import Policy, Workspace
from ringfence.model.protocol import WITH_PORTS, format_protocol
from ringfence.model.scope import Scope
from ringfence.model.words import counted
from ringfence.policy.document import (
    Documents,
    format_documents,
    parse_documents,
    workspace_spec,
)

_ORDER = (Outcome.REVIEW, Outcome.ALLOW, Outcome.NOISE)
_MOST_ADMITTED = 5
"""Policies that people are warned of by name."""


def wanted_of(
    scope: str,
    boundary: str,
    ports: int,
    compress: int,
    exclude: str | None,
    approved: str | None,
    *,
    own: bool,
) -> Wanted:
    """How a proposal for a scope is to be, out of a request; raises InputError.

    Of several approved workspaces, as a proposal has them, that of the scope counts.
    """
    query = parse_filter(exclude) if exclude else None
    held = parse_documents(approved, "approved").workspaces if approved else ()
    if len(held) > 1:
        held = tuple(one for one in held if one.scope == scope)
    if approved and len(held) != 1:
        raise InputError(
            f"approved: one workspace of {scope} is wanted, and there are {len(held)}: give a file "
            "with that one alone"
        )
    fineness = Granularity(Boundary(boundary), ports, compress)
    return Wanted(fineness, query, held[0] if held else None, own=own)


def answer(
    found: Discovery,
    beside: Sequence[Scope],
    compared: Comparison,
    let_pass: Sequence[Admitted] = (),
    *,
    every_edge: bool,
) -> dict[str, Any]:
    """A proposal in YAML, with these scopes, and what to tell of it beside what is approved."""
    proposed = found.workspace, *found.proposal.ancestors
    return {
        "documents": format_documents(Documents(tuple(beside), proposed)),
        "summary": {
            "policies": len(found.workspace.policies) + len(found.proposal.added),
            "edges": found.coverage.seen,
            "served": bool(found.proposal.policies),
            "brief": _brief(found),
            "noise": [
                {"reason": reason, "count": count, "example": example}
                for reason, count, example in noise(found)
            ],
            "changes": changes_of(compared),
            "warnings": [*_warnings(found), *_of_admitted(found, let_pass)],
        },
        "report": report(found, compared, let_pass) if every_edge else None,
    }


def changes_of(compared: Comparison) -> list[dict[str, Any]]:
    """What differs from the approved workspace, each with what was seen of it."""
    uses = {one.policy: use_of(one) for one in compared.uses}
    return [
        {
            "change": str(one.kind),
            **(
                uses[one.policy.id]
                if one.kind is ChangeKind.UNUSED
                else use_of(_seen_of(one.policy))
            ),
        }
        for one in compared.changes
    ]


def _seen_of(policy: Policy) -> Use:
    """What was seen of a proposed policy."""
    seen, note = policy.evidence, f"review: {policy.review}" if policy.review else ""
    if seen is None:
        return Use(policy.id, 0, None, note)
    return Use(policy.id, seen.conversations, seen.last_ns, note)


def use_of(one: Use) -> dict[str, Any]:
    """How often a policy decided, and when it last did."""
    return {
        "policy": one.policy,
        "conversations": one.conversations,
        "last": None if one.last_ns is None else format_time(one.last_ns),
        "note": one.note,
    }


def report(
    found: Discovery, compared: Comparison = NOTHING, let_pass: Sequence[Admitted] = ()
) -> dict[str, Any]:
    """The proposal, every observed edge, the roles, and what all of it rests on."""
    return {
        "workspace": _told(found.workspace),
        "ancestors": [_told(one) for one in found.proposal.ancestors],
        "changes": changes_of(compared),
        "approved": list(map(use_of, compared.uses)),
        "proposals": list(_proposals(found)),
        "admitted": list(_admitted(found, let_pass)),
        "roles": list(_roles(found)),
        "coverage": coverage_of(found),
        "brief": _brief(found),
        "warnings": [*_warnings(found), *_of_admitted(found, let_pass)],
    }


def _brief(found: Discovery) -> bool:
    """Whether something was seen, in too short a time for anything to be rare in it."""
    return bool(found.coverage.seen) and found.decisions.suspicion.brief


def _told(workspace: Workspace) -> dict[str, Any]:
    return {"name": workspace.name, **workspace_spec(workspace)}


def _warnings(found: Discovery) -> Iterator[str]:
    """What the proposal rests on, and what is not enough."""
    own, proposal = found.workspace.name, found.proposal
    added = [one.name for one in proposal.ancestors]
    above = sorted({*added, *(one.workspace for one in proposal.policies.values())} - {own})
    if added:
        policies = counted(len(proposal.added), "policy", "policies")
        yield f"{policies} of these are for workspace {' and '.join(added)}, after what it has"
    if found.begun and found.begun.name in added:
        yield f"workspace {found.begun.name} is new: it allows whatever no other workspace denies"
    elif found.begun and found.coverage.core:
        yield (
            f"no scope above {own} has a workspace, so core services are allowed in {own} alone: "
            f"with --begin they stand in one for {found.begun.scope}"
        )
    if above:
        yield f"{own} needs {' and '.join(above)}: `ringfence enforce {' '.join((*above, own))}`"
    if found.exclude is not None and not found.decisions.of(Reason.EXCLUDED).any():
        snapshot = found.observed.peers.snapshot
        held = len(snapshot.chosen(found.exclude))
        why = (
            f"of {held} that satisfy it, no whole role was seen" if held else "it holds for nobody"
        )
        yield f"--exclude {found.exclude} excludes nothing: {why}"
    yield from found.coverage.sentences()


def _of_admitted(found: Discovery, let_pass: Sequence[Admitted]) -> Iterator[str]:
    """What is suspicious and passes all the same, of the policies with the most of it."""
    for one in let_pass[:_MOST_ADMITTED]:
        yield f"{'/'.join(one.policy)} {one.said(found)}"
    if (more := len(let_pass) - _MOST_ADMITTED) > 0:
        yield f"{counted(more, 'policy', 'policies')} more do so: `admitted` of -o json has all"


def _admitted(found: Discovery, let_pass: Sequence[Admitted]) -> Iterator[dict[str, Any]]:
    """Each suspicious edge that a policy lets pass."""
    seen, decisions = found.observed, found.decisions
    for one in let_pass:
        workspace, policy = one.policy
        for edge in one.edges.tolist():
            yield {
                "workspace": workspace,
                "policy": policy,
                **_edge(seen, edge),
                "outcome": str(decisions.outcome[edge]),
                "reason": str(next(iter(decisions.reasons(edge)))),
            }


def _edge(seen: Observed, edge: int) -> dict[str, Any]:
    """The two ends of an edge, its protocol and port."""
    protocol, port = int(seen.protocol[edge]), int(seen.port[edge])
    return {
        "consumer": name_of(seen.peers[int(seen.consumer[edge])]),
        "provider": name_of(seen.peers[int(seen.provider[edge])]),
        "protocol": format_protocol(protocol),
        "ports": [str(port)] if protocol in WITH_PORTS else [],
    }


def coverage_of(found: Discovery) -> dict[str, Any]:
    """How much of what there is was seen."""
    covered = found.coverage
    return {
        "workloads": covered.workloads,
        "observed_a_day": covered.observed_a_day,
        "silent": covered.silent,
        "share": round(covered.share, 4),
        "span_seconds": covered.span_ns // 10**9,
        "edges": covered.edges,
        "core": covered.core,
        "allowed": covered.decided,
        "noise": covered.noise,
        "unseen_edges": None if covered.unseen_edges is None else round(covered.unseen_edges, 4),
        "unseen_next_conversation": round(covered.unseen_next, 6),
        "would_block": None if covered.would_block is None else round(covered.would_block, 6),
    }


def _proposals(found: Discovery) -> Iterator[dict[str, Any]]:
    seen, decisions, policies = found.observed, found.decisions, found.proposal.policies
    told = seen.by_route
    within = np.flatnonzero(found.in_scope[seen.route_edge])
    outcomes = decisions.outcome[seen.route_edge[within]]
    # What people have to look at comes first.
    for route in np.concatenate([within[outcomes == one] for one in _ORDER]).tolist():
        edge, front = int(seen.route_edge[route]), int(seen.route_front[route])
        service = seen.fronts[front] if front != DIRECT else None
        yield {
            "outcome": str(decisions.outcome[edge]),
            **_edge(seen, edge),
            "service": f"{service.namespace}/{service.name}" if service else None,
            "policy": policies[route].policy if route in policies else None,
            "workspace": policies[route].workspace if route in policies else None,
            "evidence": {
                "conversations": int(told.conversations[route]),
                "failures": int(told.failures[route]),
                "intervals": int(told.intervals[route]),
                "sources": int(told.sources[route]),
                "bytes": int(told.bytes[route]),
                "first": format_instant(int(told.first_ns[route])),
                "last": format_instant(int(told.last_ns[route])),
                "confidence": confidence(int(told.intervals[route]), int(told.sources[route])),
            },
            "reasons": [str(reason) for reason in decisions.reasons(edge)],
        }


def _roles(found: Discovery) -> Iterator[dict[str, Any]]:
    roles, items = found.observed.peers.roles, found.observed.peers.snapshot.items
    for role in roles:
        yield {
            "name": role.cluster.name,
            "query": str(role.cluster.query),
            "members": [
                {
                    "key": items[at].key,
                    "confidence": round(roles.confidence(at), 3),
                    "note": "no conversation seen" if roles.silent(at) else "",
                }
                for at in role.members
            ],
            "candidates": [
                {
                    "query": str(one.query),
                    "precision": round(one.precision, 3),
                    "recall": round(one.recall, 3),
                }
                for one in role.candidates
            ],
        }
