"""Inventories in files: what is left out, what is broken, and what is refused."""

import pytest

from ringfence.inventory.recorded import read_inventory, read_items
from ringfence.model.address import parse_address
from ringfence.model.errors import InputError
from ringfence.model.instant import parse_instant
from ringfence.model.workload import ItemKind

BY_HAND = """
kind: Inventory
from: 2030-01-01T00:00:00Z
to: 2030-01-02T00:00:00Z
items:
  - kind: pod
    kubernetes_cluster: lab
    namespace: shop
    name: carts-1
    addresses: &one [10.0.0.1]
    labels: {kubernetes.label.App: carts, kubernetes.label.version: 2}
    owner: Deployment/carts
    node: null
    containers: [{protocol: TCP, port: 80}]
    probes: [{port: 8080}]
    to: 2030-01-01T12:00:00Z
  - {kind: pod, kubernetes_cluster: lab, namespace: shop, name: carts-2, addresses: *one,
     from: 2030-01-01T12:00:00Z}
  - {kind: network, name: office, addresses: [203.0.113.0/24]}
"""


def test_what_a_file_leaves_out_is_made_of_the_rest() -> None:
    recorded = read_inventory(BY_HAND, "inventory.yaml")
    first = recorded.timeline.at(parse_instant("2030-01-01T11:59:59.999999999Z"))
    (carts,) = (item for item in first.items if item.kind is ItemKind.POD)
    assert carts.labels == {
        "address": ("10.0.0.1",),
        "kind": ("pod",),
        "kubernetes.cluster": ("lab",),
        "kubernetes.label.app": ("carts",),
        "kubernetes.label.version": ("2",),
        "kubernetes.namespace": ("shop",),
        "kubernetes.owner.kind": ("Deployment",),
        "kubernetes.owner.name": ("carts",),
        "name": ("carts-1",),
    }
    assert (carts.key, carts.workload_name) == ("lab/pod/shop/carts-1", "carts")
    assert (carts.probe_ports, carts.addresses) == (((6, 8080),), (parse_address("10.0.0.1"),))
    last = recorded.last()
    assert [item.name for item in last.items] == ["office", "carts-2"]


def test_a_bare_list_is_an_inventory_of_always() -> None:
    (item,) = read_items('[{"kind": "host", "name": "h", "addresses": ["192.0.2.1"]}]', "x.json")
    assert (item.kind, item.name) == (ItemKind.HOST, "h")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("kind: Inventory", "kind: Inventor", "yaml: kind: expected Inventory, found 'Inventor'"),
        ("items:\n", "itemz:\n", "yaml: expected a field items"),
        (BY_HAND, "bad", "yaml: not an inventory as `ringfence inventory export` writes it: expe"),
        (
            "port: 80}",
            "port: 80000}",
            "items[0] (carts-1): containers[0]: port: expected a whole number from 0 to 65535, f",
        ),
        ("port: 80}", "port: eighty}", "containers[0]: port: expected a whole number, found 'eig"),
        ("probes: [{port", "probes: [{prt", "items[0] (carts-1): probes[0]: expected a field port"),
        ("[10.0.0.1]", "[10.0.0.256]", "items[0] (carts-1): addresses: '10.0.0.256' is not an IP"),
        ("203.0.113.0/24", "203.0.113.1/24", "items[2] (office): addresses: '203.0.113.1/24' is"),
        ("to: 2030-01-01T12:00:00Z", "to: yesterday", "items[0] (carts-1): to: 'yesterday' is not"),
        (
            "to: 2030-01-01T12",
            "to: 2999-01-01T12",
            "items[0] (carts-1): to: '2999-01-01T12:00:00Z'",
        ),
        (
            "kind: network",
            "kind: Network",
            "kind: expected one of pod, node, host, service, namespace, kubernetes-policy, net",
        ),
        (
            "labels: {",
            "labels: {a: {b: c}, ",
            "labels.a: expected a text or a list, found {'b': 'c'}",
        ),
        ("to: 2030-01-02T00:00:00Z", "to: 2030-13-02T00:00:00Z", "to: '2030-13-02T00:00:00Z' is"),
        ("from: 2030-01-01T12", "to: 2030-01-01T12", "items[1]: shop/carts-1 already stands in"),
        ("protocol: TCP", "protocol: TPC", "items[0] (carts-1): containers: protocol: 'TPC' is"),
        ("name: office", 'name: "a\\nb"', "items[2]: name: expected 253 printable letters"),
        ("namespace: shop, name: carts-2", f"namespace: {'x' * 254}, name: c", "(c): namespace: "),
        (
            "kind: pod, kubernetes_cluster: lab, namespace: shop, name: carts-2",
            "kind: service, service: {type: ClusterIP}, name: c",
            "expected a Service with a names",
        ),
        ("addresses: *one", "addresses: *two", "line 17: not YAML: *two stands for nothing"),
        ("labels: {", "labels: {[a]: b, ", "line 11: not YAML: a key that is no text"),
        ("labels: {", "labels: [", "not YAML"),
        (
            "name: carts-2",
            "name: carts-1, key: [a]",
            "(carts-1): key: expected a text, found ['a']",
        ),
    ],
)
def test_what_is_wrong_is_told_with_its_place(old: str, new: str, said: str) -> None:
    text = BY_HAND.replace("carts-2", "carts-1") if "carts-1 already" in said else BY_HAND
    assert old in text
    with pytest.raises(InputError) as refused:
        read_inventory(text.replace(old, new), "inventory.yaml")
    assert str(refused.value).startswith("inventory.yaml: ")
    assert said in str(refused.value)


