"""YAML documents: what they say, how they print, what is refused and where."""

import pytest

from ringfence.model.errors import InputError
from ringfence.model.ids import ClusterId
from ringfence.model.scope import MOST_SCOPE_LEVELS, ScopeTree
from ringfence.policy.design import single, split
from ringfence.policy.difference import (
    ChangeKind,
    difference,
    moved,
    workspace_difference,
)
from ringfence.policy.document import Documents, format_documents, parse_documents
from ringfence.policy.errors import DocumentError

CANONICAL = """\
apiVersion: ringfence.io/v1alpha1
kind: Scope
metadata:
  name: east
spec:
  query: kubernetes.cluster = "east"
---
apiVersion: ringfence.io/v1alpha1
kind: Scope
metadata:
  name: a-shop
spec:
  parent: east
  query: kubernetes.namespace = "sock-shop"
  order: 2
---
apiVersion: ringfence.io/v1alpha1
kind: Filter
metadata:
  name: dns
spec:
  scope: east
  query: kubernetes.label.k8s-app = "kube-dns"
  restricted: true
  public:
    - {protocol: UDP, ports: [53, 5353-5354]}
    - {protocol: ICMP}
---
apiVersion: ringfence.io/v1alpha1
kind: Filter
metadata:
  name: plain
spec:
  scope: a-shop
  query: everything
---
apiVersion: ringfence.io/v1alpha1
kind: Workspace
metadata:
  name: shop
spec:
  scope: a-shop
  newPods: closed
  catchAll: {inbound: DENY, outbound: ALLOW}
  denied: REJECT
  clusters:
    - name: payment
      query: kubernetes.label.name = "payment"
  policies:
    - id: payment-carts
      action: ALLOW
      consumer: {cluster: payment}
      provider: {service: sock-shop/carts, kubernetesCluster: east}
      protocol: TCP
      ports: [80, 8000-8100]
    - id: probes
      description: 'Kubelets: on their own node only'
      owner: team-shop
      ticket: SEC-7
      expires: '2027-01-31T18:00:00Z'
      approved: true
      review: first seen lately
      rank: absolute
      priority: 5
      action: DENY
      consumer: {node: own}
      provider: {cidr: [0.0.0.0/0, '::/0'], except: 10.0.0.0/8}
      protocol: any
      evidence: {conversations: 12, intervals: 4, sources: 2, bytes: 5000000000, \
first: '2030-03-17T08:00:00Z', last: '2030-03-17T09:00:00Z', confidence: 0.97, \
why: two pods of two do so}
    - id: api
      action: ALLOW
      consumer: {apiServer: own}
      provider: {scope: a-shop}
      protocol: TCP
      ports: [webhook, 9443]
    - id: ping
      action: DENY
      consumer: {host: outside}
      provider: {apiServer: east}
      protocol: ICMP
      icmp: [echo-request, 40, destination-unreachable/4]
    - id: names
      action: LOG
      consumer: {namedFilter: dns}
      provider: {fqdn: '*.example.org'}
      protocol: '47'
"""


def test_the_canonical_text_prints_back() -> None:
    assert format_documents(parse_documents(CANONICAL, "shop.yaml")) == CANONICAL


WORKSPACE = """\
apiVersion: ringfence.io/v1alpha1
kind: Workspace
metadata: {name: shop}
spec:
  scope: shop
  catchAll: {inbound: DENY, outbound: DENY}
  clusters:
  - {name: carts, query: everything}
  policies:
  - id: one
    action: ALLOW
    consumer: {cluster: carts}
    provider: {cidr: 10.0.0.0/8}
    protocol: TCP
    ports: [80]
"""


