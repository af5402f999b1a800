"""Each kind of finding, for files with an inventory and without one."""

from dataclasses import replace
from functools import partial

import pytest

from ringfence.model.address import parse_address
from ringfence.model.errors import InputError
from ringfence.model.ids import ClusterId, Version, item_key
from ringfence.model.protocol import TCP
from ringfence.model.workload import (
    Backend,
    ContainerPort,
    Item,
    ItemKind,
    ServicePort,
    ServiceSpec,
    ServiceType,
)
from ringfence.policy.document import parse_documents
from ringfence.policy.fields import parse_instant
from ringfence.policy.finding import Oddity
from ringfence.policy.lint import unused
from ringfence.policy.offline import lint_documents
from tests.unit.control.shop import DB, DOCUMENTS, FRONT, NODE, item
from tests.unit.policy.test_needless import HEAD, SERVICE, SERVICE_80, SHOP, policy

AGENT = replace(item(ItemKind.POD, "agent", "192.0.2.1"), host_network=True)
ITEMS = [NODE, FRONT, DB, AGENT, SERVICE]
linted = partial(lint_documents, note=pytest.fail)
"""Of files that say no workspace twice."""
EVERYBODY = "cidr: [0.0.0.0/0, '::/0']"


def told(text: str, items: list[Item] | None) -> list[tuple[int, str, str]]:
    """Line, policy and kind of each finding."""
    found = linted([("shop.yaml", text)], items)
    return [(place.line, one.policy, one.kind) for place, one in found]


@pytest.mark.parametrize(
    ("policies", "kinds"),
    [
        ((policy("a"), policy("b")), [("b", Oddity.SHADOWED)]),
        ((policy("a", SHOP, action="DENY"), policy("b")), [("b", Oddity.CONTRADICTORY)]),
        ((policy("a"), policy("b", ports="3306-3307")), [("a", Oddity.REDUNDANT)]),
        ((policy("a", "filter: 'name = \"gone\"'"),), [("a", Oddity.MATCHES_NOTHING)]),
        ((policy("a", "filter: 'name = \"agent\"'"),), [("a", Oddity.MATCHES_NOTHING)]),
        ((policy("a", consumer="{cidr: 203.0.113.9}", provider="filter: 'kind = \"node\"'"),),
         [("a", Oddity.MATCHES_NOTHING)]),
        ((policy("a", "service: shop/gone"),), [("a", Oddity.NO_SUCH_SERVICE)]),
        ((policy("a", ports="", consumer=f"{{{EVERYBODY}}}"),), [("a", Oddity.TOO_BROAD)]),
        ((policy("a", ports="1-65535", consumer=f"{{{EVERYBODY}}}"),), [("a", Oddity.TOO_BROAD)]),
        ((policy("a", ports="1-40000, 30000-65535", consumer=f"{{{EVERYBODY}}}"),),
         [("a", Oddity.TOO_BROAD)]),
        ((policy("a", ports="1-40000, 2-39000", consumer=f"{{{EVERYBODY}}}"),), []),
        ((policy("a", ports="", protocol="any", consumer="{scope: all}"),),
         [("a", Oddity.TOO_BROAD)]),
        ((policy("a", consumer=f"{{{EVERYBODY}}}"), policy("b", SERVICE_80, "80")), []),
        ((policy("a", SERVICE_80, "", consumer=f"{{{EVERYBODY}}}"),
          policy("b", ports="", protocol="ICMP", consumer=f"{{{EVERYBODY}}}")), []),
    ],
)  # fmt: skip
def test_findings(policies: tuple[str, ...], kinds: list[tuple[str, Oddity]]) -> None:
    found = told(HEAD + "".join(policies), ITEMS)
    assert [(policy, kind) for _, policy, kind in found] == kinds
    text = HEAD + "".join(policies)
    for line, name, _ in found:
        assert text.splitlines()[line - 1] == f"  - id: {name}"


