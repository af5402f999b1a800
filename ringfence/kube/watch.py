"""List, then watch, then go on: one resource of a Kubernetes cluster as an unbroken stream.

The protocol is Kubernetes' "efficient detection of changes": a paged list gives a resource
version, the watch begins there, bookmarks move it on, a lost watch resumes from it, and where
the API has forgotten it (410 Gone) everything is listed anew.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, TypeVar

import aiohttp
import msgspec

from ringfence.kube import schema
from ringfence.kube.client import KubeClient, Resource, status_error
from ringfence.kube.errors import AbsentError, ExpiredError, ForbiddenKindError, KubeError
from ringfence.model.backoff import Backoff

PAGE = 500
_WATCH_S = 240
"""The API ends a watch after so long; a connection that died silently shows soon after."""
_LIST_TIMEOUT_S = 60.0
ABSENT_S = 10.0
"""How often the API is asked for a resource that it does not have."""

ObjectT = TypeVar("ObjectT", bound=schema.Object)


@dataclass(frozen=True, slots=True)
class Kind(Generic[ObjectT]):
    """A resource and the type that its objects decode to; `name` is what manifests call it.

    `others` are other versions of the resource, for an API that does not have this one. Without a
    `hint` an inventory is whole all the same: it tells only discovery more.
    """

    resource: Resource
    type: type[ObjectT]
    name: str = ""
    others: tuple[Resource, ...] = ()
    hint: bool = False


PODS = Kind(Resource("", "pods", "/api/v1/pods"), schema.Pod)
NODES = Kind(Resource("", "nodes", "/api/v1/nodes"), schema.Node)
NAMESPACES = Kind(Resource("", "namespaces", "/api/v1/namespaces", bare=True), schema.Bare)
SERVICES = Kind(Resource("", "services", "/api/v1/services"), schema.Service)
ENDPOINT_SLICES = Kind(
    Resource("discovery.k8s.io", "endpointslices", "/apis/discovery.k8s.io/v1/endpointslices"),
    schema.EndpointSlice,
)
REPLICA_SETS = Kind(
    Resource("apps", "replicasets", "/apis/apps/v1/replicasets", bare=True), schema.Bare
)
JOBS = Kind(Resource("batch", "jobs", "/apis/batch/v1/jobs", bare=True), schema.Bare)
NETWORK_POLICIES = Kind(
    Resource("networking.k8s.io", "networkpolicies", "/apis/networking.k8s.io/v1/networkpolicies"),
    schema.Policy,
    "NetworkPolicy",
)


def _tiered(name: str, kind: str, *versions: str) -> Kind[schema.Policy]:
    """A kind of policy of the network-policy-api, which comes with a definition of its own."""
    group = "policy.networking.k8s.io"
    first, *others = (
        Resource(group, name, f"/apis/{group}/{version}/{name}", optional=True)
        for version in versions
    )
    return Kind(first, schema.Policy, kind, tuple(others))


INGRESSES = Kind(
    Resource(
        "networking.k8s.io", "ingresses", "/apis/networking.k8s.io/v1/ingresses", optional=True
    ),
    schema.HttpIngress,
    "Ingress",
    hint=True,
)
_GATEWAY = "gateway.networking.k8s.io"
HTTP_ROUTES = Kind(
    Resource(_GATEWAY, "httproutes", f"/apis/{_GATEWAY}/v1/httproutes", optional=True),
    schema.HttpRoute,
    "HTTPRoute",
    (Resource(_GATEWAY, "httproutes", f"/apis/{_GATEWAY}/v1beta1/httproutes", optional=True),),
    hint=True,
)
"""Of the Gateway API, which comes with definitions of its own."""
POLICIES = (
    NETWORK_POLICIES,
    _tiered("clusternetworkpolicies", "ClusterNetworkPolicy", "v1beta1", "v1alpha2"),
    _tiered("adminnetworkpolicies", "AdminNetworkPolicy", "v1alpha1"),
    _tiered("baselineadminnetworkpolicies", "BaselineAdminNetworkPolicy", "v1alpha1"),
)
"""Kubernetes' own policies of every kind."""


@dataclass(frozen=True, slots=True)
class Listed(Generic[ObjectT]):
    """All objects there are: what is not among them is gone."""

    objects: tuple[ObjectT, ...]


@dataclass(frozen=True, slots=True)
class Put(Generic[ObjectT]):
    """An object was created or changed."""

    object: ObjectT


@dataclass(frozen=True, slots=True)
class Removed(Generic[ObjectT]):
    """An object is no more."""

    object: ObjectT