def test_the_time_of_the_whole_is_not_reversed() -> None:
    text = "kind: Inventory\nfrom: %s-01-01T00:00:00Z\nto: 2030-01-01T00:00:00Z\nitems: []\n"
    assert not read_inventory(text % 2030, "inventory.yaml").last().items
    with pytest.raises(InputError, match="expected `from` before `to`: 2031-01"):
        read_inventory(text % 2031, "inventory.yaml")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "- " * 200_000,
        "[" * 200_000,
        "{a: " * 10_000,
        "a: &a [*a]",
        "--- 1\n--- 2",
        "\x00",
        "[1,",
        '[{"kind": "Pod", "name": "a"}',
    ],
)
def test_hostile_texts_are_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"^x\.yaml: "):
        read_inventory(text, "x.yaml")


PODS = "- {{kind: pod, name: a, addresses: &a [{}]}}\n"
MORE = "- {{kind: pod, name: p{}, addresses: *a}}\n"


@pytest.mark.parametrize(
    ("addresses", "pods"),
    [("10.0.0.1, " * 1000, 600), ("1" * 60_000, 1000), ("[10.0.0.1], " * 300, 1000)],
)
def test_aliases_that_multiply_are_refused(addresses: str, pods: int) -> None:
    text = PODS.format(addresses) + "".join(map(MORE.format, range(pods)))
    with pytest.raises(InputError, match=r"x\.yaml: .*aliases that stand for over 500,000 values"):
        read_inventory(text, "x.yaml")


def test_aliases_of_aliases_count_as_all_that_they_stand_for() -> None:
    levels = [f"a{at + 1}: &a{at + 1} [{', '.join([f'*a{at}'] * 9)}]\n" for at in range(7)]
    with pytest.raises(InputError, match="aliases that stand for over"):
        read_inventory("a0: &a0 x\n" + "".join(levels), "x.yaml")
    few = PODS.format("10.0.0.1") + "".join(map(MORE.format, range(1000)))
    told = read_items(few.replace("kind: pod, ", "kind: host, "), "x.yaml")
    assert len(told) == 1001


def test_the_last_pod_of_a_cron_job_is_expected_between_two_runs() -> None:
    run = "{kind: pod, kubernetes_cluster: lab, namespace: shop, owner: CronJob/report, name: %s, "
    lived = "addresses: [%s], from: 2030-01-01T%s:00:00Z, to: 2030-01-01T%s:00:00Z}"
    first = run % "report-1" + lived % ("10.0.0.8", "02", "03")
    second = run % "report-2" + lived % ("10.0.0.1", "04", "05")
    between = f"{BY_HAND}  - {first}\n  - {second}\n"
    expected = {one.name: one for one in read_inventory(between, "x.yaml").expected()}
    assert expected.keys() == {"office", "carts-2", "report-2"}, "a Deployment's is gone for good"
    assert expected["report-2"].addresses == (), "carts-2 holds it by now"
    running = f"{between}  - {run % 'report-3'}from: 2030-01-01T06:00:00Z}}\n"
    names = {one.name for one in read_inventory(running, "x.yaml").expected()}
    assert names == {"office", "carts-2", "report-3"}