def test_reasons_name_what_makes_it_so() -> None:
    text = HEAD + policy("a", SHOP, action="DENY") + policy("b")
    ((_, one),) = linted([("f", text)], ITEMS)
    assert one.others == ("shop/a",)
    assert one.why == "shop/a decides all its connections before it, and says DENY, not ALLOW"
    hosts = HEAD + policy("a", "filter: 'name = \"agent\"'")
    ((_, one),) = linted([("f", hosts)], ITEMS)
    assert one.why == (
        "provider: it matches only host-network pods (1 pod), each of which is its node"
    )


def pod_with(port: int) -> Item:
    pod = item(ItemKind.POD, f"w{port}", f"10.0.1.{port}")
    return replace(pod, containers=(ContainerPort("http", TCP, port),))


@pytest.mark.parametrize("numbers", [0, 1, 2, 3, 4])
def test_a_policy_of_several_rules_hides_no_other(numbers: int) -> None:
    """A port's name is a rule for each number that it has."""
    shadowed = policy("x", SHOP, action="DENY") + policy("a") + policy("b")
    text = HEAD + shadowed + policy("c", """filter: 'name matches "w.*"'""", "http")
    found = told(text, [*ITEMS, *map(pod_with, range(1, numbers + 1))])
    assert [name for _, name, kind in found if kind == Oddity.CONTRADICTORY] == ["a", "b"]


HTTPS = ServiceSpec(ServiceType.CLUSTER_IP, (ServicePort("https", TCP, 443),))
SERVED = (Backend("https", TCP, parse_address("203.0.113.5"), 6443, True, None),)
API = replace(item(ItemKind.SERVICE, "kubernetes", "10.96.0.1"), namespace="default", service=HTTPS)
FIRST = ClusterId("aaa")
ELSEWHERE = replace(
    API,
    key=item_key(FIRST, ItemKind.SERVICE, "kubernetes"),
    cluster=FIRST,
    service=replace(HTTPS, backends=SERVED),
)
SAID = "provider: Service shop/db has no"
HAS = "it has TCP 80 (db)"


@pytest.mark.parametrize(
    ("one", "why"),
    [
        (policy("a", SERVICE_80, "nosuch"), [f"{SAID} TCP port nosuch; {HAS}"]),
        (policy("a", SERVICE_80, "80, 8080"), [f"{SAID} TCP port 8080; {HAS}"]),
        (policy("a", SERVICE_80, "80", protocol="UDP"), [f"{SAID} UDP port 80; {HAS}"]),
        (policy("a", SERVICE_80, "", protocol="SCTP"), [f"{SAID} SCTP port; {HAS}"]),
        (policy("a", SERVICE_80, "", protocol="ICMP"), [f"{SAID} ICMP port; {HAS}"]),
        (policy("a", ports="nosuch, 80"),
         ["provider: none of its workloads has a TCP port of the name 'nosuch'"]),
        (policy("a", ports="0"), ["provider: port 0 is never used"]),
        (policy("a", "service: shop/gone", action="DENY"),
         ["provider: there is no Service shop/gone, so DENY means everybody"]),
        (policy("a", "service: shop/db, kubernetesCluster: east"),
         ["provider: there is no Service shop/db in east, so ALLOW means nobody"]),
        (policy("a", "apiServer: own", "443", consumer="{apiServer: east}"),
         ["consumer: there is no Service default/kubernetes in east, so ALLOW means nobody"]),
        (policy("a", "apiServer: own", "6443"),
         ["provider: Service default/kubernetes has no TCP port 6443; it has TCP 443 (https)"]),
        (policy("a", consumer="{apiServer: own}"), []),
        (policy("a", consumer="{apiServer: lab}"),
         ["consumer: Service default/kubernetes in lab has no endpoints"]),
        (policy("a", "cidr: 10.0.0.0/8, except: [0.0.0.0/0]"),
         ["provider: its exceptions leave no address"]),
        (policy("a", "cidr: 10.0.0.0/8, except: [10.1.0.0/16, 11.0.0.0/8]"),
         ["provider: exception 11.0.0.0/8 has no address of its blocks"]),
        (policy("a", 'fqdn: "10.0.0.1"'),
         ["provider: 10.0.0.1 is an address, and no name of DNS: write `cidr: 10.0.0.1`"]),
        (policy("a", "node: own", consumer="{node: own}"),
         ["each end is the node of the other, and no node runs on one"]),
    ],
)  # fmt: skip
def test_why_a_policy_matches_nothing(one: str, why: list[str]) -> None:
    found = linted([("f", HEAD + one)], [*ITEMS, ELSEWHERE, API])
    told = {Oddity.MATCHES_NOTHING, Oddity.NO_SUCH_SERVICE}
    assert [finding.why for _, finding in found if finding.kind in told] == why


