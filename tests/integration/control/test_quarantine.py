"""Quarantine: from one command to a directive, seen everywhere, and over by itself."""

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from ringfence.model.protocol import TCP, UDP
from ringfence.model.workload import Backend, Item, ItemKind, ServicePort, ServiceSpec, ServiceType
from ringfence.policy.program import NodePolicy, decode
from tests.integration.control.conftest import Clock, World
from tests.integration.control.test_enforcement import FakeNode, publish
from tests.unit.control.shop import DB, DOCUMENTS, FRONT, NODE, item

DNS_POD = item(ItemKind.POD, "coredns", "10.0.0.53")
DNS = replace(
    item(ItemKind.SERVICE, "kube-dns", "10.96.0.10"),
    namespace="kube-system",
    service=ServiceSpec(
        ServiceType.CLUSTER_IP,
        (ServicePort("dns", UDP, 53), ServicePort("dns-tcp", TCP, 53)),
        (Backend("dns", UDP, DNS_POD.addresses[0], 53, True, DNS_POD.key),),
    ),
)
HOUR_NS = 3600 * 10**9


def says(policy: NodePolicy, pod: str) -> tuple[list[str], list[str]]:
    """The rules of a pod in the order they are read: in, out."""
    (bound,) = (one for one in policy.pods if one.name == pod)
    return tuple(  # type: ignore[return-value]
        [
            f"{rule.action} {rule.handle}" + (f" {rule.ports[0]}" if rule.ports else "")
            for rule in policy.programs[program].rules
        ]
        for (program,) in (bound.inbound, bound.outbound)
    )


async def whats(world: World) -> list[str]:
    return [one["what"] for one in (await world.ok("GET", "/changes"))["items"]]


async def test_a_quarantine_holds_where_nothing_else_is_enforced(
    start: Callable[[], Awaitable[World]],
) -> None:
    world = await start()
    connector = await world.enrol("connector", "c")
    await publish(connector, [NODE, FRONT, DB, DNS_POD, DNS])
    agent = FakeNode(await world.enrol("agent", "n1"))
    await agent.tell()
    assert not (await agent.directive()).node_policy

    body = {"workload": "shop/front", "allow": ["dns"], "reason": "odd scans"}
    planned = await world.ok("POST", "/quarantines", json={**body, "dry_run": True})
    assert (planned["workloads"], planned["refused"]) == (["shop/front"], "")
    assert (await world.ok("GET", "/quarantines"))["items"] == []
    await world.ok("POST", "/quarantines", json=body)
    told = await agent.directive()
    policy = decode(told.node_policy)
    assert [pod.name for pod in policy.pods] == ["front"]
    deny = "DENY absolute/quarantine/p0"
    assert says(policy, "front") == (
        [deny],
        [
            *["ALLOW absolute/quarantine/p0/dns-udp 53"] * 2,
            "ALLOW absolute/quarantine/p0/dns-tcp 53",
            deny,
        ],
    )
    assert (policy.binding.inbound, policy.binding.outbound) == (None, None)

    items = (await world.ok("GET", "/inventory"))["items"]
    assert {one["name"]: one["quarantine"] for one in items if one["quarantine"]} == {
        "front": "lab/shop/front"
    }
    why = {"source": "shop/front", "destination": "shop/db", "port": 3306}
    answer = await world.ok("GET", "/why", params=why)
    assert not answer["allowed"]
    outbound, inbound = answer["connections"][0]["ends"]
    decided = outbound["deciding"]
    assert (decided["workspace"], decided["scope"], decided["stage"], decided["policy"]) == (
        "quarantine",
        "lab/shop/front",
        "absolute",
        None,
    )
    assert inbound["deciding"] is None
    assert "lab/shop/front is quarantined by admin: odd scans" in answer["notes"]
    dns = {"source": "shop/front", "destination": "kube-system/kube-dns", "port": 53}
    assert (await world.ok("GET", "/why", params={**dns, "protocol": "UDP"}))["allowed"]

    world = await start()  # it outlives the process
    agent = FakeNode(await world.enrol("agent", "n1"))
    await agent.tell()
    assert decode((await agent.directive()).node_policy).pods == policy.pods
    replica = replace(
        item(ItemKind.POD, "front-2", "10.0.0.4"),
        labels={**FRONT.labels, "name": ("front-2",), "kubernetes.owner.name": ("front",)},
        workload_name="front",
    )
    await publish(await world.enrol("connector", "c"), [NODE, FRONT, replica, DB, DNS_POD, DNS])
    later = decode((await agent.directive()).node_policy)
    assert [pod.name for pod in later.pods] == ["front", "front-2"]
    assert says(later, "front-2") == says(policy, "front")

    await world.ok("DELETE", "/quarantines", params={"workload": "shop/front"})
    assert not (await agent.directive()).node_policy
    assert (await whats(world))[0] == "lifted quarantine of lab/shop/front"
    (change,) = (
        one
        for one in (await world.ok("GET", "/changes"))["items"]
        if one["what"] == "quarantined lab/shop/front"
    )
    assert change["actor"] == "admin"
    assert change["difference"] == ["allow: dns", "reason: odd scans"]


