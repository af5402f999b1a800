"""The connector against a real Kubernetes API."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import msgspec
import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ringfence.connector.config import ConnectorConfig
from ringfence.connector.connector import Connector
from ringfence.connector.identity import SecretStore
from ringfence.kube import watch
from ringfence.kube.client import KubeClient
from ringfence.kube.errors import KubeError
from ringfence.link.errors import LinkError
from ringfence.link.identity import Identity, LinkConfig, StateDirectory
from ringfence.model.backoff import Backoff
from ringfence.model.client import ClientKind
from ringfence.model.ids import ClusterId, ItemKey
from ringfence.model.workload import Item
from ringfence.wire.generated.agent_pb2 import InventoryReply
from ringfence.wire.generated.agent_pb2_grpc import (
    ControlPlaneServicer,
    add_ControlPlaneServicer_to_server,
)
from tests.apiserver import Api, api_server, free_port

pytestmark = pytest.mark.e2e

LAB = ClusterId("lab")
MANIFEST = Path(__file__).parents[2] / "deploy/kubernetes/connector.yaml"


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with api_server(tmp_path_factory.mktemp("api")) as running:
        yield running


PLAIN = (
    serialization.Encoding.PEM,
    serialization.PrivateFormat.PKCS8,
    serialization.NoEncryption(),
)


@dataclass
class Inlet(ControlPlaneServicer):  # type: ignore[misc]
    """The control plane's side of Publish, with one self-signed certificate for all three roles."""

    events: asyncio.Queue[Any] = field(default_factory=asyncio.Queue)
    replies: asyncio.Queue[Any] = field(default_factory=asyncio.Queue)

    async def Publish(self, requests: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        async def read() -> None:
            async for event in requests:
                self.events.put_nowait(event)
                self.replies.put_nowait(InventoryReply(through_ns=event.at_ns))

        reading = asyncio.create_task(read())
        while (reply := await self.replies.get()) is not None:
            yield reply
        reading.cancel()

    def hang_up(self) -> None:
        self.replies.put_nowait(None)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Identity]:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "all")])
        now = datetime.now(UTC)
        names = x509.SubjectAlternativeName([x509.DNSName("localhost")])
        signed = (
            x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(names, critical=False)
            .sign(key, hashes.SHA256())
        )
        certificate = signed.public_bytes(serialization.Encoding.PEM)
        key_pem = key.private_bytes(*PLAIN)
        server = grpc.aio.server()
        add_ControlPlaneServicer_to_server(self, server)
        pair = [(key_pem, certificate)]
        credentials = grpc.ssl_server_credentials(pair, certificate, require_client_auth=True)
        port = server.add_secure_port("localhost:0", credentials)
        await server.start()
        try:
            text = certificate.decode()
            yield Identity(port, text, text, key_pem.decode())
        finally:
            await server.stop(None)

    async def snapshot(self) -> dict[str, Item]:
        """The items of the next snapshot by `kind/name`."""
        found: dict[str, Item] = {}
        while True:
            event = await asyncio.wait_for(self.events.get(), 15)
            assert event.kubernetes_cluster == LAB
            if event.WhichOneof("event") == "snapshot_end":
                return found
            if event.WhichOneof("event") == "item":
                item = msgspec.json.decode(event.item, type=Item)
                found[f"{item.kind}/{item.name}"] = item

    async def next_of(self, key: ItemKey) -> tuple[int, Item | None]:
        """When the item changed next, and to what; the API server makes objects of its own."""
        while True:
            event = await asyncio.wait_for(self.events.get(), 5)
            if event.gone == key:
                return event.at_ns, None
            if event.item and (item := msgspec.json.decode(event.item, type=Item)).key == key:
                return event.at_ns, item