@pytest.mark.parametrize(
    ("old", "new", "line", "field", "said"),
    [
        ("v1alpha1", "v1", 1, "apiVersion", "not one of ringfence.io/v1alpha1"),
        (
            "kind: Workspace",
            "kind: Workspce",
            2,
            "kind",
            "not one of Scope, Filter, AddressSet, Workspace",
        ),
        ("{name: shop}", "{name: 12}", 3, "metadata.name", "text is wanted"),
        ("{name: shop}", "{}", 3, "metadata", "field 'name' is missing"),
        ("  scope: shop\n", "", 5, "spec", "field 'scope' is missing"),
        ("  catchAll:", "  catchAl:", 6, "spec.catchAl", "did you mean 'catchAll'?"),
        ("inbound: DENY, ", "", 6, "spec.catchAll", "field 'inbound' is missing"),
        ("inbound: DENY", "inbound: deny", 6, "spec.catchAll.inbound", "one of ALLOW, DENY"),
        ("  catchAll", "  newPods: shut\n  catchAll", 6, "spec.newPods", "one of open, closed"),
        ("  clusters", "  denied: reject\n  clusters", 7, "spec.denied", "one of DROP, REJECT"),
        ("  catchAll", "  primary: yes\n  catchAll", 6, "spec.primary", "true or false"),
        ("query: everything", "query: a ~ b", 8, "spec.clusters[0].query", "column 3"),
        ("{name: carts, ", "{name: carts, name: b, ", 8, "spec.clusters[0].name", "twice"),
        (
            "action: ALLOW",
            "action: ALLOW\n    action: DENY",
            12,
            "spec.policies[0].action",
            "twice",
        ),
        ("{cluster: carts}", "{cluster: cart}", 12, "spec.policies[0].consumer.cluster", "'carts'"),
        (
            "{cluster: carts}",
            "{filter: 'kubernetes.namespce = \"a\"'}",
            12,
            "spec.policies[0].consumer.filter",
            "did you mean kubernetes.namespace?",
        ),
        ("{cluster: carts}", "{}", 12, "spec.policies[0].consumer", "exactly one of"),
        (
            "{cluster: carts}",
            "{cluster: carts, node: own}",
            12,
            "spec.policies[0].consumer",
            "one of",
        ),
        ("{cluster: carts}", "{service: x}", 10, "spec.policies[0]", "opens no connections"),
        ("10.0.0.0/8", "10.0.0.1/8", 13, "spec.policies[0].provider.cidr", "host bits"),
        ("10.0.0.0/8", "[]", 13, "spec.policies[0].provider.cidr", "empty list"),
        ("{cidr: 10.0.0.0/8}", "{fqdn: a, except: 10.0.0.0/8}", 13, "", "goes with 'cidr' only"),
        ("    protocol: TCP\n", "", 10, "spec.policies[0]", "field 'protocol' is missing"),
        ("protocol: TCP", "protocol: TCPX", 14, "spec.policies[0].protocol", "not a protocol"),
        ("protocol: TCP", "protocol: ICMP", 10, "spec.policies[0]", "ports on ICMP"),
        ("[80]", "[]", 15, "spec.policies[0].ports", "empty list"),
        ("[80]", "[80, Http]", 15, "spec.policies[0].ports[1]", "not a port"),
        ("[80]", "[80, http]", 10, "spec.policies[0]", "what port 'http' is at its provider"),
        ("ports: [80]", "icmp: [3]", 15, "spec.policies[0].icmp", "with protocol ICMP or"),
        (
            "protocol: TCP\n    ports: [80]",
            "protocol: ICMP\n    icmp: [ping]",
            15,
            "spec.policies[0].icmp[0]",
            "echo-",
        ),
        (
            "protocol: TCP\n    ports: [80]",
            "protocol: ICMP\n    icmp: [256]",
            15,
            "spec.policies[0].icmp[0]",
            "to 255",
        ),
        (
            "{cidr: 10.0.0.0/8}",
            "{host: h1}",
            13,
            "spec.policies[0].provider.host",
            "not one of outside",
        ),
        ("[80]", "[80\n", 17, "", "not YAML"),
        ("{cidr: 10.0.0.0/8}", "{fqdn: a.*.org}", 13, "spec.policies[0].provider.fqdn", "DNS"),
        ("ports: [80]", "expires: soon", 15, "spec.policies[0].expires", "not a time"),
        ("ports: [80]", "expires: 2027-01-31T18:00:00", 15, "spec.policies[0].expires", "zone"),
        ("ports: [80]", "approved: ok", 15, "spec.policies[0].approved", "true or false"),
        ("ports: [80]", "review: [a]", 15, "spec.policies[0].review", "text is wanted"),
        (
            "ports: [80]",
            "evidence: {bytes: 1}",
            15,
            "spec.policies[0].evidence",
            "'conversations' is",
        ),
        ("inbound: DENY", "inbound: LOG", 6, "spec.catchAll.inbound", "one of ALLOW, DENY"),
        ("ports: [80]", "priority: high", 15, "spec.policies[0].priority", "whole number"),
        ("ports: [80]", "priority: 010", 15, "spec.policies[0].priority", "in decimal"),
        ("ports: [80]", f"priority: {10**30}", 15, "spec.policies[0].priority", "in decimal"),
        ("[80]", "[010]", 15, "spec.policies[0].ports[0]", "in decimal"),
        ("[80]", "['80 - 90']", 15, "spec.policies[0].ports[0]", "not a port"),
        ("[80]", "['٨٠']", 15, "spec.policies[0].ports[0]", "not a port"),
        ("protocol: TCP", "protocol: '٦'", 14, "spec.policies[0].protocol", "not a protocol"),
        ("ports: [80]", "expires: 2027W05T18", 15, "spec.policies[0].expires", "not a time"),
        ("ports: [80]", "expires: 2027-02-29", 15, "spec.policies[0].expires", "that there is"),
        (
            "ports: [80]",
            "expires: 9999-12-31T23:59:59-01:00",
            15,
            "spec.policies[0].expires",
            "that there is",
        ),
        ("{name: shop}", "{name: a/b}", 3, "metadata.name", "letters of ASCII"),
        ("{name: shop}", "{name: shop@p1}", 3, "metadata.name", "letters of ASCII"),
        ("id: one", 'id: "\\e[2J"', 10, "spec.policies[0].id", "printable"),
        ("id: one", f"id: {'x' * 1001}", 10, "spec.policies[0].id", "printable"),
        ("id: one", 'id: "\\ud800"', 10, "", "half a surrogate pair"),
        ("id: one", 'id: "\\U00110000"', 1, "", "out of range"),
        ("{cluster: carts}\n", "&a {cluster: carts}\n    approved: *a\n", 13, "", "an alias"),
    ],
)
def test_refusals_name_file_line_and_field(
    old: str, new: str, line: int, field: str, said: str
) -> None:
    assert old in WORKSPACE
    with pytest.raises(DocumentError) as caught:
        parse_documents(WORKSPACE.replace(old, new), "shop.yaml")
    assert caught.value.line == line
    assert field in caught.value.field
    assert said in str(caught.value)
    assert str(caught.value).startswith(f"shop.yaml:{line}: {field}")


