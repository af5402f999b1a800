"""A resource is followed from one version of its API to the next."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import yaml
from aiohttp import web
from aiohttp.test_utils import TestServer

from ringfence.kube.client import KubeClient
from ringfence.kube.errors import KubeError
from ringfence.kube.watch import INGRESSES, PODS, POLICIES, Listed, Removed, follow
from ringfence.model.backoff import Backoff

GROUP = "/apis/policy.networking.k8s.io"
DENY = {"metadata": {"name": "deny", "uid": "u", "resourceVersion": "5"}, "spec": {}}


async def test_a_new_version_of_a_definition_takes_away_no_object(tmp_path: Path) -> None:
    served = "v1alpha2"

    async def answer(request: web.Request) -> web.Response:
        nonlocal served
        if request.match_info["version"] != served:
            raise web.HTTPNotFound
        if "watch" in request.query:
            served = "v1beta1"
            return web.Response()
        return web.json_response({"metadata": {"resourceVersion": "5"}, "items": [DENY]})

    api = web.Application()
    api.router.add_get(GROUP + "/{version}/clusternetworkpolicies", answer)
    async with connected(api, tmp_path) as client:
        events = follow(client, POLICIES[1], lambda _: None, Backoff(first=0.01))
        for _ in range(2):
            event = await asyncio.wait_for(anext(events), 10)
            assert isinstance(event, Listed)
            assert [one.metadata.name for one in event.objects] == ["deny"]
        assert served == "v1beta1"
        await events.aclose()


async def test_an_inventory_goes_on_without_hints_that_it_may_not_read(tmp_path: Path) -> None:
    allowed = False
    problems: list[str] = []
    thrice = asyncio.Event()
    route = {"metadata": {"name": "shop", "uid": "u", "resourceVersion": "5"}}

    async def answer(request: web.Request) -> web.Response:
        if not allowed:
            raise web.HTTPForbidden
        if "watch" in request.query:
            return web.json_response({"type": "DELETED", "object": route})
        return web.json_response({"metadata": {"resourceVersion": "5"}, "items": [route]})

    def report(error: KubeError | None) -> None:
        problems.append(str(error or "well"))
        if len(problems) == 3:
            thrice.set()

    api = web.Application()
    api.router.add_get(INGRESSES.resource.path, answer)
    api.router.add_get(PODS.resource.path, answer)
    async with connected(api, tmp_path) as client:
        pods = follow(client, PODS, report, Backoff(first=0.01))
        waiting = asyncio.create_task(anext(pods))
        await asyncio.wait_for(thrice.wait(), 10)
        assert not waiting.done(), "without pods there is no inventory"
        waiting.cancel()
        problems.clear()
        events = follow(client, INGRESSES, report, Backoff(first=0.01))
        assert await asyncio.wait_for(anext(events), 10) == Listed(())
        assert "the ClusterRole needs the verb 'list' on 'ingresses'" in problems[-1]
        allowed = True
        event = await asyncio.wait_for(anext(events), 10)
        assert isinstance(event, Listed)
        assert [one.metadata.name for one in event.objects] == ["shop"]
        assert isinstance(await asyncio.wait_for(anext(events), 10), Removed)
        assert problems[-1] == "well"
        await events.aclose()


@contextlib.asynccontextmanager
async def connected(api: web.Application, directory: Path) -> AsyncIterator[KubeClient]:
    async with TestServer(api) as server:
        config = directory / "kubeconfig"
        config.write_text(yaml.safe_dump(kubeconfig(str(server.make_url("/")))))
        client = KubeClient(config)
        await client.start()
        try:
            yield client
        finally:
            await client.stop()


def kubeconfig(server: str) -> dict[str, object]:
    named = {"name": "test"}
    return {
        "clusters": [{**named, "cluster": {"server": server.rstrip("/")}}],
        "users": [{**named, "user": {}}],
        "contexts": [{**named, "context": {"cluster": "test", "user": "test"}}],
        "current-context": "test",
    }
