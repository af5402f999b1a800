"""Which suspicious edges a proposal's policies let pass: the coarser it is, the more of them.

No policy is made for a scan, an intruder or what awaits review, but one that means a whole
namespace holds for these too.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ringfence.control.analysis import History, judge
from ringfence.control.deciding import NOBODY, Deciding
from ringfence.control.discover import Discovery
from ringfence.control.judged import JudgedBy
from ringfence.discovery.behaviour import Mask, Numbers
from ringfence.discovery.reasons import Outcome, Reason
from ringfence.flows.connections import Records
from ringfence.model.ids import PolicyId, Version, WorkspaceName
from ringfence.model.policy import Policy, Workspace
from ringfence.model.scope import ScopeTree
from ringfence.model.verdict import EndRole
from ringfence.model.words import counted

_UNNAMED = Version(0)
Place = tuple[WorkspaceName, PolicyId]


@dataclass(frozen=True)
class Admitted:
    """The suspicious edges, at least one, that a policy lets pass."""

    policy: Place
    edges: Numbers

    def said(self, found: Discovery) -> str:
        """How many they are, with one of them and why it is suspicious."""
        edge = int(self.edges[0])
        why = next(iter(found.decisions.reasons(edge))).partition(":")[0]
        return (
            f"lets pass {counted(len(self.edges), 'edge')} of noise or review, such as"
            f" {found.observed.format(edge)} ({why})"
        )


async def admitted(
    found: Discovery,
    seen: Records,
    history: History,
    tree: ScopeTree,
    above: Sequence[Workspace] = (),
) -> tuple[Discovery, tuple[Admitted, ...]]:
    """What policies let pass of scans, intruders and what awaits review, most edges first.

    `seen` is what the proposal was made from, `above` the workspaces beside which it was; it is
    given with this in the `why` of the policies that were made now: others stay as they are. Of
    each edge its last conversation tells.
    """
    decisions = found.decisions
    suspicious = (decisions.outcome == Outcome.REVIEW) | decisions.of(Reason.INTRUDER, Reason.SCAN)
    rows = _last(seen, found.observed.edges, suspicious & found.in_scope)
    workspaces = found.workspace, *found.proposal.ancestors
    judging = {one.name: one for one in above} | {one.name: one for one in workspaces}
    judged_by = JudgedBy(tree, tuple((one, _UNNAMED) for one in judging.values()))
    judged = await judge(seen.take(rows), history, found.observed.until_ns + 1, judged_by)
    policy, places = _policies(judged.deciding)
    passed = judged.allowed & (policy >= 0)
    edges, numbers = found.observed.edges[rows[passed]], policy[passed]
    order = np.lexsort((edges, numbers))
    its, starts = np.unique(numbers[order], return_index=True)
    each = zip(its.tolist(), np.split(edges[order], starts[1:]), strict=False)
    told = [Admitted(places[number], some) for number, some in each]
    told.sort(key=lambda one: -len(one.edges))
    made = {(found.workspace.name, one.id) for one in found.workspace.policies}
    made |= found.proposal.added
    said = {one.policy: one.said(found) for one in told if one.policy in made}
    own, *ancestors = (_with_why(one, said) for one in workspaces)
    proposal = replace(found.proposal, workspace=own, ancestors=tuple(ancestors))
    return replace(found, proposal=proposal), tuple(told)


def _last(seen: Records, edges: Numbers, chosen: Mask) -> Numbers:
    """The row of the last conversation of each chosen edge."""
    rows = np.flatnonzero(chosen[edges])
    rows = rows[np.argsort(seen.column("last_ns")[rows], kind="stable")[::-1]]
    return rows[np.unique(edges[rows], return_index=True)[1]]


def _policies(deciding: Deciding) -> tuple[Numbers, list[Place]]:
    """The policy that let each connection in, or out where none did; NOBODY without one."""
    numbers: dict[Place, int] = {}
    of_rule = [
        numbers.setdefault((one.workspace, one.policy), len(numbers)) if one.policy else NOBODY
        for one in deciding.rules
    ]
    known = np.array([*of_rule, NOBODY], dtype=np.int64)
    found = np.full(len(deciding), NOBODY, dtype=np.int64)
    for role in (EndRole.PROVIDER, EndRole.NODE, EndRole.CONSUMER):
        found = np.where(found == NOBODY, known[deciding.numbers[role]], found)
    return found, list(numbers)


def _with_why(workspace: Workspace, said: dict[Place, str]) -> Workspace:
    def told(policy: Policy) -> Policy:
        also = said.get((workspace.name, policy.id))
        if not also or not policy.evidence:
            return policy
        why = "; ".join(filter(None, (policy.evidence.why, also)))
        return replace(policy, evidence=replace(policy.evidence, why=why))

    return replace(workspace, policies=tuple(map(told, workspace.policies)))
