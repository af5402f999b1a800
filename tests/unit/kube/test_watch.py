"""A resource is followed from one version of its API to the next."""

import asyncio
from pathlib import Path

import yaml
from aiohttp import web
from aiohttp.test_utils import TestServer

from ringfence.kube.client import KubeClient
from ringfence.kube.watch import POLICIES, Listed, follow
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
    async with TestServer(api) as server:
        config = tmp_path / "kubeconfig"
        config.write_text(yaml.safe_dump(kubeconfig(str(server.make_url("/")))))
        client = KubeClient(config)
        await client.start()
        events = follow(client, POLICIES[1], lambda _: None, Backoff(first=0.01))
        try:
            for _ in range(2):
                event = await asyncio.wait_for(anext(events), 10)
                assert isinstance(event, Listed)
                assert [one.metadata.name for one in event.objects] == ["deny"]
            assert served == "v1beta1"
        finally:
            await events.aclose()
            await client.stop()


def kubeconfig(server: str) -> dict[str, object]:
    named = {"name": "test"}
    return {
        "clusters": [{**named, "cluster": {"server": server.rstrip("/")}}],
        "users": [{**named, "user": {}}],
        "contexts": [{**named, "context": {"cluster": "test", "user": "test"}}],
        "current-context": "test",
    }