FILTER = """\
apiVersion: ringfence.io/v1alpha1
kind: Filter
metadata: {name: dns}
spec:
  scope: east
  query: everything
  public:
  - {protocol: UDP, ports: [53]}
"""


@pytest.mark.parametrize(
    ("old", "new", "where", "said"),
    [
        ("  scope: east\n", "", "5: spec:", "'scope' is missing"),
        ("everything", "name =", "6: spec.query:", "column 7"),
        ("protocol: UDP", "protocol: any", "8: spec.public[0].protocol:", "not a protocol"),
        ("protocol: UDP", "protocol: ICMP", "8: spec.public[0]:", "ports on ICMP"),
        ("[53]", "[dns]", "8: spec.public[0].ports[0]:", "not a port"),
        ("[53]", "[]", "8: spec.public[0].ports:", "empty list"),
    ],
)
def test_refusals_of_filters(old: str, new: str, where: str, said: str) -> None:
    assert parse_documents(FILTER, "").filters
    with pytest.raises(DocumentError) as caught:
        parse_documents(FILTER.replace(old, new), "filter.yaml")
    assert str(caught.value).startswith(f"filter.yaml:{where}")
    assert said in str(caught.value)


@pytest.mark.parametrize("twice", [WORKSPACE, CANONICAL])
def test_a_name_is_given_once(twice: str) -> None:
    with pytest.raises(DocumentError, match=r"metadata.name: there are two"):
        parse_documents(f"{twice}---\n{twice}", "shop.yaml")
    policy = WORKSPACE[WORKSPACE.index("  - id: one") :]
    with pytest.raises(DocumentError, match=r"shop.yaml:16: spec.policies\[1\]: 'one'"):
        parse_documents(WORKSPACE + policy, "shop.yaml")


@pytest.mark.parametrize(
    ("written", "expires_ns"),
    [
        ("2027-01-31", 1_801_353_600 * 10**9),
        ("2027-01-31T18:00:00+01:00", 1_801_414_800 * 10**9),
        ("'2027-01-31T17:00:00Z'", 1_801_414_800 * 10**9),
    ],
)
def test_a_time_has_a_zone_or_is_a_date(written: str, expires_ns: int) -> None:
    text = WORKSPACE.replace("ports: [80]", f"expires: {written}")
    (workspace,) = parse_documents(text, "").workspaces
    assert workspace.policies[0].expires_ns == expires_ns


def scopes(*pairs: tuple[str, str]) -> str:
    head = "apiVersion: ringfence.io/v1alpha1\nkind: Scope\n"
    return "---\n".join(
        f"{head}metadata: {{name: {name}}}\nspec: {{parent: {parent}, query: everything}}\n"
        for name, parent in pairs
    )


