"""What a plan and an application say before anything is done."""

from dataclasses import replace

import pytest

from ringfence.control.apply import decide, read_files
from ringfence.control.compilation import compile_nodes
from ringfence.control.plan import affected, describe_changes, probes_without_policy, refusal
from ringfence.inventory.snapshot import Snapshot
from ringfence.model.errors import InputError
from ringfence.model.ids import RevisionId, ScopeName, Version
from ringfence.model.override import Override
from ringfence.model.query import parse
from ringfence.model.scope import Scope, ScopeTree
from ringfence.model.workload import Item, ItemKind
from ringfence.policy.document import Documents
from ringfence.policy.nodes import Surroundings
from ringfence.policy.order import PolicySet
from tests.unit.control.shop import DB, DOCUMENTS, FRONT, NODE, item

HELD = read_files([("held.yaml", DOCUMENTS)])
TREE = ScopeTree(HELD.scopes)
(SHOP,) = HELD.workspaces
PROBED = item(ItemKind.POD, "probed", "10.0.0.9", probe=8080)


def given(text: str) -> Documents:
    """One document."""
    return read_files([("given.yaml", f"apiVersion: ringfence.io/v1alpha1\n{text}")])


def workspace(name: str, scope: str, more: str = "", catch_all: str = "DENY") -> Documents:
    """A workspace without policies unless `more` says them."""
    return given(
        f"kind: Workspace\nmetadata: {{name: {name}}}\nspec:\n  scope: {scope}\n"
        f"  catchAll: {{inbound: {catch_all}, outbound: ALLOW}}\n{more}"
    )


def policy_set(items: list[Item], *enforced: Documents) -> PolicySet:
    """What these workspaces mean for these items."""
    snapshot = Snapshot((RevisionId(number + 1), one) for number, one in enumerate(items))
    return PolicySet(snapshot, TREE, [(one.workspaces[0], Version(1)) for one in enforced])


@pytest.mark.parametrize(
    ("documents", "says"),
    [
        (workspace("w", "nowhere"), r"given.yaml:\d+: spec.scope: there is no scope 'nowhere'"),
        (workspace("second", "shop"), "two primary workspaces"),
        (given("kind: Scope\nmetadata: {name: other}\nspec: {query: everything}"), "exactly one"),
        (
            given("kind: Scope\nmetadata: {name: s}\nspec: {parent: none, query: everything}"),
            "given.yaml:4: spec.parent: there is no scope 'none'; known here: ",
        ),
        (
            given("kind: Filter\nmetadata: {name: f}\nspec: {scope: shp, query: everything}"),
            "spec.scope: there is no scope 'shp'; did you mean 'shop'",
        ),
        (
            workspace(
                "w",
                "all",
                "  policies:\n  - {id: p, action: ALLOW, consumer: {scope: nowhere},"
                " provider: {scope: all}, protocol: any}\n",
            ),
            "consumer.scope: there is no scope 'nowhere'",
        ),
    ],
)
def test_an_unsound_outcome_is_refused(documents: Documents, says: str) -> None:
    with pytest.raises(InputError, match=says):
        decide(HELD, documents)


def test_a_name_in_two_files_is_refused() -> None:
    with pytest.raises(InputError, match="scope 'all' stands in two files"):
        read_files([("a.yaml", DOCUMENTS), ("b.yaml", DOCUMENTS)])


def test_what_is_not_given_is_left_alone() -> None:
    changes = decide(HELD, workspace("base", "all"))
    assert [(change.name, change.change) for change in changes] == [("base", "created")]


def test_changes_are_told_policy_by_policy() -> None:
    fewer = workspace("shop", "shop").workspaces[0]
    told = list(describe_changes([(SHOP, Version(1))], [(fewer, Version(2))]))
    assert told == [
        (
            "workspace shop: enforce p2 instead of p1, 0 policies, "
            "catch-all inbound DENY, outbound ALLOW"
        ),
        (
            '  - policy front-to-db: action ALLOW, consumer filter name = "front", '
            'provider filter name = "db", protocol TCP, ports [3306]'
        ),
    ]
    assert list(describe_changes([(SHOP, Version(1))], [])) == [
        "workspace shop: no longer enforced"
    ]
    assert not list(describe_changes([(SHOP, Version(1))], [(SHOP, Version(1))]))
    described = replace(SHOP.policies[0], description="since Monday")
    told = list(
        describe_changes([(SHOP, Version(1))], [(replace(SHOP, policies=(described,)), Version(2))])
    )
    assert told == [
        "workspace shop: enforce p2 instead of p1, 1 policy, catch-all inbound DENY, outbound ALLOW"
    ]


def test_whatever_decides_otherwise_is_told() -> None:
    """A scope, a cluster and the order of policies can open as much as a policy can."""
    policies = (
        "  policies:\n"
        "  - {id: a, action: DENY, consumer: {cluster: c}, provider: {cluster: c}, protocol: 6}\n"
        "  - {id: b, action: ALLOW, consumer: {cluster: c}, provider: {cluster: c}, protocol: 6}\n"
    )
    clusters = "  clusters: [{name: c, query: 'name = \"db\"'}]\n"
    (old,) = workspace("shop", "shop", clusters + policies).workspaces
    wider = clusters.replace("'name = \"db\"'", "everything")
    (new,) = workspace("shop", "all", wider + policies, "ALLOW").workspaces
    new = replace(new, policies=new.policies[::-1])
    _, *told = describe_changes([(old, Version(1))], [(new, Version(2))])
    assert told == [
        "  ~ scope: shop → all",
        "  ~ catchAll, inbound: DENY → ALLOW",
        '  ~ cluster c: name = "db" → everything',
        "  ~ policy b: moved from place 2 to 1",
    ]


