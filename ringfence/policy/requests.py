"""What policies need of workspaces of other scopes: requests to those who own them.

A consumer's ALLOW opens nothing where the provider's workspace, or that of the nodes that receive
for a NodePort or load balancer, denies. Such a policy raises a request to the workspace whose rule
denies: granted, it has the same policy too. Here is decided which requests are needed; nothing
remembers what became of them.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import count

import numpy as np

from ringfence.inventory.snapshot import NOWHERE, Snapshot
from ringfence.model import labels
from ringfence.model.address import Network
from ringfence.model.ids import PolicyId, ScopeName, Version, WorkspaceName
from ringfence.model.policy import (
    Action,
    AddressSetEnd,
    ApiServerEnd,
    CidrEnd,
    ClusterEnd,
    End,
    FilterEnd,
    FqdnEnd,
    NamedFilterEnd,
    OutsideEnd,
    OwnNodeEnd,
    Policy,
    Rank,
    ScopeEnd,
    ServiceEnd,
    Workspace,
)
from ringfence.model.query import Compare, Not, Operator, Or, Query, all_of
from ringfence.model.scope import ScopeTree
from ringfence.model.verdict import EndRole
from ringfence.policy.connection import Connection, tabulate
from ringfence.policy.ends import query_of
from ringfence.policy.evaluate import evaluate
from ringfence.policy.layer import OrderedRule
from ringfence.policy.moment import UNTOLD, Moment
from ringfence.policy.order import PolicySet
from ringfence.policy.policy_fields import policy_spec
from ringfence.policy.representatives import Representatives

MOST_CONNECTIONS = 100_000
"""Connections that are judged at once; of what is left over, nothing is requested."""
MOST_EACH = 5_000
"""Of these, for one policy."""
MOST_REQUESTS = 1_000
_ID_DIGITS = 16
_MOST_OF_NAMES = 46
"""Letters of the asking names in the id of what is granted, which makes 63 with the digest."""

_Place = int


@dataclass(frozen=True, slots=True)
class Request:
    """A workspace's policy that another workspace denies, and what would allow it there.

    `wanted` is what the provider's workspace is to have. `denied_by` are the ids of its policies
    that deny, empty for a catch-all alone. `anybody` is whether it allows consumers outside the
    asking scope too. `id` is a digest of all that, so who answers an id answers what was shown.
    """

    id: str
    workspace: WorkspaceName
    scope: ScopeName
    policy: PolicyId
    provider_workspace: WorkspaceName
    wanted: Policy
    denied_by: tuple[PolicyId, ...]
    anybody: bool


@dataclass(frozen=True, slots=True)
class Needed:
    """The requests by workspace and policy; `whole` is whether every policy was looked at."""

    requests: tuple[Request, ...]
    whole: bool


@dataclass(slots=True)
class _Found:
    """What a workspace denies of one policy."""

    rules: set[_Place]
    anybody: bool


class _Held:
    """The workspaces and policies that rules come from."""

    def __init__(self, policy_set: PolicySet) -> None:
        self.workspaces = {one.name: one for one in policy_set.workspaces}
        self._policies = {
            (one.name, policy.id): policy
            for one in policy_set.workspaces
            for policy in one.policies
        }

    def policy(self, rule: OrderedRule) -> Policy | None:
        """The policy that the rule comes from, None for a catch-all."""
        decision = rule.decision
        if decision.policy is None:
            return None
        return self._policies[decision.workspace, decision.policy]


def needed(
    snapshot: Snapshot,
    tree: ScopeTree,
    workspaces: Iterable[Workspace],
    moment: Moment = UNTOLD,
) -> Needed:
    """The requests that these workspaces need of each other, were all of them enforced."""
    versions = [(one, Version(0)) for one in workspaces]
    policy_set = PolicySet(snapshot, tree, versions, moment)
    held = _Held(policy_set)
    asking, connections, whole = _connections(policy_set, held)
    found = _denied(policy_set, asking, connections)
    requests = [
        _request(policy_set, held, place, name, denied)
        for (place, name), denied in sorted(found.items())
    ]
    distinct = {request.id: request for request in requests}
    ordered = sorted(distinct.values(), key=lambda one: (one.workspace, one.policy, one.id))
    return Needed(tuple(ordered[:MOST_REQUESTS]), whole and len(ordered) <= MOST_REQUESTS)


def _connections(policy_set: PolicySet, held: _Held) -> tuple[list[_Place], list[Connection], bool]:
    """For each ALLOW the connections to be judged, each with the place of its rule."""
    representatives = Representatives(policy_set)
    asking: list[_Place] = []
    connections: list[Connection] = []
    whole = True
    for place, rule in enumerate(policy_set.rules):
        policy = held.policy(rule)
        if policy is None or policy.action is not Action.ALLOW:
            continue
        received = isinstance(policy.provider, ServiceEnd)
        room = min(MOST_EACH, MOST_CONNECTIONS - len(connections))
        some = [*representatives.connections(rule, outside=received, limit=room + 1)]
        whole &= len(some) <= room
        connections += some[:room]
        asking += [place] * len(some[:room])
    return asking, connections, whole


def _denied(
    policy_set: PolicySet, asking: Sequence[_Place], connections: Sequence[Connection]
) -> dict[tuple[_Place, WorkspaceName], _Found]:
    """By asking rule and denying workspace, what denies."""
    found: dict[tuple[_Place, WorkspaceName], _Found] = {}
    columns, asks = tabulate(policy_set.snapshot, connections), np.array(asking, dtype=np.int32)
    verdicts, rules = evaluate(policy_set, columns), policy_set.rules
    consumer, provider = map(verdicts.deciding, (EndRole.CONSUMER, EndRole.PROVIDER))
    # Who provides a Service asks as well for what its nodes receive.
    of_service = np.array([bool(rule.provider.services) for rule in rules], dtype=np.bool_)
    asked = {
        EndRole.PROVIDER: consumer == asks,
        EndRole.NODE: of_service[asks] & ((consumer == asks) | (provider == asks)),
    }
    # One element more than there are rules: UNGOVERNED, -1, denies nothing.
    denies = np.array([rule.action is Action.DENY for rule in rules] + [False])
    for role, wanted in asked.items():
        deciding = verdicts.deciding(role)
        for row in np.flatnonzero(wanted & denies[deciding]).tolist():
            place, denying = asking[row], int(deciding[row])
            rule, name = rules[place], rules[denying].decision.workspace
            if name != rule.decision.workspace:
                one = found.setdefault((place, name), _Found(set(), anybody=False))
                one.rules.add(denying)
                at = int(columns.consumer_item[row])
                one.anybody |= at == NOWHERE or at not in rule.members
    return found


def _request(
    policy_set: PolicySet,
    held: _Held,
    place: _Place,
    provider: WorkspaceName,
    denied: _Found,
) -> Request:
    rule, tree = policy_set.rules[place], policy_set.tree
    workspace, policy = held.workspaces[rule.decision.workspace], held.policy(rule)
    assert policy is not None
    cut = None if denied.anybody else _within(policy.consumer, tree, workspace)
    denying = [
        one for at in sorted(denied.rules) if (one := held.policy(policy_set.rules[at])) is not None
    ]
    denied_by = tuple(sorted(one.id for one in denying))
    rank = min((one.rank for one in denying), default=Rank.DEFAULT)  # absolute goes before default
    wanted = replace(
        policy.rule,
        consumer=cut or _elsewhere(policy.consumer, tree, workspace),
        provider=_elsewhere(policy.provider, tree, workspace),
        rank=rank,
        priority=min((one.priority for one in denying if one.rank is rank), default=100),
        description=f"requested by workspace {workspace.name} for its policy {policy.id}",
    )
    said = json.dumps([workspace.name, provider, policy_spec(wanted), denied_by], default=str)
    identifier = hashlib.sha256(said.encode()).hexdigest()[:_ID_DIGITS]
    name = f"{workspace.name}-{policy.id}"[:_MOST_OF_NAMES]
    return Request(
        identifier,
        workspace.name,
        workspace.scope,
        policy.id,
        provider,
        replace(wanted, id=PolicyId(f"{name}-{identifier}")),
        denied_by,
        cut is None,
    )


def grant(workspace: Workspace, requests: Iterable[Request]) -> Workspace:
    """The workspace with what is requested of it, ahead of the policies that deny it.

    A policy that says the same already is moved there. No other is changed: if one has the id of
    what is requested, that gets a number.
    """
    rest = {replace(one.rule, id=PolicyId("")): one for one in reversed(workspace.policies)}
    taken = {policy.id for policy in workspace.policies}
    first, last = list[Policy](), list[Policy]()
    for request in requests:
        held = rest.get(replace(request.wanted.rule, id=PolicyId("")))
        (first if request.denied_by else last).append(held or _numbered(request.wanted, taken))
    placed = {one.id for one in (*first, *last)}
    others = [one for one in workspace.policies if one.id not in placed]
    return replace(workspace, policies=(*first, *others, *last))


def _numbered(wanted: Policy, taken: set[PolicyId]) -> Policy:
    """The policy under an id that is not taken, which then is."""
    ids = (PolicyId(f"{wanted.id}{f'-{number}' if number else ''}") for number in count())
    free = next(one for one in ids if one not in taken)
    taken.add(free)
    return replace(wanted, id=free)


def _elsewhere(end: End, tree: ScopeTree, workspace: Workspace) -> End:
    """The end in words that mean the same in another workspace."""
    return FilterEnd(all_of(query_of(end, workspace, tree))) if isinstance(end, ClusterEnd) else end


def _within(end: End, tree: ScopeTree, workspace: Workspace) -> End | None:
    """The end cut down to the workspace's scope; None where no filter says that."""
    scope = tree.full_query(workspace.scope)
    match end:
        case ScopeEnd() | ClusterEnd() | FilterEnd() | NamedFilterEnd():
            return FilterEnd(all_of(scope, query_of(end, workspace, tree)))
        case CidrEnd(networks, exceptions):
            outside = (Not(_subnet(one)) for one in exceptions)
            return FilterEnd(all_of(scope, _any_of(map(_subnet, networks)), *outside))
        case AddressSetEnd() | FqdnEnd() | OutsideEnd():
            return None
        case OwnNodeEnd() | ApiServerEnd() | ServiceEnd():
            return None


def _subnet(network: Network) -> Query:
    return Compare(labels.ADDRESS, Operator.SUBNET, (str(network),))


def _any_of(queries: Iterable[Query]) -> Query:
    given = tuple(queries)
    return given[0] if len(given) == 1 else Or(given)
