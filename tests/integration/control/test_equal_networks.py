"""Two Kubernetes clusters with equal pod networks at one control plane, over real TLS and gRPC."""

import time
from dataclasses import replace
from typing import Any

from ringfence.model.address import parse_network
from ringfence.model.flow import Observer
from ringfence.model.ids import ClusterId, item_key
from ringfence.model.labels import make_labels
from ringfence.model.workload import Item, ItemKind
from tests.integration.control.conftest import World
from tests.integration.control.test_enforcement import publish
from tests.integration.control.test_flows_api import apply, categories, report
from tests.integration.world import (
    CARTS,
    CARTS2,
    CARTS_IP,
    CLUSTER,
    FRONT,
    ITEMS,
    Agent,
)

POD, NODE = Observer.POD, Observer.NODE
FAR = ClusterId("far")
HEAD = "apiVersion: ringfence.io/v1alpha1\n"
SCOPES = (
    f"{HEAD}kind: Scope\nmetadata: {{name: all}}\nspec: {{query: everything}}\n"
    f"---\n{HEAD}kind: Scope\nmetadata: {{name: shop}}\n"
    "spec: {parent: all, query: 'kubernetes.namespace = \"sock-shop\"'}\n"
)
WORKSPACE = f"""---
{HEAD}kind: Workspace
metadata: {{name: shop}}
spec:
  scope: shop
  catchAll: {{inbound: DENY, outbound: DENY}}
  policies:
  - id: to-carts
    action: ALLOW
    consumer: {{filter: 'kubernetes.label.name = "front-end"'}}
    provider: {{filter: 'kubernetes.label.name = "carts"'}}
    protocol: TCP
    ports: [8080]
"""


def networked(item: Item) -> Item:
    if item.kind is not ItemKind.NODE:
        return item
    return replace(item, pod_networks=(parse_network(f"10.1.{item.name[-1]}.0/24"),))


def moved(item: Item) -> Item:
    """The same of cluster FAR, under another name; pods have the front-end's and carts' swapped."""
    name = f"far-{item.name}"
    swapped = {"front-end-1": "carts-1", "carts-1": "front-end-1"}.get(item.name)
    one = next((one for one in ITEMS if one.name == swapped), item)
    owner = f"far-{item.workload_name}" if item.workload_name else ""
    said = {"name": name, "kubernetes.cluster": FAR, "kubernetes.label.name": item.workload_name}
    labels = {**item.labels, **make_labels(pair for pair in said.items() if pair[1])}
    return replace(
        item, key=item_key(FAR, item.kind, name), cluster=FAR, name=name, labels=labels,
        workload_name=owner, node=item.node and f"far-{item.node}", addresses=one.addresses,
    )  # fmt: skip


HERE = [networked(item) for item in ITEMS]
THERE = [moved(item) for item in HERE if item.kind is not ItemKind.SERVICE]


async def test_flows_of_each_cluster_bear_its_own_names(world: World) -> None:
    await publish(await world.enrol("connector", "c"), HERE)
    await publish(await world.enrol("connector", "c", FAR), THERE, cluster=FAR)
    now: dict[str, Any] = {"first_ns": time.time_ns(), "last_ns": time.time_ns()}
    for cluster, name in ((CLUSTER, "node1"), (FAR, "far-node1")):
        agent = Agent(name)
        agent.saw(POD, 7, FRONT, (CARTS, 8080), **now)
        # Nobody's here: a pod of the other cluster is at no address of these networks.
        agent.saw(POD, 7, FRONT, ("10.1.1.77", 8080), **now | {"answered": 0, "opened": 1})
        if cluster == CLUSTER:
            agent.saw(POD, 7, FRONT, (CARTS_IP, 80), **now)
            agent.saw(NODE, 2, FRONT, (CARTS2, 8080), (FRONT, (CARTS_IP, 80)), **now)
        stub = await world.enrol("agent", name, cluster)
        assert not await report(stub, agent, f"{name}-1", now["last_ns"])

    flows = (await world.ok("GET", "/flows"))["items"]
    named = {
        (one["consumer"]["name"], one["provider"]["name"] or one["provider"]["address"])
        for one in flows
    }
    assert named == {
        ("front-end-1", "carts-1"),
        ("front-end-1", "carts"),
        ("front-end-1", "10.1.1.77"),
        ("far-carts-1", "far-front-end-1"),
        ("far-carts-1", "10.1.1.77"),
    }
    (through,) = [one for one in flows if one["service"]]
    assert [one["provider"]["name"] for one in through["related"]] == ["carts-2"]

    await apply(world, SCOPES + WORKSPACE)
    answer = await world.ok("GET", "/analysis", params={"workspace": "shop"})
    verdicts = {
        (record["flow"]["consumer"]["name"], record["flow"]["provider"]["name"]): record["allowed"]
        for record in answer["records"]
    }
    assert verdicts["front-end-1", "carts-1"]
    assert verdicts["front-end-1", "carts-2"]
    # In the far cluster carts opened it to the front-end, at the same addresses.
    assert not verdicts["far-carts-1", "far-front-end-1"]
    assert categories(answer)["permitted"] == 2

    found = await world.ok("POST", "/discover", json={"scope": "shop", "every_edge": True})
    ends = [(one["consumer"], one["provider"]) for one in found["report"]["proposals"]]
    assert ends
    for consumer, provider in ends:
        assert provider == "10.1.1.77" or ("far" in consumer) == ("far" in provider), ends
