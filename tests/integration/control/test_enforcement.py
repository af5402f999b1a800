"""From inventory and documents to a directive at an agent, over real TLS, gRPC and HTTP."""

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import replace
from pathlib import Path

import grpc
import msgspec
import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from ringfence.control import enforcement
from ringfence.control.pki import read_identity
from ringfence.model.address import parse_address
from ringfence.model.ids import TenantId
from ringfence.model.protocol import TCP, UDP
from ringfence.model.workload import (
    Backend,
    ContainerPort,
    Item,
    ItemKind,
    ServicePort,
    ServiceSpec,
    ServiceType,
)
from ringfence.policy.program import decode
from ringfence.store.errors import StoreError
from ringfence.store.relational.changes import last_change
from ringfence.wire import batch
from ringfence.wire.generated import agent_pb2 as wire
from ringfence.wire.generated.agent_pb2_grpc import ControlPlaneStub
from ringfence.wire.limits import PROTOCOL
from tests.integration.control.conftest import World, make_request
from tests.integration.world import stream
from tests.unit.control.shop import CLUSTER, DB, DOCUMENTS, FRONT, NODE, item


async def publish(
    stub: ControlPlaneStub, items: Iterable[Item], at_ns: int = 0, cluster: str = CLUSTER
) -> None:
    """Tell that just these items exist."""
    at_ns = at_ns or time.time_ns()

    async def events() -> AsyncIterator[wire.InventoryEvent]:
        same = {"kubernetes_cluster": cluster, "at_ns": at_ns}
        yield wire.InventoryEvent(snapshot_begin=True, **same)  # type: ignore[arg-type]
        for one in items:
            yield wire.InventoryEvent(item=msgspec.json.encode(one), **same)  # type: ignore[arg-type]
        yield wire.InventoryEvent(snapshot_end=True, **same)  # type: ignore[arg-type]

    replies = [reply async for reply in stub.Publish(events())]
    assert [reply.through_ns for reply in replies] == [at_ns]


class FakeNode:
    """An agent that does at once what it is told."""

    def __init__(self, stub: ControlPlaneStub) -> None:
        self.call = stub.Session()

    async def tell(self, **more: object) -> None:
        """Report the state."""
        same = {"protocol": PROTOCOL, "kubernetes_cluster": CLUSTER, "node": "n1"}
        state = {**same, "clock_ns": time.time_ns(), "release": "1", **more}
        await self.call.write(wire.AgentState(**state))  # type: ignore[arg-type]

    async def directive(self) -> wire.Directive:
        """The next directive."""
        answer = await asyncio.wait_for(self.call.read(), 30)
        assert isinstance(answer, wire.SignedDirective)
        return wire.Directive.FromString(answer.directive)


async def test_from_documents_to_a_directive_and_back(
    start: Callable[[], Awaitable[World]],
) -> None:
    world = await start()
    await publish(await world.enrol("connector", "c"), [NODE, FRONT, DB])
    agent = FakeNode(await world.enrol("agent", "n1"))
    await agent.tell()
    idle = await agent.directive()
    assert (idle.revision, idle.node_policy) == (0, b"")

    files = {"files": [{"name": "shop.yaml", "documents": DOCUMENTS}]}
    planned = await world.ok("POST", "/apply", json={**files, "dry_run": True})
    assert [
        (one["kind"], one["name"], one["change"], one["version"]) for one in planned["changes"]
    ] == [
        ("Scope", "all", "created", None),
        ("Scope", "shop", "created", None),
        ("Workspace", "shop", "created", 1),
    ]
    assert (await world.ok("GET", "/scopes"))["items"] == []
    assert await world.ok("POST", "/apply", json=files) == planned
    again = await world.ok("POST", "/apply", json=files)
    assert {one["change"] for one in again["changes"]} == {"unchanged"}

    body = {"workspaces": [{"name": "shop", "version": None}]}
    plan = await world.ok("POST", "/enforcement", json={**body, "dry_run": True})
    assert plan["workloads"] == ["shop/db", "shop/front"]
    assert (await world.ok("GET", "/enforcement"))["revision"] == 0
    assert (await world.ok("POST", "/enforcement", json=body))["revision"] == 1
    told = await agent.directive()
    policy = decode(told.node_policy)
    assert {pod.name for pod in policy.pods if pod.inbound} == {"front", "db"}
    (seen,) = (await world.ok("GET", "/agents"))["items"]
    assert (seen["enforced_revision"], seen["desired_revision"]) == (0, told.revision)
    await agent.tell(enforced_revision=told.revision)

    why = {"source": "shop/front", "destination": "shop/db", "port": 3306}
    answer = await world.ok("GET", "/why", params=why)
    assert answer["allowed"]
    decided = answer["connections"][0]["ends"][1]["deciding"]
    assert (decided["policy"], decided["version"], decided["stage"]) == (
        "front-to-db",
        1,
        "default",
    )
    assert not (await world.ok("GET", "/why", params={**why, "port": 22}))["allowed"]

    world = await start()  # decisions and inventory outlive the process
    agent = FakeNode(await world.enrol("agent", "n1"))
    await agent.tell(enforced_revision=told.revision)
    after = await agent.directive()
    assert decode(after.node_policy).pods == policy.pods
    assert after.revision > told.revision
    stopped = await world.ok("DELETE", "/enforcement")
    assert stopped["workloads"] == ["shop/db", "shop/front"]
    off = await agent.directive()
    assert (off.revision, off.node_policy) == (0, b"")
    (seen,) = (await world.ok("GET", "/agents"))["items"]
    assert (seen["enforced_revision"], seen["desired_revision"]) == (told.revision, 0)
    said = [one["what"] for one in (await world.ok("GET", "/changes"))["items"]]
    assert said[0] == "enforced nothing"
    assert "enforced shop@p1" in said