def populate(api: Api) -> None:
    api.call(
        "POST", "/api/v1/namespaces", {"metadata": {"name": "shop", "labels": {"env": "prod"}}}
    )
    api.call("POST", "/api/v1/nodes", {"metadata": {"name": "node1"}})
    top = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "carts", "uid": "0"}
    template = {"metadata": {"labels": {"app": "carts"}}, "spec": {"containers": [CONTAINER]}}
    spec = {"selector": {"matchLabels": {"app": "carts"}}, "template": template}
    owned = {"name": "carts-1", "ownerReferences": [top | {"controller": True}]}
    base = "/apis/apps/v1/namespaces/shop/replicasets"
    parent = api.call("POST", base, {"metadata": owned, "spec": spec})["metadata"]["uid"]
    above = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "carts-1", "uid": parent}
    meta = {"name": "carts-1-x", "ownerReferences": [above | {"controller": True}]}
    body = {"metadata": meta, "spec": {"nodeName": "node1", "containers": [CONTAINER]}}
    pod = api.call("POST", "/api/v1/namespaces/shop/pods", body)["metadata"]["uid"]
    status = {"status": {"phase": "Running", "podIPs": [{"ip": "10.1.0.2"}], "podIP": "10.1.0.2"}}
    api.call("PATCH", "/api/v1/namespaces/shop/pods/carts-1-x/status", status)
    web = {"port": 80, "targetPort": 8080}
    service = {"metadata": {"name": "carts"}, "spec": {"ports": [web]}}
    api.call("POST", "/api/v1/namespaces/shop/services", service)
    target = {"kind": "Pod", "name": "carts-1-x", "namespace": "shop", "uid": pod}
    one = {
        "metadata": {"name": "carts-s", "labels": {"kubernetes.io/service-name": "carts"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.1.0.2"], "targetRef": target}],
        "ports": [{"name": "", "port": 8080}],
    }
    api.call("POST", "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices", one)
    backend = {"service": {"name": "carts", "port": {"number": 80}}}
    ingress = {"metadata": {"name": "web"}, "spec": {"defaultBackend": backend}}
    api.call("POST", "/apis/networking.k8s.io/v1/namespaces/shop/ingresses", ingress)


CONTAINER = {
    "name": "c",
    "image": "i",
    "ports": [{"containerPort": 8080, "name": "web"}],
    "readinessProbe": {"httpGet": {"port": "web"}},
    "env": [
        {"name": "SELF", "value": "http://carts/health"},
        {"name": "PASSWORD", "value": "carts"},
        {"name": "MOTD", "value": "open sesame"},
    ],
}


async def test_a_cluster_is_published_and_then_every_change(api: Api, tmp_path: Path) -> None:
    populate(api)
    inlet = Inlet()
    async with inlet.running() as identity:
        await StateDirectory(tmp_path).keep(identity)
        nowhere = tmp_path / "nowhere"
        link = LinkConfig(
            "https://localhost", nowhere, nowhere, tmp_path, ClientKind.CONNECTOR, "connector", LAB
        )
        connector = Connector(ConnectorConfig(LAB, link, api.kubeconfig()))
        running = asyncio.create_task(connector.run())
        try:
            items = await inlet.snapshot()
            pod, service = items["pod/carts-1-x"], items["service/carts"]
            assert pod.workload_name == "carts"
            assert pod.probe_ports == ((6, 8080),)
            assert pod.labels["kubernetes.namespace.label.env"] == ("prod",)
            assert service.service is not None
            assert [backend.item for backend in service.service.backends] == [pod.key]
            assert service.service.routes == ("Ingress/shop/web:80",)
            assert pod.references == ("carts:80",)
            assert "node/node1" in items
            assert "namespace/shop" in items

            path = "/api/v1/namespaces/shop/pods/carts-1-x"
            label = {"metadata": {"labels": {"tier": "back"}}}
            await asyncio.to_thread(api.call, "PATCH", path, label)
            at_ns, changed = await inlet.next_of(pod.key)
            assert changed is not None
            assert changed.labels["kubernetes.label.tier"] == ("back",)
            assert abs(at_ns - time.time_ns()) < 5 * 10**9

            ingress = "/apis/networking.k8s.io/v1/namespaces/shop/ingresses/web"
            await asyncio.to_thread(api.call, "DELETE", ingress)
            _, unrouted = await inlet.next_of(service.key)
            assert unrouted is not None
            assert unrouted.service is not None
            assert unrouted.service.routes == ()

            inlet.hang_up()
            again = await inlet.snapshot()
            assert again["pod/carts-1-x"] == changed
            assert again.keys() >= items.keys()

            await asyncio.to_thread(api.call, "DELETE", path, {"gracePeriodSeconds": 0})
            assert (await inlet.next_of(pod.key))[1] is None
            assert connector.problems == {}
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


class Gate:
    """A relay to the API server that can be shut: open connections break, new ones are refused."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._relays: set[asyncio.Task[None] | None] = set()
        self.port = free_port()

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._relay, "127.0.0.1", self.port)

    async def shut(self) -> None:
        assert self._server is not None
        self._server.close()
        relays = [relay for relay in self._relays if relay is not None]
        for relay in relays:
            relay.cancel()
        await asyncio.gather(*relays, return_exceptions=True)
        for writer in self._writers:
            writer.transport.abort()
        self._relays.clear()
        self._writers.clear()
        await self._server.wait_closed()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._relays.add(asyncio.current_task())
        self._writers.add(writer)
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        self._writers.add(far_writer)
        await asyncio.gather(self._copy(reader, far_writer), self._copy(far_reader, writer))

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def connected(kubeconfig: Path) -> AsyncIterator[KubeClient]:
    client = KubeClient(kubeconfig)
    await client.start()
    try:
        yield client
    finally:
        await client.stop()


@contextlib.asynccontextmanager
async def following(
    kubeconfig: Path, kind: watch.Kind[Any], reports: list[str]
) -> AsyncIterator[Callable[[], Any]]:
    """Gives a function that awaits the next event; the API server's own objects are passed over."""

    def report(error: KubeError | None) -> None:
        reports.append(str(error or "fine"))

    async with connected(kubeconfig) as client:
        events = watch.follow(client, kind, report, Backoff(first=0.05, most=0.2))

        async def next_event() -> Any:
            async for event in events:
                if isinstance(event, watch.Listed):
                    return event
                if event.object.metadata.name.startswith("mine-"):
                    return event
            raise AssertionError("a watch never ends")

        async def following_event() -> Any:
            return await asyncio.wait_for(next_event(), 20)

        try:
            yield following_event
        finally:
            await events.aclose()


async def test_a_lost_watch_resumes_and_forgotten_history_is_listed_anew(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make(name: str) -> None:
        api.call("POST", "/api/v1/namespaces", {"metadata": {"name": name}})

    def names(event: Any) -> set[str]:
        everything = {one.metadata.name for one in event.objects}
        return {name for name in everything if name.startswith("mine-")}

    monkeypatch.setattr(watch, "PAGE", 2)
    for name in ("mine-1", "mine-2"):
        await asyncio.to_thread(make, name)
    gate, reports = Gate(api.port), list[str]()
    await gate.open()
    async with following(api.kubeconfig(port=gate.port), watch.NAMESPACES, reports) as event:
        listed = await event()
        assert isinstance(listed, watch.Listed)
        assert names(listed) == {"mine-1", "mine-2"}
        assert len(listed.objects) > 2, "more than one page"

        waiting = asyncio.create_task(event())
        while "fine" not in reports:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await gate.shut()
        await asyncio.to_thread(make, "mine-3")
        await gate.open()
        seen = await waiting
        assert isinstance(seen, watch.Put), "resumed, not listed"
        assert seen.object.metadata.name == "mine-3"

        await gate.shut()
        await asyncio.to_thread(make, "mine-4")
        await asyncio.to_thread(
            api.call, "PATCH", "/api/v1/namespaces/mine-1", {"metadata": {"labels": {"a": "b"}}}
        )
        await asyncio.to_thread(api.compact)
        await gate.open()
        anew = await event()
        assert isinstance(anew, watch.Listed), "the versions between are forgotten"
        assert names(anew) == {"mine-1", "mine-2", "mine-3", "mine-4"}
    await gate.shut()
    await asyncio.sleep(0)  # aborted connections close in the loop's next round
    assert any("unreachable" in said for said in reports)


async def test_an_identity_is_kept_in_the_secret_that_the_manifest_grants(api: Api) -> None:
    api.call("POST", "/api/v1/namespaces", {"metadata": {"name": "ringfence"}})
    rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/ringfence"
    paths = {
        "Secret": "/api/v1/namespaces/ringfence/secrets",
        "Role": f"{rbac}/roles",
        "RoleBinding": f"{rbac}/rolebindings",
    }
    for one in yaml.safe_load_all(MANIFEST.read_text()):
        if one["kind"] in paths:
            await asyncio.to_thread(api.call, "POST", paths[one["kind"]], one)
    identity = Identity(8444, "certificate", "ca", "key")
    async with connected(api.kubeconfig("connector")) as client:
        store = SecretStore(client, "ringfence", "connector-identity")
        assert await store.load() is None
        await store.keep(identity)
    async with connected(api.kubeconfig("connector")) as client:
        assert await SecretStore(client, "ringfence", "connector-identity").load() == identity
        other = SecretStore(client, "ringfence", "connector-enrolment")
        with pytest.raises(LinkError, match="forbidden"):
            await other.load()
        with pytest.raises(LinkError, match="forbidden"):
            await other.keep(identity)


async def test_an_older_role_leaves_out_hints_and_nothing_else(api: Api, tmp_path: Path) -> None:
    rbac = "/apis/rbac.authorization.k8s.io/v1"
    paths = {"ClusterRole": "clusterroles", "ClusterRoleBinding": "clusterrolebindings"}
    for one in yaml.safe_load_all(MANIFEST.read_text()):
        if one["kind"] not in paths:
            continue
        for rule in one.get("rules", ()):
            hints = {"ingresses", "httproutes"}
            rule["resources"] = [name for name in rule["resources"] if name not in hints] or [
                "jobs"
            ]
        await asyncio.to_thread(api.call, "POST", f"{rbac}/{paths[one['kind']]}", one)
    inlet = Inlet()
    async with inlet.running() as identity:
        await StateDirectory(tmp_path).keep(identity)
        nowhere = tmp_path / "nowhere"
        link = LinkConfig(
            "https://localhost", nowhere, nowhere, tmp_path, ClientKind.CONNECTOR, "connector", LAB
        )
        connector = Connector(ConnectorConfig(LAB, link, api.kubeconfig("connector")))
        running = asyncio.create_task(connector.run())
        try:
            assert "namespace/default" in await inlet.snapshot()
            assert set(connector.problems) == {"ingresses", "httproutes"}
            assert "needs the verb 'list' on 'ingresses'" in connector.problems["ingresses"]
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def test_refusals_name_what_is_missing(api: Api) -> None:
    cases = [
        (api.kubeconfig("nobody"), "needs the verb 'list' on 'endpointslices' in apiGroup"),
        (api.kubeconfig("stranger"), "does not accept our credentials (401)"),
        (api.kubeconfig(port=free_port()), "is unreachable"),
    ]
    for kubeconfig, expected in cases:
        reports: list[str] = []
        async with following(kubeconfig, watch.ENDPOINT_SLICES, reports) as event:
            waiting = asyncio.create_task(event())
            async with asyncio.timeout(10):
                while not reports:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        assert expected in reports[0]


async def test_policies_whose_definition_comes_and_goes(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "ABSENT_S", 0.1)
    kind, reports = watch.POLICIES[1], list[str]()
    resource = kind.resource
    definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": resource.api_version.split("/")[1], "served": True, "storage": True}
    definition = {
        "metadata": {
            "name": f"{resource.name}.{resource.group}",
            "annotations": {"api-approved.kubernetes.io": "https://example.org"},
        },
        "spec": {
            "group": resource.group,
            "scope": "Cluster",
            "names": {"plural": resource.name, "kind": kind.name},
            "versions": [version | {"schema": {"openAPIV3Schema": anything}}],
        },
    }
    odd = {"subject": {"namespaces": {}}, "tier": "None such", "list": [None, 1.5]}
    policy: dict[str, Any] = {"apiVersion": resource.api_version, "kind": kind.name}
    policy |= {"metadata": {"name": "mine-odd"}, "spec": odd}
    async with following(api.kubeconfig(), kind, reports) as event:
        for _ in range(2):
            assert await event() == watch.Listed(())
        await asyncio.to_thread(api.call, "POST", definitions, definition)
        while not kind_is_served(api, resource.path):
            await event()
        await asyncio.to_thread(api.call, "POST", resource.path, policy)
        seen = await event()
        while isinstance(seen, watch.Listed) and not seen.objects:
            seen = await event()
        (held,) = seen.objects if isinstance(seen, watch.Listed) else (seen.object,)
        assert held.spec == odd
        gone = f"{definitions}/{resource.name}.{resource.group}"
        await asyncio.to_thread(api.call, "DELETE", gone)
        while not isinstance(seen, watch.Removed) and seen != watch.Listed(()):
            seen = await event()
    assert set(reports) == {"fine"}


def kind_is_served(api: Api, path: str) -> bool:
    with contextlib.suppress(AssertionError):
        return bool(api.call("GET", path))
    return False