Event = Listed[ObjectT] | Put[ObjectT] | Removed[ObjectT]


class _ListMeta(msgspec.Struct):
    version: str = msgspec.field(name="resourceVersion")
    continue_: str = msgspec.field(name="continue", default="")


class _Page(msgspec.Struct):
    metadata: _ListMeta
    items: list[msgspec.Raw] | None = None


class _Bookmark(msgspec.Struct):
    metadata: _ListMeta


class _Line(msgspec.Struct):
    type: str
    object: msgspec.Raw


async def follow(
    client: KubeClient,
    kind: Kind[ObjectT],
    report: Callable[[KubeError | None], None],
    backoff: Backoff,
) -> AsyncGenerator[Event[ObjectT], None]:
    """Everything that happens to a resource, for ever; begins with Listed.

    `report` hears of each failure, and None once it works again. Failures are tried again after
    a pause; missing rights too, since somebody may grant them. That an optional resource is not
    there is no failure: there are no objects, until it comes. Of a hint that we never might read
    there are none either, but that is reported.
    """
    version: str | None = None
    listed = False
    resource = kind.resource
    while True:
        try:
            if version is None:
                resource, objects, version = await _list_any(client, kind)
                yield Listed(objects)
                listed = True
            reply = await client.get(resource, _watch_query(version), _WATCH_S + 20)
            report(None)
            async for line in _lines(client, reply):
                backoff.reset()
                version, event = _read(line, resource, kind.type)
                if event is not None:
                    yield event
        except (ExpiredError, AbsentError) as error:
            if version is None and isinstance(error, AbsentError):
                report(None)
                yield Listed(())
                await asyncio.sleep(ABSENT_S)
                continue
            # Of what was there and is absent, other versions are asked for before it is gone.
            version = None
        except KubeError as error:
            report(error)
            if kind.hint and not listed and isinstance(error, ForbiddenKindError):
                listed = True
                yield Listed(())
        except msgspec.DecodeError as error:
            report(KubeError(f"cannot read {kind.resource.name} as the API sent them: {error}"))
        await asyncio.sleep(backoff.delay())


async def _list_any(
    client: KubeClient, kind: Kind[ObjectT]
) -> tuple[Resource, tuple[ObjectT, ...], str]:
    """The first of a kind's resources that the API has, and what `_list` says of it."""
    for resource in (kind.resource, *kind.others):
        with suppress(AbsentError):
            return resource, *await _list(client, resource, kind.type)
    raise AbsentError(f"the Kubernetes API has no {kind.resource.name}")


async def _list(
    client: KubeClient, resource: Resource, type_: type[ObjectT]
) -> tuple[tuple[ObjectT, ...], str]:
    """All objects, page by page, and the resource version that they are true at."""
    objects: list[ObjectT] = []
    query = {"limit": str(PAGE)}
    while True:
        reply = await client.get(resource, query, _LIST_TIMEOUT_S)
        try:
            page = msgspec.json.decode(await reply.read(), type=_Page)
            objects += [msgspec.json.decode(raw, type=type_) for raw in page.items or ()]
        except (TimeoutError, aiohttp.ClientError) as error:
            raise client.unreachable(error) from error
        if not page.metadata.continue_:
            return tuple(objects), page.metadata.version
        query["continue"] = page.metadata.continue_


def _read(
    line: _Line, resource: Resource, type_: type[ObjectT]
) -> tuple[str, Event[ObjectT] | None]:
    """The version that a line of a watch moves on to, and what happened; a bookmark tells none."""
    if line.type == "ERROR":
        raise status_error(resource, bytes(line.object))
    if line.type == "BOOKMARK":
        return msgspec.json.decode(line.object, type=_Bookmark).metadata.version, None
    seen = msgspec.json.decode(line.object, type=type_)
    event = Removed(seen) if line.type == "DELETED" else Put(seen)
    return seen.metadata.resource_version, event


def _watch_query(version: str) -> dict[str, str]:
    return {
        "watch": "1",
        "allowWatchBookmarks": "true",
        "resourceVersion": version,
        "timeoutSeconds": str(_WATCH_S),
    }


async def _lines(client: KubeClient, reply: aiohttp.ClientResponse) -> AsyncIterator[_Line]:
    try:
        async for line in reply.content:
            yield msgspec.json.decode(line, type=_Line)
    except (TimeoutError, aiohttp.ClientError) as error:
        raise client.unreachable(error) from error
    finally:
        if reply.connection is not None and reply.connection.transport is not None:
            reply.connection.transport.abort()  # a TLS goodbye might outlive the event loop
        reply.close()