@pytest.mark.parametrize(
    ("consumer", "broad"),
    [
        ("cidr: 0.0.0.0/0", [True, True]),
        ("cidr: ['0.0.0.0/1', 128.0.0.0/1]", [True, True]),
        ("cidr: '::/0'", [True, True]),
        ("cidr: '::/0', except: ['fd00::/8']", [False, False]),
        ("cidr: '2001:db8::/64'", [False, False]),
        ("cidr: 10.0.0.0/8", [False, False]),
        ("scope: all", [True, True]),
        ("host: outside", [True, False]),  # only an inventory tells who that is
    ],
)
def test_too_broad_is_everybody_of_a_family(consumer: str, broad: list[bool]) -> None:
    text = HEAD + policy("a", ports="", consumer=f"{{{consumer}}}")
    for items, expected in zip((ITEMS, None), broad, strict=True):
        assert (Oddity.TOO_BROAD in {kind for _, _, kind in told(text, items)}) is expected


APP = 'kubernetes.label.app = "x"'


@pytest.mark.parametrize(
    ("policies", "kinds"),
    [
        ((policy("a"), policy("b")), ["b"]),
        ((policy("a", f"filter: '{APP}'"), policy("b", f"filter: '{APP} and kind = \"pod\"'")),
         ["b"]),
        ((policy("a", f"filter: '{APP} and kind = \"pod\"'"), policy("b", f"filter: '{APP}'")),
         []),
        ((policy("a", "filter: 'kind = \"pod\"'"), policy("c", "filter: 'not kind = \"pod\"'"),
          policy("b", f"filter: '{APP}'")), ["b"]),
        ((policy("a", "filter: 'name matches \"d.*\"'"), policy("b")), []),
        ((policy("a", "filter: 'name matches \"d.*\"'"),
          policy("b", f"filter: 'name matches \"d.*\" and {APP}'")), ["b"]),
        # Whatever there is, an address in the smaller block is one in the larger.
        ((policy("a", "cidr: 10.0.0.0/8"), policy("b", "cidr: 10.1.0.0/16")), ["b"]),
        ((policy("a", "cidr: 10.0.0.0/8, except: 10.1.2.0/24"),
          policy("b", "cidr: 10.1.0.0/16")), []),
        # A pod may have any address, and none of a filter's need have it.
        ((policy("a", "cidr: 10.0.0.0/30"), policy("b")), []),
        ((policy("a", "scope: shop"), policy("b", SHOP)), ["b"]),
        ((policy("a", SERVICE_80, "80-90"), policy("b", SERVICE_80, "85")), ["b"]),
        ((policy("a", SERVICE_80, "80-90"), policy("b", SERVICE_80, "85-91")), []),
        # Where the Service is missing, b is everybody.
        ((policy("a", SERVICE_80, ""), policy("b", SERVICE_80, "80", action="DENY")), []),
        ((policy("a", "fqdn: example.org"), policy("b", "fqdn: example.org")), []),
    ],
)  # fmt: skip
def test_shadows_in_every_inventory(policies: tuple[str, ...], kinds: list[str]) -> None:
    found = told(HEAD + "".join(policies), None)
    assert [(name, kind) for _, name, kind in found] == [(one, "shadowed") for one in kinds]


