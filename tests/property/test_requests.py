"""Requests: granting all that are needed opens what the asking policies allow, and nothing asks on.

The connections tried are those that a cluster's network could bring about.
"""

from dataclasses import replace
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st

from ringfence.inventory.snapshot import Snapshot
from ringfence.model.address import format_address
from ringfence.model.ids import RevisionId, ScopeName, Version, WorkspaceName
from ringfence.model.policy import Action, CatchAll, Cluster, ServiceEnd, Workspace
from ringfence.model.query import parse
from ringfence.model.ranges import spans
from ringfence.model.scope import Scope, ScopeTree
from ringfence.model.verdict import EndRole
from ringfence.model.workload import ItemKind
from ringfence.policy import requests
from ringfence.policy.connection import tabulate
from ringfence.policy.evaluate import evaluate
from ringfence.policy.moment import Moment
from ringfence.policy.order import Enforced, PolicySet
from ringfence.policy.requests import grant, needed
from tests.property.policy_world import (
    EMPTY,
    LISTED,
    NETWORKS,
    QUERIES,
    connections,
    pods_and_nodes,
    policies,
    services,
)
from tests.property.test_compile import happens

CONNECTIONS = 30
MOMENT = Moment(sets={LISTED: spans(NETWORKS[2:3]), EMPTY: ()})
"""Sets that tell no more addresses apart: what is listed for each policy has an end."""
EVERYTHING = patch.multiple(requests, MOST_EACH=10**6, MOST_CONNECTIONS=10**7, MOST_REQUESTS=10**5)
"""Two dozen addresses that rules all tell apart are many pairs: their bound is not the law's."""
DENIES = st.sampled_from([Action.DENY, Action.DENY, Action.DENY, Action.ALLOW])


@st.composite
def scopes(draw: st.DrawFn) -> ScopeTree:
    """Two applications, the nodes, and what is in production among any of these."""
    root = ScopeName("all")
    queries = {"a": 'app = "a"', "b": 'app = "b"', "nodes": 'kind = "node"'}
    found = [Scope(ScopeName(name), root, parse(text)) for name, text in queries.items()]
    inner = draw(st.sampled_from([root, *(one.name for one in found)]))
    prod = Scope(ScopeName("prod"), inner, parse('env = "prod"'), draw(st.integers(0, 1)))
    return ScopeTree([Scope(root, None, parse("everything")), *found, prod])


@st.composite
def primaries(draw: st.DrawFn, tree: ScopeTree) -> list[Enforced]:
    """Workspaces that mostly allow what others mostly deny."""
    found = []
    for number, scope in enumerate(tree.preorder()[draw(st.integers(0, 1)) :]):
        held = [draw(policies(tree, n)) for n in range(draw(st.integers(1, 4)))]
        held = [
            one if draw(st.integers(0, 3)) == 0 else replace(one, action=Action.ALLOW)
            for one in held
        ]
        clusters = tuple(Cluster(f"c{n}", draw(st.sampled_from(QUERIES))) for n in range(2))
        name = WorkspaceName(f"w{number}")
        catch_all = CatchAll(draw(DENIES), draw(DENIES))
        workspace = Workspace(name, scope.name, True, catch_all, clusters, tuple(held))
        found.append((workspace, Version(number + 1)))
    return found


@given(st.data())
def test_after_granting_all_requests_what_consumers_allow_passes(data: st.DataObject) -> None:
    workloads = [
        replace(one, labels={**one.labels, "address": tuple(map(format_address, one.addresses))})
        for one in data.draw(pods_and_nodes())
    ]
    items = workloads + data.draw(services([o for o in workloads if o.kind is ItemKind.POD]))
    tree = data.draw(scopes())
    bound = data.draw(primaries(tree))
    asked = data.draw(st.lists(connections(items), min_size=CONNECTIONS, max_size=CONNECTIONS))
    snapshot = Snapshot((RevisionId(number), one) for number, one in enumerate(items, 1))
    workspaces = [one for one, _ in bound]
    with EVERYTHING:
        found = needed(snapshot, tree, workspaces, MOMENT)
        assert found == needed(snapshot, tree, workspaces[::-1], MOMENT)
    assert found.whole

    columns = tabulate(snapshot, [one for one in asked if happens(items, one, snapshot)])
    before = PolicySet(snapshot, tree, bound, MOMENT)
    verdicts = evaluate(before, columns)
    granted: list[Enforced] = [
        (grant(one, [r for r in found.requests if r.provider_workspace == one.name]), Version(9))
        for one, _ in bound
    ]
    after = evaluate(PolicySet(snapshot, tree, granted, MOMENT), columns)
    known = {(one.name, p.id): p for one, _ in bound for p in one.policies}
    for row in range(len(columns)):
        place = verdicts.deciding(EndRole.CONSUMER)[row]
        if place == -1:
            continue
        decision = before.rules[place].decision
        if decision.action is Action.DENY or decision.policy is None:
            continue
        policy = known[decision.workspace, decision.policy]
        denies = {
            before.rules[at].decision.workspace
            for role in (EndRole.PROVIDER, EndRole.NODE)
            if (at := verdicts.deciding(role)[row]) != -1
            and before.rules[at].action is Action.DENY
            and (role is EndRole.PROVIDER or isinstance(policy.provider, ServiceEnd))
        }
        if denies and decision.workspace not in denies:
            asks = {(r.workspace, r.policy, r.provider_workspace) for r in found.requests}
            assert {(decision.workspace, decision.policy, one) for one in denies} <= asks
            node = after.deciding(EndRole.NODE)[row]
            if node == -1 or isinstance(policy.provider, ServiceEnd):
                assert after.allowed[row], (policy, decision)