def test_only_workloads_of_a_workspace_that_changes_are_affected() -> None:
    items = [NODE, FRONT, DB]
    old, new = policy_set(items, HELD), policy_set(items, HELD, workspace("base", "all"))
    assert affected(old, new) == ("n1", "shop/db", "shop/front")
    assert affected(policy_set(items), old) == ("shop/db", "shop/front")
    assert affected(old, old) == ()


BASE = workspace("base", "all", "  policies:\n  - {id: p, action: DENY, protocol: any, "
    "consumer: {scope: shop}, provider: {scope: other}}\n")  # fmt: skip


@pytest.mark.parametrize(
    ("query", "order", "changed"),
    [
        ("""kubernetes.namespace = "shop\"""", 0, ()),
        ("""name = "db\"""", 0, ("n1", "shop/db", "shop/front")),  # BASE names the scope
        ("""kubernetes.namespace = "shop" and not name = "nobody\"""", 0, ()),
        ("""kubernetes.namespace = "shop\"""", 2, ("shop/db", "shop/front")),
    ],
)
def test_changed_scopes_change_for_whom_rules_decide(
    query: str, order: int, changed: tuple[str, ...]
) -> None:
    def tree(shop: Scope) -> ScopeTree:
        other = Scope(ScopeName("other"), shop.parent, parse('kind = "pod"'), 1)
        return ScopeTree([TREE[ScopeName("all")], shop, other])

    old = TREE[ScopeName("shop")]
    new = replace(old, query=parse(query), order=order)
    rivals = workspace("rivals", "other").workspaces[0]
    enforced = [(one, Version(1)) for one in (SHOP, BASE.workspaces[0], rivals)]
    snapshot = Snapshot((RevisionId(n), one) for n, one in enumerate((NODE, FRONT, DB), 1))
    before, after = (PolicySet(snapshot, tree(one), enforced) for one in (old, new))
    assert affected(before, after) == changed


def test_a_scope_that_nobody_names_changes_for_whom_it_gains_and_loses() -> None:
    items = [NODE, FRONT, DB]
    before = policy_set(items, HELD)
    fewer = replace(TREE[ScopeName("shop")], query=parse('name = "db"'))
    tree = ScopeTree([TREE[ScopeName("all")], fewer])
    after = PolicySet(before.snapshot, tree, before.enforced)
    assert affected(before, after) == affected(after, before) == ("shop/front",)


@pytest.mark.parametrize(
    ("documents", "cut_off"),
    [
        (workspace("w", "shop"), ["shop/probed"]),
        (workspace("w", "shop", catch_all="ALLOW"), []),
        (
            workspace(
                "w",
                "shop",
                "  policies:\n  - {id: p, action: ALLOW, consumer: {node: own},"
                " provider: {scope: shop}, protocol: TCP, ports: [8080]}\n",
            ),
            [],
        ),
        (
            workspace(
                "w",
                "shop",
                "  policies:\n  - {id: p, action: DENY, consumer: {node: own},"
                " provider: {scope: shop}, protocol: TCP}\n",
            ),
            [],  # somebody wants it so
        ),
    ],
)
def test_probes_that_only_a_catch_all_denies(documents: Documents, cut_off: list[str]) -> None:
    chosen = policy_set([NODE, FRONT, PROBED], documents)
    assert probes_without_policy(chosen) == cut_off
    assert bool(refusal(chosen, [])) == bool(cut_off)
    assert refusal(chosen, [Override.PROBES]) == ""


@pytest.mark.parametrize(
    ("action", "who", "provider", "what"),
    [
        ("ALLOW", "nobody", "{service: shop/gone}", "provider"),
        ("DENY", "everybody", "{service: shop/gone}", "provider"),
        ("ALLOW", "nobody", "{fqdn: example.org}", "provider"),
        ("DENY", "nobody", "{fqdn: example.org}", "provider"),
        ("ALLOW", "nobody", "{scope: shop}, ports: [http]", "provider's port http"),
    ],
)
def test_an_end_of_which_nothing_is_known_is_noted(
    action: str, who: str, provider: str, what: str
) -> None:
    documents = workspace(
        "w",
        "shop",
        f"  policies:\n  - {{id: p, action: {action}, consumer: {{scope: shop}},"
        f" provider: {provider}, protocol: TCP}}\n",
    )
    compilation = compile_nodes(policy_set([NODE, FRONT, DB], documents), Surroundings())
    assert compilation.warnings == (
        f"w/p@p1: nothing is known of its {what}, which stands for {who}",
    )


def test_a_secondary_workspace_is_never_enforced() -> None:
    second = workspace("second", "shop", "  primary: false\n")
    assert "only primary" in refusal(policy_set([NODE], second), [Override.PROBES])
