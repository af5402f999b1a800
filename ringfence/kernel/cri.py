"""The door to the container runtime, which alone knows where a pod's network namespace is.

Kubernetes' container runtime interface (runtime.v1) lists the pod sandboxes of the node; asked
verbosely, the runtime adds a JSON text of its own with the namespace's path. That text is
containerd's and CRI-O's: both put a `runtimeSpec` in the form of the OCI runtime specification
there.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import msgspec

from ringfence.kernel.errors import KernelError
from ringfence.model.address import Address, parse_address
from ringfence.wire.generated import cri_pb2, cri_pb2_grpc

_TIMEOUT_SECONDS = 5.0
# The name of a Unix socket is no host name; a Go server refuses the one that gRPC makes of it.
OPTIONS = (("grpc.default_authority", "localhost"), ("grpc.enable_http_proxy", 0))


class RuntimeUnavailableError(KernelError):
    """The container runtime does not answer, or does not say what is asked of it."""


@dataclass(frozen=True, slots=True)
class Sandbox:
    """One running pod with a network namespace of its own."""

    id: str
    uid: str
    namespace: str
    name: str
    netns: Path | None
    """None where the runtime does not tell."""
    addresses: tuple[Address, ...]


class ContainerRuntime:
    """Lists the pods that run on this node."""

    def __init__(self, socket: Path) -> None:
        """`socket` is the runtime's Unix socket, such as /run/containerd/containerd.sock."""
        self._socket = socket
        self._known: dict[str, Sandbox | None] = {}

    async def start(self) -> None:
        """Connect when the first question is asked; never fails."""
        self._channel = grpc.aio.insecure_channel(f"unix:{self._socket}", options=OPTIONS)
        self._stub = cri_pb2_grpc.RuntimeServiceStub(self._channel)

    async def stop(self) -> None:
        """Disconnect."""
        await self._channel.close()

    async def sandboxes(self) -> tuple[Sandbox, ...]:
        """All ready pods but those on the node's own network; raises RuntimeUnavailableError.

        A sandbox never changes, so each is asked about once.
        """
        try:
            ready = cri_pb2.PodSandboxStateValue(state=cri_pb2.SANDBOX_READY)
            request = cri_pb2.ListPodSandboxRequest(filter=cri_pb2.PodSandboxFilter(state=ready))
            listed = await self._stub.ListPodSandbox(request, timeout=_TIMEOUT_SECONDS)
            known: dict[str, Sandbox | None] = {}
            for item in listed.items:
                if item.id in self._known:
                    known[item.id] = self._known[item.id]
                    continue
                try:
                    known[item.id] = await self._ask(item.id)
                except grpc.aio.AioRpcError as error:
                    if error.code() is not grpc.StatusCode.NOT_FOUND:  # gone since it was listed
                        raise
        except grpc.aio.AioRpcError as error:
            raise self._unavailable(error) from error
        self._known = known
        return tuple(sandbox for sandbox in known.values() if sandbox)

    async def containers(self) -> dict[str, str]:
        """The names of all containers by id, as pods' specifications have them.

        Raises RuntimeUnavailableError.
        """
        try:
            request = cri_pb2.ListContainersRequest()
            listed = await self._stub.ListContainers(request, timeout=_TIMEOUT_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise self._unavailable(error) from error
        return {container.id: container.metadata.name for container in listed.containers}

    def _unavailable(self, error: grpc.aio.AioRpcError) -> RuntimeUnavailableError:
        return RuntimeUnavailableError(
            f"the container runtime at {self._socket} does not answer: {error.details()}; "
            "check that the socket is mounted and is the one that the kubelet uses"
        )

    async def _ask(self, sandbox_id: str) -> Sandbox | None:
        request = cri_pb2.PodSandboxStatusRequest(pod_sandbox_id=sandbox_id, verbose=True)
        reply = await self._stub.PodSandboxStatus(request, timeout=_TIMEOUT_SECONDS)
        status = reply.status
        if status.linux.namespaces.options.network == cri_pb2.NODE:
            return None
        texts = [status.network.ip, *(extra.ip for extra in status.network.additional_ips)]
        return Sandbox(
            id=sandbox_id,
            uid=status.metadata.uid,
            namespace=status.metadata.namespace,
            name=status.metadata.name,
            netns=_namespace(reply.info),
            addresses=tuple(parse_address(text) for text in texts if text),
        )


def _namespace(info: Mapping[str, str]) -> Path | None:
    """The sandbox's network namespace, from the runtime's verbose answer."""
    try:
        details: dict[str, Any] = msgspec.json.decode(info["info"])
        namespaces = details["runtimeSpec"]["linux"]["namespaces"]
        return Path(next(space["path"] for space in namespaces if space["type"] == "network"))
    except (KeyError, TypeError, StopIteration, msgspec.DecodeError):
        return None
