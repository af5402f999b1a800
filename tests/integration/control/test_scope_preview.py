"""`ringfence scopes preview` and `list` tell what a tree does, with a real control plane."""

import json
import time
from dataclasses import replace
from pathlib import Path

from ringfence.model.ids import ClusterId, item_key
from ringfence.model.workload import ItemKind
from tests.integration.control.conftest import World
from tests.integration.control.test_enforcement import publish
from tests.unit.control.shop import DB, DOCUMENTS, FRONT, NODE, item

SECOND_SCOPE = """
---
apiVersion: ringfence.io/v1alpha1
kind: Scope
metadata: {name: databases}
spec: {parent: all, query: 'name = "db"', order: -1}
"""


async def test_preview_tells_moves_policies_and_overlaps(world: World, tmp_path: Path) -> None:
    other = replace(item(ItemKind.POD, "elsewhere", "10.0.0.9"), cluster=ClusterId("lab"))
    labels = {**other.labels, "kubernetes.namespace": ("bank",)}
    bank = replace(other, namespace="bank", labels=labels)
    await publish(await world.enrol("connector", "c"), [NODE, FRONT, DB, bank])
    files = {"files": [{"name": "shop.yaml", "documents": DOCUMENTS}]}
    await world.ok("POST", "/apply", json=files)
    await world.ok("POST", "/enforcement", json={"workspaces": [{"name": "shop"}]})
    edit = tmp_path / "edit.yaml"
    edit.write_text(DOCUMENTS.replace('kubernetes.namespace = "shop"', 'kind = "pod"'))
    with edit.open("a") as more:
        more.write(SECOND_SCOPE)

    code, out, said = await world.run("scopes", "preview", str(edit))
    assert (code, said) == (2, "")
    assert out.splitlines() == [
        "Workloads that move:",
        "LEAVES  JOINS      WORKLOADS",
        "        databases  1: shop/db",
        "        shop       1: bank/elsewhere",
        "",
        "Enforced policies that change:",
        "POLICY          VERSION  STAGE      BEGINS TO DECIDE AT  CEASES AT  OTHER PEERS AT",
        "shop/catch-all  p1       catch-all  1: bank/elsewhere",
        "",
        "Siblings that share workloads:",
        "SIBLINGS         ABSOLUTE POLICIES  DEFAULT POLICIES, CATCH-ALLS  WORKLOADS",
        "databases, shop  databases first    shop first                            1",
        "",
        "what is enforced changes at 1 workload, by shop",
    ]
    code, out, _ = await world.run("scopes", "preview", str(edit), "-o", "json")
    answer = json.loads(out)
    sizes = [(one["name"], one["before"], one["after"]) for one in answer["scopes"]]
    assert sizes == [("all", 4, 4), ("databases", None, 1), ("shop", 2, 3)]
    assert answer["workloads"] == {"count": 1, "names": ["bank/elsewhere"]}

    # Nothing was done, and what stands already has no impact.
    code, out, _ = await world.run("scopes", "list", "-o", "wide")
    assert out.splitlines()[2].split() == [
        "shop", "kubernetes.namespace", "=", '"shop"', "2", "shop"
    ]  # fmt: skip
    same = tmp_path / "same.yaml"
    same.write_text(DOCUMENTS)
    code, out, _ = await world.run("scopes", "preview", str(same))
    assert (code, out) == (0, "no workload moves\nnothing that is enforced changes\n")
    await world.run("apply", "-f", str(edit), "--yes")
    _, out, _ = await world.run("scopes", "list", "-o", "wide")
    assert out.splitlines()[2].endswith("1             shop (1 workload)")


async def test_a_kubernetes_cluster_that_unrelated_scopes_divide_is_told(
    world: World, tmp_path: Path
) -> None:
    await publish(await world.enrol("connector", "c"), [NODE, FRONT, DB])
    assert world.plane.app is not None
    inventory = world.plane.app.state.services.inventory
    second = ClusterId("west")
    west = replace(NODE, key=item_key(second, NODE.kind, "n9"), cluster=second)
    inventory.record(inventory.timeline.replace(time.time_ns(), second, [west]))
    edit = tmp_path / "edit.yaml"
    edit.write_text(DOCUMENTS.replace('kubernetes.namespace = "shop"', 'name = "front"'))
    with edit.open("a") as more:
        more.write(SECOND_SCOPE)
    warning = (
        "warning: Kubernetes cluster 'lab' is divided among unrelated scopes (databases, shop): "
    )
    for words in (("scopes", "preview"), ("diff", "-f"), ("apply", "-f")):
        _, _, said = await world.run(*words, str(edit))
        assert said.startswith(warning)
    _, _, said = await world.run("scopes", "list")
    assert said.startswith(warning)