def test_scopes_that_are_their_own_ancestors() -> None:
    for text in (
        scopes(("a", "b"), ("b", "a")),
        scopes(*((f"s{at + 1}", f"s{at}") for at in range(2000))),
    ):
        with pytest.raises(DocumentError, match=r"f.yaml:\d+: metadata.name: is its own ancestor"):
            parse_documents(text, "f.yaml")
    root = scopes(("s0", "x")).replace("parent: x, ", "")
    deep = scopes(*((f"s{at + 1}", f"s{at}") for at in range(MOST_SCOPE_LEVELS - 1)))
    read = parse_documents(f"{root}---\n{deep}", "f.yaml")
    assert format_documents(read)
    assert len(ScopeTree(read.scopes).preorder()) == MOST_SCOPE_LEVELS
    (deepest,) = parse_documents(scopes(("x", "s99")), "f.yaml").scopes
    with pytest.raises(InputError, match="over 99 ancestors"):
        ScopeTree([*read.scopes, deepest])


def test_difference_tells_each_part() -> None:
    old = parse_documents(CANONICAL, "old.yaml")
    new = parse_documents(
        CANONICAL.replace("outbound: ALLOW", "outbound: DENY")
        .replace("[80, 8000-8100]", "[80]")
        .replace("id: probes", "id: kubelets")
        .replace("  order: 2\n", ""),
        "new.yaml",
    )
    probes = (
        "description Kubelets: on their own node only, owner team-shop, ticket SEC-7, "
        "expires 2027-01-31T18:00:00Z, approved True, review first seen lately, "
        "rank absolute, priority 5, action DENY, consumer node own, "
        "provider cidr [0.0.0.0/0, ::/0], except 10.0.0.0/8, protocol any, "
        "evidence conversations 12, intervals 4, sources 2, bytes 5000000000, "
        "first 2030-03-17T08:00:00Z, last 2030-03-17T09:00:00Z, confidence 0.97, "
        "why two pods of two do so"
    )
    scope, untouched, *filters, workspace = difference(old, new)
    assert {(one.kind, one.change) for one in filters} == {("Filter", "unchanged")}
    assert (scope.name, scope.change, scope.lines) == (
        "a-shop",
        ChangeKind.CHANGED,
        ("- order: 2",),
    )
    assert (untouched.name, untouched.change, untouched.lines) == ("east", "unchanged", ())
    assert workspace.lines == (
        "~ catchAll, outbound: ALLOW → DENY",
        "~ policy payment-carts, ports: [80, 8000-8100] → [80]",
        f"+ policy kubelets: {probes}",
        f"- policy probes: {probes}",
    )
    assert {change.change for change in difference(Documents(), new)} == {ChangeKind.CREATED}
    assert {change.change for change in difference(old, Documents())} == {ChangeKind.DELETED}


def test_the_order_of_policies_is_a_difference() -> None:
    first, second = (
        f"  - {{id: {name}, action: DENY, consumer: {{node: own}}, "
        "provider: {scope: s}, protocol: any}\n"
        for name in "ab"
    )
    head = WORKSPACE[: WORKSPACE.index("  - id: one")]
    old, new = (
        parse_documents(text, "") for text in (head + first + second, head + second + first)
    )
    (change,) = difference(old, new)
    assert change.lines == ("~ policy b: moved from place 2 to 1",)
    assert change.parts == workspace_difference(old.workspaces[0], new.workspaces[0])


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [("abcd", "abcd", ""), ("abcd", "dabc", "d"), ("abcd", "bcda", "a"), ("abcd", "dcba", "dcb"),
     ("", "", ""), ("abcde", "acbed", "be")],
)  # fmt: skip
def test_the_fewest_policies_are_told_to_have_moved(before: str, after: str, told: str) -> None:
    found = moved(before, after)
    assert len(found) == len(told)
    rest = [name for name in after if name not in found]
    assert rest == [name for name in before if name not in found]


def test_scope_designs() -> None:
    east = ClusterId("east")
    assert [str(scope.query) for scope in single(east)] == ['kubernetes.cluster = "east"']
    tree = ScopeTree(split(east, ["sock-shop", "billing"]))
    assert [scope.name for scope in tree.preorder()] == ["east", "nodes", "sock-shop", "billing"]
    assert [str(tree.full_query(scope.name)) for scope in tree.preorder()[1:3]] == [
        'kubernetes.cluster = "east" and kind = "node"',
        'kubernetes.cluster = "east" and kubernetes.namespace = "sock-shop"',
    ]
