"""The two parties an agent talks to, each a process of its own that a test can start and kill.

    python -m tests.kernel.peers control DIR    a control plane: gRPC with mutual TLS
    python -m tests.kernel.peers runtime DIR    a container runtime: CRI on DIR/cri.sock

Both live by files in DIR, so that a restarted one goes on: `directive` is sent to agents whenever
it changes, `pods.json` and `containers.json` are what runs; each call of Report adds a file to
`batches/`, `state` is the last AgentState, and `asked` has a line for each listing of containers
and `listed` one for each of pods.
"""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc

from ringfence.control.pki import Authority
from ringfence.wire.generated import cri_pb2
from ringfence.wire.generated.agent_pb2 import (
    AgentState,
    Batch,
    BatchReply,
    Inspected,
    Inspection,
    SignedDirective,
)
from ringfence.wire.generated.agent_pb2_grpc import (
    ControlPlaneServicer,
    add_ControlPlaneServicer_to_server,
)
from ringfence.wire.generated.cri_pb2_grpc import (
    RuntimeServiceServicer,
    add_RuntimeServiceServicer_to_server,
)
from ringfence.wire.limits import LARGEST_MESSAGE

PORT = 8444
Context = grpc.aio.ServicerContext[Any, Any]


class ControlPlane(ControlPlaneServicer):  # type: ignore[misc]  # generated, not typed
    def __init__(self, directory: Path) -> None:
        self._directory = directory

    async def Session(  # noqa: N802
        self, request_iterator: AsyncIterator[AgentState], context: Context
    ) -> AsyncIterator[SignedDirective]:
        reader = asyncio.create_task(self._read(request_iterator))
        sent = b""
        while not reader.done():
            wanted = (self._directory / "directive").read_bytes()
            if wanted != sent:
                sent = wanted
                yield sign(self._directory, wanted)
            await asyncio.sleep(0.05)

    async def Inspect(  # noqa: N802
        self, request_iterator: AsyncIterator[Inspected], context: Context
    ) -> AsyncIterator[Inspection]:
        reader = asyncio.create_task(self._keep_answers(request_iterator))
        question, sent = self._directory / "question", b""
        while not reader.done():
            wanted = question.read_bytes() if question.exists() else b""
            if wanted != sent:
                sent = wanted
                yield Inspection.FromString(wanted)
            await asyncio.sleep(0.05)

    async def Report(self, request: Batch, context: Context) -> BatchReply:  # noqa: N802
        batches = self._directory / "batches"
        count = len(list(batches.iterdir()))
        _write(batches / f"{count:04d}", request.SerializeToString())
        return BatchReply()

    async def _read(self, states: AsyncIterator[AgentState]) -> None:
        async for state in states:
            _write(self._directory / "state", state.SerializeToString())

    async def _keep_answers(self, answers: AsyncIterator[Inspected]) -> None:
        async for answer in answers:
            _write(self._directory / "answer", answer.SerializeToString())


def sign(directory: Path, directive: bytes) -> SignedDirective:
    now_ns = time.time_ns()
    signature = Authority.load(directory, now_ns).sign_directive(directive)
    return SignedDirective(directive=directive, signature=signature, now_ns=now_ns)


class Runtime(RuntimeServiceServicer):  # type: ignore[misc]  # generated, not typed
    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def _pods(self) -> dict[str, dict[str, Any]]:
        pods: dict[str, dict[str, Any]] = json.loads((self._directory / "pods.json").read_text())
        return pods

    async def ListPodSandbox(  # noqa: N802
        self, request: cri_pb2.ListPodSandboxRequest, context: Context
    ) -> cri_pb2.ListPodSandboxResponse:
        with (self._directory / "listed").open("a") as listed:
            print("pods", file=listed)
        items = [cri_pb2.PodSandbox(id=each) for each in self._pods()]
        return cri_pb2.ListPodSandboxResponse(items=items)

    async def PodSandboxStatus(  # noqa: N802
        self, request: cri_pb2.PodSandboxStatusRequest, context: Context
    ) -> cri_pb2.PodSandboxStatusResponse:
        pod = self._pods()[request.pod_sandbox_id]
        await asyncio.sleep(pod.get("seconds", 0))
        network = {"type": "network"} | ({"path": pod["netns"]} if pod["netns"] else {})
        info = {"runtimeSpec": {"linux": {"namespaces": [{"type": "pid"}, network]}}}
        mode = cri_pb2.NODE if pod["host_network"] else cri_pb2.POD
        return cri_pb2.PodSandboxStatusResponse(
            status=cri_pb2.PodSandboxStatus(
                metadata=cri_pb2.PodSandboxMetadata(
                    name=pod["name"], uid=pod["uid"], namespace="test"
                ),
                network=cri_pb2.PodSandboxNetworkStatus(ip=pod["address"]),
                linux=cri_pb2.LinuxPodSandboxStatus(
                    namespaces=cri_pb2.Namespace(options=cri_pb2.NamespaceOption(network=mode))
                ),
            ),
            info={"info": json.dumps(info)},
        )

    async def ListContainers(  # noqa: N802
        self, request: cri_pb2.ListContainersRequest, context: Context
    ) -> cri_pb2.ListContainersResponse:
        with (self._directory / "asked").open("a") as asked:
            print("containers", file=asked)
        path = self._directory / "containers.json"
        named = json.loads(path.read_text()) if path.exists() else {}
        return cri_pb2.ListContainersResponse(
            containers=[
                cri_pb2.Container(id=each, metadata=cri_pb2.ContainerMetadata(name=name))
                for each, name in named.items()
            ]
        )


async def serve(role: str, directory: Path) -> None:
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", LARGEST_MESSAGE)])
    if role == "control":
        add_ControlPlaneServicer_to_server(ControlPlane(directory), server)
        key, certificate, ca = (
            (directory / name).read_bytes() for name in ("server.key", "server.pem", "ca.pem")
        )
        credentials = grpc.ssl_server_credentials(
            [(key, certificate)], root_certificates=ca, require_client_auth=True
        )
        server.add_secure_port(f"127.0.0.1:{PORT}", credentials)
    else:
        add_RuntimeServiceServicer_to_server(Runtime(directory), server)
        server.add_insecure_port(f"unix:{directory / 'cri.sock'}")
    await server.start()
    await server.wait_for_termination()


def _write(path: Path, data: bytes) -> None:
    partial = path.parent.parent / f"{path.name}.partial"
    partial.write_bytes(data)
    partial.replace(path)


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], Path(sys.argv[2])))