async def test_only_a_change_of_its_own_rules_reaches_a_node(world: World) -> None:
    connector = await world.enrol("connector", "c")
    await publish(connector, [NODE, FRONT, DB])
    files = {"files": [{"name": "shop.yaml", "documents": DOCUMENTS}]}
    await world.ok("POST", "/apply", json=files)
    await world.ok("POST", "/enforcement", json={"workspaces": [{"name": "shop"}]})
    agent = FakeNode(await world.enrol("agent", "n1"))
    await agent.tell()
    first = await agent.directive()
    other = item(ItemKind.HOST, "elsewhere", "198.51.100.1")
    await publish(connector, [NODE, FRONT, DB, other])
    cache = item(ItemKind.POD, "front2", "10.0.0.3")
    await publish(connector, [NODE, FRONT, DB, other, cache])
    second = await agent.directive()
    assert "front2" in {pod.name for pod in decode(second.node_policy).pods}
    assert second.revision > first.revision


async def test_declared_ports_reach_nodes_whether_or_not_anything_is_enforced(
    world: World,
) -> None:
    connector = await world.enrol("connector", "c")
    await publish(connector, [NODE, FRONT, DB])
    agent = FakeNode(await world.enrol("agent", "n1"))
    await agent.tell()
    assert not (await agent.directive()).declared_ports
    listening = replace(DB, containers=(ContainerPort("", TCP, 3306),))
    spec = ServiceSpec(
        ServiceType.NODE_PORT,
        (ServicePort("dns", UDP, 53, 30053),),
        (Backend("dns", UDP, DB.addresses[0], 1053, True, DB.key),),
    )
    service = replace(item(ItemKind.SERVICE, "dns", "10.96.0.10"), service=spec)
    await publish(connector, [NODE, FRONT, listening, service])
    told = await agent.directive()
    assert told.revision == 0
    ports = [(TCP, 3306), (UDP, 53), (UDP, 1053), (UDP, 30053)]
    assert [(one.protocol, one.port) for one in told.declared_ports] == ports

    files = {"files": [{"name": "shop.yaml", "documents": DOCUMENTS}]}
    await world.ok("POST", "/apply", json=files)
    await world.ok("POST", "/enforcement", json={"workspaces": [{"name": "shop"}]})
    enforced = await agent.directive()
    assert enforced.declared_ports == told.declared_ports
    await publish(connector, [NODE, FRONT, DB, service])
    fewer = await agent.directive()
    assert [(one.protocol, one.port) for one in fewer.declared_ports] == ports[1:]
    assert (fewer.revision, fewer.node_policy) == (enforced.revision, enforced.node_policy)