async def test_a_pod_that_its_owner_lets_go_stays_held(world: World) -> None:
    def replica(number: int) -> Item:
        found = item(ItemKind.POD, f"carts-{number}", f"10.0.0.{number}")
        labels = {**found.labels, "kubernetes.owner.name": ("carts",)}
        return replace(found, labels=labels, workload_name="carts")

    connector = await world.enrol("connector", "c")
    await publish(connector, [NODE, DB, replica(5)])
    await world.ok("POST", "/quarantines", json={"workload": "shop/carts"})
    await publish(connector, [NODE, DB, replica(5), replica(6)])
    assert world.plane.app is not None
    quarantines = world.plane.app.state.services.quarantines
    for _ in range(600):
        (held,) = await quarantines.all()
        if "carts-6" in str(held.query):
            break
        await asyncio.sleep(0.1)
    let_go = [item(ItemKind.POD, f"carts-{number}", f"10.0.0.{number}") for number in (5, 6)]
    await publish(connector, [NODE, DB, *let_go])
    (one,) = (await world.ok("GET", "/quarantines"))["items"]
    assert one["workloads"] == ["shop/carts-5", "shop/carts-6"]
    why = {"source": "shop/carts-6", "destination": "shop/db", "port": 3306}
    assert not (await world.ok("GET", "/why", params=why))["allowed"]


async def test_no_scope_stands_in_its_way(world: World) -> None:
    """Scopes that are unsound stop policies, of which none is enforced."""
    await publish(await world.enrol("connector", "c"), [NODE, FRONT])
    files = {"files": [{"name": "shop.yaml", "documents": DOCUMENTS}]}
    await world.ok("POST", "/apply", json=files)
    with contextlib.closing(sqlite3.connect(world.data_dir / "control.db")) as held, held:
        held.execute("UPDATE scopes SET parent = 'shop'")
    assert (await world.http.get("/api/v1/scopes")).status_code == 422
    agent = FakeNode(await world.enrol("agent", "n1"))
    await agent.tell()
    await agent.directive()
    answer = await world.ok("POST", "/quarantines", json={"workload": "shop/front"})
    assert answer["problem"] == ""
    policy = decode((await agent.directive()).node_policy)
    assert says(policy, "front") == (["DENY absolute/quarantine/p0"],) * 2


async def test_it_stands_before_every_policy_and_is_over_by_itself(
    world: World, clock: Clock
) -> None:
    await publish(await world.enrol("connector", "c"), [NODE, FRONT, DB])
    files = {"files": [{"name": "shop.yaml", "documents": DOCUMENTS}]}
    await world.ok("POST", "/apply", json=files)
    await world.ok("POST", "/enforcement", json={"workspaces": [{"name": "shop"}]})
    agent = FakeNode(await world.enrol("agent", "n1"))
    await agent.tell()
    before = decode((await agent.directive()).node_policy)
    body = {"workload": "shop/db", "for_seconds": 3600, "allow": ["10.9.0.0/16", "10.9.0.0/16"]}
    answer = await world.ok("POST", "/quarantines", json=body)
    assert answer["allow"] == ["10.9.0.0/16"]
    during = decode((await agent.directive()).node_policy)
    at = "absolute/quarantine/p0"
    assert says(during, "db") == (
        [f"ALLOW {at}/from%2010.9.0.0%2F16", f"DENY {at}"],
        [f"ALLOW {at}/to%2010.9.0.0%2F16", f"DENY {at}"],
    )
    assert says(during, "front") == says(before, "front")
    stopped = await world.ok("DELETE", "/enforcement")
    assert stopped["workloads"] == ["shop/db", "shop/front"]
    alone = decode((await agent.directive()).node_policy)
    assert [pod.name for pod in alone.pods] == ["db"], "what is not enforced leaves it"
    assert says(alone, "db") == says(during, "db")

    clock.ahead_ns += HOUR_NS + 10**9
    assert not (await agent.directive()).node_policy
    assert (await world.ok("GET", "/quarantines"))["items"] == []
    changes = (await world.ok("GET", "/changes"))["items"]
    assert (changes[0]["what"], changes[0]["actor"]) == (
        "the quarantine of lab/shop/db is over",
        "ringfence",
    )


