"""Kubernetes' own policies, as a connector tells them and as workspaces hold them."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from ringfence.kube import schema
from ringfence.kube.objects import policy_item
from ringfence.model import labels
from ringfence.model.ids import ClusterId
from ringfence.model.workload import Item, ItemKind
from ringfence.policy.program import decode
from tests.integration.control.conftest import World
from tests.integration.control.test_enforce_command import files
from tests.integration.control.test_enforcement import FakeNode, publish
from tests.unit.control.shop import CLUSTER, DB, DOCUMENTS, FRONT, NODE, item


def labelled(one: Item, **given: str) -> Item:
    """The item with labels of Kubernetes."""
    told = labels.make_labels((labels.LABEL_PREFIX + key, value) for key, value in given.items())
    return replace(one, labels={**one.labels, **told}, exact_labels=labels.inexact(given))


def policy(name: str, spec: Any, kind: str = "NetworkPolicy") -> Item:
    """A policy of namespace shop, or of the cluster."""
    spaced = kind == "NetworkPolicy"
    metadata = schema.Metadata(name, f"{kind}-{name}", "shop" if spaced else "")
    version = "networking.k8s.io/v1" if spaced else "policy.networking.k8s.io/v1alpha2"
    return policy_item(ClusterId(CLUSTER), version, kind, schema.Policy(metadata, spec=spec))


SHOP = replace(item(ItemKind.NAMESPACE, "shop", "::1"), addresses=())
ITEMS = [NODE, SHOP, labelled(FRONT, App="front"), labelled(DB, app="db", App="data")]
TO_DB: dict[str, Any] = {
    "podSelector": {"matchLabels": {"App": "data"}},
    "ingress": [
        {
            "from": [{"podSelector": {"matchLabels": {"App": "front"}}}],
            "ports": [{"protocol": "TCP", "port": 3306}],
        }
    ],
}
TO_NOBODY = {"podSelector": {"matchLabels": {"app": "data"}}}


async def imported(world: World, name: str, **more: Any) -> Any:
    """Import by the API; what it answers."""
    return await world.ok("POST", "/imports", json={"workspace": name, **more})


async def test_the_life_of_a_workspace_of_policies(start: Callable[[], Awaitable[World]]) -> None:
    world = await start()
    connector = await world.enrol("connector", "c")
    await publish(connector, [*ITEMS, policy("db", TO_DB), policy("none", TO_NOBODY)])
    await world.ok("POST", "/apply", json=files())
    code, out, said = await world.run("netpol", "import", "kube", "--cluster", CLUSTER)
    first = "Workspace kube (p1): 2 policies of lab, 2 changes"
    assert (code, out.splitlines()[0]) == (0, first), said
    again = await imported(world, "kube")
    assert (again["version"], again["diff"]) == (1, [])

    # The policies have a life of their own: what a connector tells counts from then on.
    wider = {**TO_DB, "ingress": [{"ports": [{"protocol": "TCP", "port": 3306}]}]}
    await publish(connector, [*ITEMS, policy("db", wider)])
    world = await start()
    assert (await imported(world, "kube"))["version"] == 2
    code, out, _ = await world.run("diff", "kube@p1", "kube")
    assert (code, out.splitlines()[0]) == (2, "kube@p1 → kube@p2")
    assert out.splitlines()[1].startswith("  ~ NetworkPolicy/shop/db, ingress: [from ")
    assert out.splitlines()[2].startswith("  - NetworkPolicy/shop/none: podSelector ")
    versions = (await world.ok("GET", "/workspaces/kube/versions"))["items"]
    assert [(one["version"], one["policies"]) for one in versions] == [(2, 1), (1, 2)]
    _, out, _ = await world.run("get", "workspaces")
    assert out.splitlines()[1].split()[:3] == ["kube", "Kubernetes", "cluster"]
    _, out, _ = await world.run("get", "policies", "kube@p1", "-o", "csv")
    assert out.splitlines()[1] == "NetworkPolicy/shop/db,network-policy,,inbound,1,"
    changes = (await world.ok("GET", "/changes", params={"object": "workspace/kube"}))["items"]
    assert [one["what"] for one in changes] == [f"imported Workspace kube (p{n})" for n in (2, 1)]

    # It is read-only.
    code, _, said = await world.run("enforce", "kube", "--yes", "--no-wait")
    assert (code, "read-only" in said, "netpol import" in said) == (1, True, True)
    renamed = DOCUMENTS.replace(
        "Workspace\nmetadata: {name: shop}", "Workspace\nmetadata: {name: kube}"
    )
    for path, body in (
        ("/apply", files(renamed)),
        ("/workspaces/kube/rollback", {"version": 1}),
        ("/imports", {"workspace": "shop"}),
    ):
        answer = await world.http.post(f"/api/v1{path}", json=body)
        assert answer.status_code == 409, path
    assert len((await world.ok("GET", "/workspaces"))["items"]) == 2


async def test_policies_of_kubernetes_are_judged_beside_ringfences(world: World) -> None:
    connector = await world.enrol("connector", "c")
    await publish(connector, [*ITEMS, policy("db", TO_DB)])
    await world.ok("POST", "/apply", json=files())
    await imported(world, "kube")
    asked = ("why", "shop/front", "shop/db", "3306", "--with", "kube@p1", "--with", "shop")
    code, out, _ = await world.run(*asked)
    assert code == 0
    assert "ALLOW NetworkPolicy/shop/db ingress[0] of kube@p1 (Kubernetes, network-policy)" in out
    assert "ALLOW shop/front-to-db@p1" in out
    dialled = {"source": "shop/front", "destination": "shop/db", "port": 80, "with": ["kube"]}
    answer = await world.ok("GET", "/why", params=dialled)
    deciding = answer["connections"][0]["ends"][1]["deciding"]
    assert (answer["allowed"], deciding["layer"], deciding["rule"]) == (
        False,
        "kubernetes",
        "isolation",
    )
    reached = await world.ok("GET", "/reach", params={"workload": "shop/db", "with": "kube"})
    assert [(one["names"], one["connections"]) for one in reached["inbound"]] == [
        (["nodes"], "any"),
        (["shop/*"], "TCP 3306"),
    ]
    both = {"workload": "shop/db", "with": ["kube", "shop"]}
    reached = await world.ok("GET", "/reach", params=both)
    assert [one["names"] for one in reached["inbound"]] == [["shop/*"]]
    analysed = await world.ok("GET", "/analysis", params={"workspace": "kube"})
    assert (analysed["version"], set(analysed["counts"].values())) == (1, {0})
    (version,) = (await world.ok("GET", "/workspaces/kube/versions"))["items"]
    assert version["analysed"] is not None
    answer = await world.http.get(
        "/api/v1/versions/difference", params={"old": "kube", "new": "shop"}
    )
    assert (answer.status_code, "diff --reach" in answer.text) == (422, True)


async def test_what_ringfence_exports_means_the_same_when_imported(
    world: World, tmp_path: Path
) -> None:
    await publish(
        await world.enrol("connector", "c"),
        [*ITEMS, labelled(item(ItemKind.POD, "web", "10.0.0.3"), t="a")],
    )
    text = DOCUMENTS.replace(
        'name = "front"', 'kubernetes.namespace = "shop" and kubernetes.label.t = "a"'
    )
    text = text.replace('name = "db"', 'kubernetes.namespace = "shop"')
    await world.ok("POST", "/apply", json=files(text))
    _, manifests, said = await world.run("export", "--as", "networkpolicy")
    assert manifests, said
    (tmp_path / "a.yaml").write_text(manifests)
    code, _, said = await world.run("netpol", "import", "made", "--dir", str(tmp_path))
    assert code == 0, said
    both = await world.ok("GET", "/reach/difference", params={"old": "shop", "new": "made"})
    # Kubernetes always admits a pod's own node.
    gained = {(*one["consumers"], *one["providers"], one["connections"]) for one in both["gained"]}
    assert (gained, both["lost"]) == ({("its own node", "shop/*", "any")}, [])


async def test_folders_and_clusters_that_say_nothing(world: World, tmp_path: Path) -> None:
    pods = {"name": "p.yaml", "documents": json.dumps({"apiVersion": "v1", "kind": "Pod"})}
    asked = {"workspace": "x", "files": [pods]}

    async def refused(**more: Any) -> str:
        answer = await world.http.post("/api/v1/imports", json={**asked, **more})
        assert answer.is_client_error
        return str(answer.json()["detail"])

    assert "there is none yet" in await refused()
    await publish(await world.enrol("connector", "c"), ITEMS)
    assert "found none" in await refused()
    west = await refused(kubernetes_cluster="west")
    assert west == "the inventory has no Kubernetes cluster 'west'; there is lab"
    bad: dict[str, Any] = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy"}
    bad |= {"metadata": {"name": "p"}, "spec": {"podSelector": {"matchLabels": {"a b": "c"}}}}
    (tmp_path / "p.yaml").write_text(json.dumps(bad))
    code, _, said = await world.run("netpol", "import", "x", "--dir", str(tmp_path))
    assert (code, "p.yaml: document 1: NetworkPolicy/p: spec.podSelector" in said) == (1, True)
    assert (await world.run("netpol", "import", "x"))[0] == 3
    assert (await world.ok("GET", "/workspaces"))["items"] == []


async def programs(agent: FakeNode, pod: str) -> list[list[str]]:
    """What the next directive has a pod admit: for each program the rules, in the order read."""
    policy = decode((await agent.directive()).node_policy)
    (bound,) = (one for one in policy.pods if one.name == pod)
    return [
        [f"{rule.action} {rule.handle}" for rule in policy.programs[name].rules]
        for name in bound.inbound
    ]


async def test_what_a_cluster_says_is_enforced_as_it_changes(
    start: Callable[[], Awaitable[World]],
) -> None:
    world = await start()
    connector = await world.enrol("connector", "c")
    await publish(connector, [*ITEMS, policy("db", TO_DB)])
    agent = FakeNode(await world.enrol("agent", "n1"))
    await agent.tell()
    assert (await agent.directive()).node_policy == b""
    asked = ("netpol", "enforce", "--cluster", CLUSTER)
    code, out, said = await world.run(*asked, "--yes", "--no-wait")
    assert (code, out.splitlines()) == (
        0,
        [
            "Kubernetes cluster lab: its 1 policy enforced",
            "1 pod is denied something: shop/db",
        ],
    ), said
    isolated = [
        "ALLOW kubernetes/network-policy/own-node",
        "ALLOW kubernetes/NetworkPolicy/shop/db/ingress%5B0%5D",
        "DENY kubernetes/NetworkPolicy/shop/db/isolation",
    ]
    assert await programs(agent, "db") == [isolated]
    more = {**TO_DB, "ingress": [{**TO_DB["ingress"][0], "ports": [{"port": 3307}]}]}
    await publish(connector, [*ITEMS, policy("db", TO_DB), policy("more", more)])
    assert len((await programs(agent, "db"))[0]) == len(isolated) + 1
    await world.ok("POST", "/apply", json=files())
    body = {"workspaces": [{"name": "shop"}]}
    await world.ok("POST", "/enforcement", json=body)
    both = await programs(agent, "db")
    assert [one[-1] for one in both] == ["DENY catch-all/shop/p1", isolated[-1]]

    # It outlives a restart, and is judged by.
    world = await start()
    held = await world.ok("GET", "/enforcement")
    assert held["kubernetes_clusters"] == [CLUSTER]
    asked_why = {"source": "shop/front", "destination": "shop/db", "port": 3306}
    answer = await world.ok("GET", "/why", params=asked_why)
    layers = [one["layer"] for one in answer["connections"][0]["ends"][1]["matching"]]
    assert (answer["allowed"], set(layers)) == (True, {"ringfence", "kubernetes"})
    again = await world.ok("POST", "/enforcement/kubernetes", json={"kubernetes_cluster": CLUSTER})
    assert again["changes"] == []
    agent = FakeNode(await world.enrol("agent", "n1"))
    await agent.tell()
    assert len(await programs(agent, "db")) == 2
    off = {"kubernetes_cluster": CLUSTER, "off": True}
    await world.ok("POST", "/enforcement/kubernetes", json=off)
    assert len(await programs(agent, "db")) == 1
    changes = (await world.ok("GET", "/changes", params={"object": "enforcement"}))["items"]
    assert changes[0]["what"] == "Kubernetes cluster lab: its 2 policies no longer enforced"


async def test_what_cannot_be_read_denies(world: World) -> None:
    connector = await world.enrol("connector", "c")
    broken = {"podSelector": {"matchLabels": {"App": "data"}}, "ingress": [{"from": [{"x": 1}]}]}
    await publish(connector, [*ITEMS, policy("broken", broken), policy("worse", 7)])
    code, _, said = await world.run("netpol", "import", "kube", "--cluster", CLUSTER, "--dry-run")
    assert (code, said.count("cannot be read, so that it allows nothing")) == (0, 2), said
    await publish(connector, [*ITEMS, policy("broken", broken)])
    await imported(world, "kube")
    (held,) = (await world.ok("GET", "/workspaces/kube"))["kubernetes_policies"]
    assert held["problem"].startswith("spec.ingress[0].from[0]: ")
    for source, destination, expected in (
        ("shop/db", "shop/front", False),
        ("shop/front", "shop/db", False),
        ("shop/front", "n1", True),
    ):
        asked = {"source": source, "destination": destination, "port": 80, "with": "kube"}
        assert (await world.ok("GET", "/why", params=asked))["allowed"] is expected


async def test_a_connector_tells_policies_of_its_own_alone(world: World) -> None:
    connector = await world.enrol("connector", "c")
    good = policy("p", TO_DB)
    for bad in (
        replace(good, manifest="{"),
        replace(good, manifest=good.manifest.replace("NetworkPolicy", "Secret")),
        replace(good, manifest="[" * 100_000),
        replace(good, addresses=DB.addresses),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await publish(connector, [bad])
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    await publish(connector, [replace(good, name="q")])
    (found,) = (await world.ok("GET", "/inventory"))["items"]
    assert (found["kind"], found["name"]) == ("kubernetes-policy", "q")
    await imported(world, "kube")
    held = await world.ok("GET", "/workspaces/kube")
    assert held["kubernetes_policies"][0]["id"] == "NetworkPolicy/shop/q"