async def test_what_fails_for_a_moment_is_done_a_moment_later(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database blinks: while people enforce, and while an item tells of another port."""
    blinks: list[StoreError] = []

    async def last(connection: AsyncConnection, tenant: TenantId) -> int:
        if blinks:
            raise blinks.pop()
        return await last_change(connection, tenant)

    monkeypatch.setattr(enforcement, "last_change", last)
    monkeypatch.setattr(enforcement, "_RETRY_SECONDS", 0.1)
    connector = await world.enrol("connector", "c")
    await publish(connector, [NODE, FRONT, DB])
    agent = FakeNode(await world.enrol("agent", "n1"))
    await agent.tell()
    assert not (await agent.directive()).revision
    files = {"files": [{"name": "shop.yaml", "documents": DOCUMENTS}]}
    await world.ok("POST", "/apply", json=files)

    blinks.append(StoreError("away for a moment"))
    await world.ok("POST", "/enforcement", json={"workspaces": [{"name": "shop"}]})
    assert (await agent.directive()).revision

    blinks.append(StoreError("away for a moment"))
    listening = replace(DB, containers=(ContainerPort("", TCP, 3306),))
    await publish(connector, [NODE, FRONT, listening])
    told = await agent.directive()
    assert [(one.protocol, one.port) for one in told.declared_ports] == [(TCP, 3306)]
    assert not blinks


async def test_probes_without_a_policy_need_an_override(world: World) -> None:
    probed = item(ItemKind.POD, "probed", "10.0.0.9", probe=8080)
    await publish(await world.enrol("connector", "c"), [NODE, probed])
    files = {"files": [{"name": "shop.yaml", "documents": DOCUMENTS}]}
    await world.ok("POST", "/apply", json=files)
    body: dict[str, object] = {"workspaces": [{"name": "shop"}]}
    plan = await world.ok("POST", "/enforcement", json={**body, "dry_run": True})
    assert "shop/probed" in str(plan["refused"])
    refused = await world.http.post("/api/v1/enforcement", json=body)
    assert refused.status_code == 409
    assert "`probes`" in refused.json()["detail"]
    assert (await world.ok("GET", "/enforcement"))["revision"] == 0
    await world.ok("POST", "/enforcement", json={**body, "override": ["probes"]})
    assert (await world.ok("GET", "/enforcement"))["revision"] == 1


async def test_a_changed_scope_tells_for_whom_and_is_refused_as_enforcing_is(
    world: World, tmp_path: Path
) -> None:
    elsewhere = item(ItemKind.POD, "elsewhere", "10.0.0.9", probe=8080)
    labels = {**elsewhere.labels, "kubernetes.namespace": ("bank",)}
    probed = replace(elsewhere, namespace="bank", labels=labels)
    await publish(await world.enrol("connector", "c"), [NODE, FRONT, DB, probed])
    files = {"files": [{"name": "shop.yaml", "documents": DOCUMENTS}]}
    await world.ok("POST", "/apply", json=files)
    body: dict[str, object] = {"workspaces": [{"name": "shop"}]}
    await world.ok("POST", "/enforcement", json=body)
    wider = tmp_path / "wider.yaml"
    wider.write_text(DOCUMENTS.replace('kubernetes.namespace = "shop"', 'kind = "pod"'))
    code, _, said = await world.run("diff", "-f", str(wider))
    assert code == 2
    assert "other enforced rules decide at 1 workload: bank/elsewhere\n" in said
    assert "apply would refuse this: the kubelet's probes of 1 pod " in said
    code, _, said = await world.run("apply", "-f", str(wider))
    assert code == 1
    assert "override with `probes`" in said
    assert (await world.ok("GET", "/scopes"))["items"][1]["workloads"] == 2
    words = "apply", "-f", str(wider), "--override", "probes"
    code, _, said = await world.run(*words)
    assert code == 3
    assert said.endswith("nobody can answer here: pass --yes to go ahead\n")
    assert (await world.ok("GET", "/scopes"))["items"][1]["workloads"] == 2
    code, _, said = await world.run(*words, "--yes")
    assert (code, said) == (0, "other enforced rules decide at 1 workload: bank/elsewhere\n")
    assert (await world.ok("GET", "/scopes"))["items"][1]["workloads"] == 3


async def test_a_node_that_the_inventory_lacks_keeps_what_it_has(world: World) -> None:
    await publish(await world.enrol("connector", "c"), [NODE, FRONT, DB])
    files = {"files": [{"name": "shop.yaml", "documents": DOCUMENTS}]}
    await world.ok("POST", "/apply", json=files)
    await world.ok("POST", "/enforcement", json={"workspaces": [{"name": "shop"}]})
    agent = FakeNode(await world.enrol("agent", "stranger"))
    await agent.tell(node="stranger", enforced_revision=7)
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(agent.call.read(), 0.5)
    (seen,) = (await world.ok("GET", "/agents"))["items"]
    assert "inventory does not hold this node" in seen["stale_reason"]


async def test_policies_that_cannot_be_read_leave_every_node_as_it_is(
    start: Callable[[], Awaitable[World]],
) -> None:
    world = await start()
    await publish(await world.enrol("connector", "c"), [NODE, FRONT, DB])
    files = {"files": [{"name": "shop.yaml", "documents": DOCUMENTS}]}
    await world.ok("POST", "/apply", json=files)
    await world.ok("POST", "/enforcement", json={"workspaces": [{"name": "shop"}]})
    with contextlib.closing(sqlite3.connect(world.data_dir / "control.db")) as held, held:
        held.execute("UPDATE workspace_versions SET document = 'nonsense'")
    world = await start()
    agent = FakeNode(await world.enrol("agent", "n1"))
    await agent.tell(enforced_revision=7)
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(agent.call.read(), 0.5)
    (seen,) = (await world.ok("GET", "/agents"))["items"]
    assert "cannot be turned into rules: shop@p1:1" in seen["stale_reason"]
    code, out, said = await world.run("quarantine", "shop/db", "--no-wait")
    assert (code, out.startswith("quarantined")) == (1, True)
    assert "error: not in force yet: what is enforced cannot be turned into rules" in said
    code, _, said = await world.run("quarantine", "lift", "shop/db", "--no-wait")
    assert (code, "not in force yet" in said) == (1, True)


async def refusal(call: Awaitable[object]) -> tuple[grpc.StatusCode, str]:
    """How a call is refused."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asyncio.wait_for(call, 10)
    return caught.value.code(), str(caught.value.details())


async def test_the_certificate_decides_what_a_client_may_do(world: World) -> None:
    agent, connector = await world.enrol("agent", "n1"), await world.enrol("connector", "c")
    code, _ = await refusal(agent.Publish(iter(())).read())
    assert code is grpc.StatusCode.PERMISSION_DENIED
    code, _ = await refusal(connector.Session(iter(())).read())
    assert code is grpc.StatusCode.PERMISSION_DENIED
    code, _ = await refusal(connector.Report(wire.Batch(id="b")))
    assert code is grpc.StatusCode.PERMISSION_DENIED
    _, csr = make_request()
    renewed = await agent.Renew(wire.RenewRequest(csr_pem=csr.encode()))
    identity = read_identity(renewed.certificate_pem)
    assert (identity.name, identity.kind, identity.kubernetes_cluster) == ("n1", "agent", CLUSTER)
    event = wire.InventoryEvent(kubernetes_cluster="another", gone="another/pod/x")
    code, said = await refusal(connector.Publish(iter([event])).read())
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "'another'" in said


async def test_clients_speak_for_their_own_alone(world: World) -> None:
    lying = replace(FRONT, labels={**FRONT.labels, "kubernetes.cluster": ("prod",)})
    await publish(await world.enrol("connector", "c"), [NODE, lying])
    agent = FakeNode(await world.enrol("agent", "n1"))
    gateway = parse_address("10.0.0.254")
    await agent.tell(node_addresses=[*FRONT.addresses, gateway])
    await agent.directive()
    held = {one["name"]: one for one in (await world.ok("GET", "/inventory"))["items"]}
    assert held["front"]["labels"]["kubernetes.cluster"] == [CLUSTER]
    assert held["n1"]["addresses"] == ["192.0.2.1", "10.0.0.254"]


async def test_an_agent_of_another_release_hears_what_to_do(world: World) -> None:
    agent = FakeNode(await world.enrol("agent", "n1"))
    await agent.tell(protocol=99)
    code, said = await refusal(agent.call.read())
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert "install the same release" in said


async def test_reports_are_stored_once_and_future_ones_refused(world: World) -> None:
    agent = await world.enrol("agent", "n1")
    await publish(await world.enrol("connector", "c"), [NODE])
    now_ns = time.time_ns()
    flows, drops = stream(batch.FLOWS.empty_table()), stream(batch.DROPS.empty_table())

    def report(end_ns: int) -> wire.Batch:
        return wire.Batch(
            id="one",
            window_start_ns=end_ns - 10**9,
            window_end_ns=end_ns,
            flows=flows,
            drops=drops,
        )

    assert not (await agent.Report(report(now_ns))).duplicate
    assert (await agent.Report(report(now_ns))).duplicate
    code, said = await refusal(agent.Report(report(now_ns + 400 * 10**9)))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "ahead" in said
    assert "NTP" in said
    broken = report(now_ns)
    broken.id, broken.flows = "two", b"nonsense"
    code, said = await refusal(agent.Report(broken))
    assert "not an Arrow stream" in said
