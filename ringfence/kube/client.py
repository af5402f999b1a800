"""A connection to one Kubernetes API: GETs of raw JSON, and what their failure means."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import aiohttp
import msgspec
from kubernetes_asyncio import client as kubernetes
from kubernetes_asyncio import config as kubeconfig

from ringfence.kube.errors import ExpiredError, KubeconfigError, KubeError

CONNECT_TIMEOUT_S = 10.0
"""To open a connection; what a request may then take is the caller's."""
_GONE = 410


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind of object as the API and RBAC name it; `path` lists it over all namespaces.

    Of a `bare` one only the metadata is asked for.
    """

    group: str
    name: str
    path: str
    bare: bool = False


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
        """A response with its body still to be read; raises KubeError, ExpiredError.

        `read_timeout_s` bounds the silence between two reads of the body.
        """
        accept = "application/json"
        if resource.bare:
            kind = "PartialObjectMetadataList" if "watch" not in query else "PartialObjectMetadata"
            accept = f"application/json;as={kind};g=meta.k8s.io;v=v1"
        try:
            reply: aiohttp.ClientResponse = await self._api.call_api(
                resource.path,
                "GET",
                query_params=list(query.items()),
                header_params={"Accept": accept},
                auth_settings=["BearerToken"],
                _preload_content=False,
                _request_timeout=(CONNECT_TIMEOUT_S, read_timeout_s),
            )
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise self.unreachable(error) from error
        if reply.status != 200:  # noqa: PLR2004
            self._refuse(resource, query, reply.status, await _message(reply))
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
                raise KubeError(
                    f"not allowed to {verb} {group}{resource.name} in all namespaces (403): the"
                    f" ClusterRole needs the verb {verb!r} on {resource.name!r} in apiGroup"
                    f" {resource.group!r}"
                )
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