async def refused(world: World, status: int, **body: Any) -> str:
    answer = await world.http.post("/api/v1/quarantines", json=body)
    assert answer.status_code == status, answer.text
    return str(answer.json()["detail"])


async def test_what_would_lock_the_operator_out_is_refused(world: World) -> None:
    proxy = replace(item(ItemKind.POD, "proxy", "192.0.2.1"), host_network=True)
    server = item(ItemKind.POD, "server", "127.0.0.1")
    probed = item(ItemKind.POD, "probed", "10.0.0.9", probe=8080)
    await publish(await world.enrol("connector", "c"), [NODE, FRONT, DB, proxy, server, probed])
    told = await refused(world, 409, workload="n1")
    assert "only the fail-safes would be left: loopback, to the control plane" in told
    assert "kubelet, etcd, API server and tunnels; SSH from nowhere" in told
    assert "Override with `node`" in told
    await world.ok("POST", "/quarantines", json={"workload": "n1", "override": ["node"]})
    assert "this control plane is reached at an address of shop/server" in await refused(
        world, 409, workload="shop/server"
    )
    assert "quarantine node n1" in await refused(world, 404, workload="shop/proxy")
    assert "is no pod, owner of pods, node or host" in await refused(world, 404, workload="shop/x")
    assert "'a/b/c' is nothing that a quarantine can allow" in await refused(
        world, 422, workload="shop/front", allow=["a/b/c"]
    )
    gone = await world.http.delete("/api/v1/quarantines", params={"workload": "shop/front"})
    assert gone.status_code == 404
    answer = await world.ok("POST", "/quarantines", json={"workload": "shop/probed"})
    assert "the kubelet's probes of shop/probed are dropped too" in answer["notes"][0]
    kept = {"workload": "shop/probed", "allow": ["probes"]}
    assert (await world.ok("POST", "/quarantines", json=kept))["notes"] == []
    taken = DOCUMENTS.replace("name: shop}\nspec:\n  scope", "name: quarantine}\nspec:\n  scope")
    files = {"files": [{"name": "shop.yaml", "documents": taken}]}
    answer = await world.http.post("/api/v1/apply", json=files)
    assert answer.status_code == 422
    assert "choose another" in answer.text


async def test_the_command(world: World) -> None:
    await publish(await world.enrol("connector", "c"), [NODE, FRONT, DB, DNS_POD, DNS])
    agent = FakeNode(await world.enrol("agent", "n1"))
    await agent.tell()
    await agent.directive()
    code, out, said = await world.run("quarantine", "shop/db", "--dry-run", "--allow", "dns,probes")
    assert (code, out, said) == (
        0,
        "would be quarantined, until lifted, allowed: dns, probes\n1 workload: shop/db\n",
        "",
    )
    words = ("--for", "2h", "--reason", "why\x1b[31m", "--timeout", "0.1")
    code, out, said = await world.run("quarantine", "shop/db", *words)
    assert code == 2, "the agent has not answered"
    assert out.startswith("quarantined, until ")
    assert "not in force on n1: no answer\nquarantined: lab/shop/db; see" in said
    await agent.tell(enforced_revision=(await agent.directive()).revision)
    code, out, _ = await world.run("quarantine", "list", "-o", "json")
    (row,) = json.loads(out)
    assert (row["workload"], row["reason"], row["workloads"]) == (
        "shop/db",
        "why\x1b[31m",
        ["shop/db"],
    )
    _, out, _ = await world.run("quarantine", "list")
    assert "\x1b" not in out
    code, out, _ = await world.run("inventory", "--kind", "pod")
    assert "QUARANTINE" in out.splitlines()[0]
    _, _, said = await world.run("get", "workspaces")
    assert "quarantined: shop/db" in said
    code, out, _ = await world.run("why", "shop/front", "shop/db", "3306")
    assert code == 2
    assert "DENY quarantine of lab/shop/db (absolute)" in out
    assert "by admin: why�[31m\n" in out
    code, _, said = await world.run("quarantine", "shop/db", "--for", "2")
    assert (code, "write a number and s, m, h or d" in said) == (3, True)
    await agent.tell(stale_reason="no\x1b]0;nft\x07")
    code, out, said = await world.run("quarantine", "lift", "shop/db", "--timeout", "0.1")
    assert "not in force on n1: no�]0;nft�\n" in said
    assert (code, out) == (2, "lifted: shop/db\n")
