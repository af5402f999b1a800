"""A connection to one Kubernetes API: requests of raw JSON, and what their failure means."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import aiohttp
import msgspec
from kubernetes_asyncio import client as kubernetes
from kubernetes_asyncio import config as kubeconfig

from ringfence.kube.errors import (
    AbsentError,
    ExpiredError,
    ForbiddenKindError,
    KubeconfigError,
    KubeError,
)

CONNECT_TIMEOUT_S = 10.0
"""To open a connection; what a request may then take is the caller's."""
_OK, _GONE = 200, 410


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind of object as the API and RBAC name it; `path` lists it over all namespaces.

    Of a `bare` one only the metadata is asked for. An `optional` one may be missing, for its
    CustomResourceDefinition is not everywhere, or not yet.
    """

    group: str
    name: str
    path: str
    bare: bool = False
    optional: bool = False

    @property
    def api_version(self) -> str:
        """As manifests write it, such as `networking.k8s.io/v1`."""
        return self.path.split("/", 2)[2].rpartition("/")[0]


class _Secret(msgspec.Struct):
    data: dict[str, bytes] | None = None
    """msgspec reads base64 into bytes."""


class _Status(msgspec.Struct):
    message: str = ""
    code: int = 0


class KubeClient:
    """Inert until `start`. `kubeconfig` None means the pod's own service account."""

    def __init__(self, kubeconfig: Path | None) -> None:
        self._kubeconfig = kubeconfig
        self._api: Any = None
        self._host = ""

    async def start(self) -> None:
        """Read the credentials; raises KubeconfigError. Dials nobody yet."""
        configuration = kubernetes.Configuration()
        try:
            if self._kubeconfig is None:
                kubeconfig.load_incluster_config(client_configuration=configuration)
            else:
                await kubeconfig.load_kube_config(
                    config_file=str(self._kubeconfig), client_configuration=configuration
                )
        except (kubeconfig.ConfigException, OSError) as error:
            where = self._kubeconfig or "the pod's service account"
            raise KubeconfigError(
                f"no way to the Kubernetes API from {where}: {error}; outside a pod name a"
                " kubeconfig with --kubeconfig"
            ) from error
        # Each resource's watch holds a connection of its own.
        configuration.connection_pool_maxsize = 32
        self._host = configuration.host
        self._api = kubernetes.ApiClient(configuration)

    async def stop(self) -> None:
        """Close all connections."""
        if self._api is not None:
            await self._api.close()

    async def get(
        self, resource: Resource, query: Mapping[str, str], read_timeout_s: float
    ) -> aiohttp.ClientResponse:
        """A response with its body still to be read; raises KubeError.

        ExpiredError says that the version asked for is forgotten, AbsentError that the API has no
        such resource.

        `read_timeout_s` bounds the silence between two reads of the body.
        """
        accept = "application/json"
        if resource.bare:
            kind = "PartialObjectMetadataList" if "watch" not in query else "PartialObjectMetadata"
            accept = f"application/json;as={kind};g=meta.k8s.io;v=v1"
        reply = await self._call(
            "GET", resource.path, {"Accept": accept}, read_timeout_s, query_params=[*query.items()]
        )
        if reply.status != _OK:
            self._refuse(resource, query, reply.status, await _message(reply))
        return reply

    async def read_secret(self, namespace: str, name: str) -> dict[str, bytes]:
        """What a Secret holds; raises KubeError."""
        body = await self._secret("GET", namespace, name, {"Accept": "application/json"})
        try:
            return msgspec.json.decode(body, type=_Secret).data or {}
        except msgspec.DecodeError as error:
            raise KubeError(f"Secret {namespace}/{name} is not understood: {error}") from error

    async def patch_secret(self, namespace: str, name: str, data: Mapping[str, bytes]) -> None:
        """Put values into a Secret, beside what it holds under other keys; raises KubeError."""
        encoded = {key: base64.b64encode(value).decode() for key, value in data.items()}
        merge = {"Content-Type": "application/merge-patch+json"}  # RFC 7386
        await self._secret("PATCH", namespace, name, merge, body={"data": encoded})

    async def _secret(
        self, method: str, namespace: str, name: str, headers: dict[str, str], **more: Any
    ) -> bytes:
        path = f"/api/v1/namespaces/{namespace}/secrets/{name}"
        reply = await self._call(method, path, headers, CONNECT_TIMEOUT_S, **more)
        if reply.status != _OK:
            raise KubeError(
                f"the Kubernetes API at {self._host} answered {reply.status} to {method} of Secret"
                f" {namespace}/{name}: {await _message(reply)}; it must be there, and a Role must"
                " grant the verbs 'get' and 'patch' on it"
            )
        return await reply.read()

    async def _call(
        self, method: str, path: str, headers: dict[str, str], read_timeout_s: float, **more: Any
    ) -> aiohttp.ClientResponse:
        try:
            reply: aiohttp.ClientResponse = await self._api.call_api(
                path,
                method,
                header_params=headers,
                auth_settings=["BearerToken"],
                _preload_content=False,
                _request_timeout=(CONNECT_TIMEOUT_S, read_timeout_s),
                **more,
            )
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise self.unreachable(error) from error
        return reply

    def unreachable(self, error: BaseException) -> KubeError:
        """Say that nobody answered."""
        said = str(error) or type(error).__name__
        return KubeError(f"the Kubernetes API at {self._host} is unreachable: {said}")

    def _refuse(
        self, resource: Resource, query: Mapping[str, str], status: int, said: str
    ) -> NoReturn:
        verb = "watch" if "watch" in query else "list"
        group = f"{resource.group}/" if resource.group else ""
        match status:
            case 401:
                raise KubeError(
                    f"the Kubernetes API at {self._host} does not accept our credentials (401):"
                    " the token or client certificate is wrong or expired"
                )
            case 403:
                raise ForbiddenKindError(
                    f"not allowed to {verb} {group}{resource.name} in all namespaces (403): the"
                    f" ClusterRole needs the verb {verb!r} on {resource.name!r} in apiGroup"
                    f" {resource.group!r}"
                )
            case 404 if resource.optional:
                raise AbsentError(f"the Kubernetes API has no {group}{resource.name}")
            case 410:
                raise ExpiredError(f"{group}{resource.name}: {said}")
            case _:
                raise KubeError(
                    f"the Kubernetes API at {self._host} answered {status} when asked to {verb}"
                    f" {group}{resource.name}: {said}"
                )


def status_error(resource: Resource, status: bytes) -> KubeError:
    """What a Status object in the midst of a watch means."""
    read = msgspec.json.decode(status, type=_Status)
    kind = ExpiredError if read.code == _GONE else KubeError
    return kind(f"watching {resource.name} ended: {read.message} ({read.code})")


async def _message(reply: aiohttp.ClientResponse) -> str:
    body = await reply.read()
    try:
        return msgspec.json.decode(body, type=_Status).message
    except msgspec.DecodeError:
        return body[:200].decode(errors="replace")