def test_a_secondary_workspace_is_judged_in_its_place() -> None:
    second = (
        HEAD[HEAD.rindex("---") :]
        .replace("{name: shop}", "{name: try}")
        .replace("scope: shop", "scope: shop\n  primary: false")
    )
    text = HEAD + policy("a") + second + policy("a")
    assert told(text, ITEMS) == []
    assert told(text + policy("b"), ITEMS)[0][1:] == ("b", "shadowed")


def test_what_is_refused() -> None:
    with pytest.raises(InputError, match="no workspace 'x'"):
        linted([("f", DOCUMENTS)], None, ["x"])
    alone = HEAD[HEAD.rindex("---") :].replace("scope: shop", "scope: shopp") + policy("a")
    scopes = HEAD[: HEAD.rindex("---")]
    with pytest.raises(InputError, match=r"f:6: spec.scope: there is no scope 'shopp'; did"):
        linted([("scopes", scopes), ("f", alone)], None)
    many = "".join(policy(f"p{n}", f"filter: 'kubernetes.label.l{n} = \"x\"'") for n in range(16))
    with pytest.raises(InputError, match="give an inventory"):
        linted([("f", HEAD + many)], None)


def test_policies_that_expire_are_told_in_time() -> None:
    text = HEAD + policy("a").replace("- id: a", "- id: a\n    owner: me\n    expires: 2026-02-01")
    day_ns = 24 * 3600 * 10**9
    at_ns = parse_instant("2026-02-01")
    for now_ns, within_ns, kinds in (
        (at_ns - 2 * day_ns, day_ns, []),
        (at_ns - day_ns, day_ns, [("expiring", "it expires on 2026-02-01T00:00:00Z (owner me)")]),
        (at_ns, 0, [("expired", "it expired on 2026-02-01T00:00:00Z (owner me)")]),
    ):
        found = linted([("f", text)], ITEMS, now_ns=now_ns, within_ns=within_ns)
        assert [(one.kind, one.why) for _, one in found] == kinds


def test_address_sets_of_files_hold_what_stands_in_them() -> None:
    addresses = """---
apiVersion: ringfence.io/v1alpha1
kind: AddressSet
metadata: {name: partners}
spec: {addresses: [10.0.0.0/8]}
"""
    both = policy("a", "cidr: 10.0.0.0/8"), policy("b", "addressSet: partners")
    assert told(HEAD + "".join(both) + addresses, ITEMS)[0][1:] == ("b", "shadowed")
    assert told(HEAD + "".join(both) + addresses, None) == []
    with pytest.raises(InputError, match="there is no address set 'partners'"):
        told(HEAD + "".join(both), ITEMS)


def test_policies_that_decided_nothing_are_unused() -> None:
    (shop,) = parse_documents(HEAD + policy("a") + policy("b"), "f").workspaces
    (found,) = unused([(shop, Version(1))], {(shop.name, shop.policies[0].id): 3}, "7d")
    assert (found.policy, found.kind) == ("b", Oddity.UNUSED)


def test_a_proposal_goes_with_the_files_it_was_made_for() -> None:
    notes: list[str] = []
    newer = HEAD[HEAD.rindex("---") :] + policy("b") + policy("c")
    files = [("scopes", HEAD + policy("a")), ("proposal", newer)]
    ((place, one),) = lint_documents(files, ITEMS, note=notes.append)
    assert (place.file, one.policy, one.kind) == ("proposal", "c", Oddity.SHADOWED)
    assert notes == ["note: workspace shop is as proposal has it, not scopes"]
    twice = HEAD[: HEAD.rindex("---")].replace("everything", 'name = "x"')
    with pytest.raises(InputError, match="stands in scopes, and otherwise in twice"):
        linted([*files, ("twice", twice)], ITEMS)
