"""A node with pods, an agent as a process of its own, and what the agent talks to."""

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ringfence.control.identity import ClientIdentity
from ringfence.control.pki import Authority
from ringfence.kernel import nft
from ringfence.kernel.libnftables import NftError
from ringfence.link.identity import Identity, encode, new_request
from ringfence.model.address import Address, host_network, parse_address
from ringfence.model.client import ClientKind
from ringfence.model.ids import DEFAULT_TENANT, ClusterId, NodeName
from ringfence.model.policy import Action
from ringfence.model.protocol import TCP, PortRange
from ringfence.policy import program
from ringfence.policy.program import NodeBinding, NodePolicy, PodBinding, Program, Rule
from ringfence.wire import batch
from ringfence.wire.generated.agent_pb2 import (
    AgentState,
    Batch,
    DeclaredPort,
    Directive,
    Inspected,
    Inspection,
)
from tests.kernel.netns import Node, Pod, bpf_file_system, node_with_pods
from tests.kernel.peers import PORT

CAPABILITIES = "+bpf,+perfmon,+net_admin,+sys_admin,+sys_ptrace"
"""All that the agent's container is given."""

Row = dict[str, Any]

RINGFENCE = str(Path(sys.executable).with_name("ringfence"))


@dataclass
class World:
    """A node with two pods, a directory that the peers and the agent live by, and processes."""

    node: Node
    directory: Path
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def state_dir(self) -> Path:
        return self.directory / "agent"

    @property
    def pin_dir(self) -> Path:
        return self.directory / "bpf" / "ringfence"

    def start(self, role: str, *argv: str) -> None:
        command = ["nsenter", f"--net={self.node.path}", *argv]
        with (self.directory / f"{role}.log").open("ab") as log:
            self.processes[role] = subprocess.Popen(command, stdout=log, stderr=log)

    def stop(self, role: str, how: signal.Signals = signal.SIGTERM) -> None:
        process = self.processes.pop(role)
        process.send_signal(how)
        process.wait(20)

    def start_control(self) -> None:
        self.start(
            "control", sys.executable, "-m", "tests.kernel.peers", "control", str(self.directory)
        )

    def start_runtime(self) -> None:
        self.start(
            "runtime", sys.executable, "-m", "tests.kernel.peers", "runtime", str(self.directory)
        )

    def start_agent(self, *options: str, capabilities: str = CAPABILITIES) -> None:
        self.start(
            "agent", "setpriv", f"--bounding-set=-all,{capabilities}", "--inh-caps=-all",
            RINGFENCE, "agent", "run", "--server", "https://127.0.0.1:1",
            "--ca-file", str(self.directory / "ca.pem"), "--node", "n1",
            "--state-dir", str(self.state_dir), "--interval", "1",
            "--runtime-socket", str(self.directory / "cri.sock"),
            "--pin-dir", str(self.pin_dir), *options,
        )  # fmt: skip

    def direct(
        self, revision: int, policy: NodePolicy | None, declared: tuple[DeclaredPort, ...] = ()
    ) -> None:
        data = program.encode(policy) if policy else b""
        self.say(
            Directive(
                revision=revision, node_policy=data, interval_seconds=1, declared_ports=declared
            )
        )

    def say(self, directive: Directive) -> None:
        directive.node = "n1"
        partial = self.directory / "directive.new"
        partial.write_bytes(directive.SerializeToString())
        partial.replace(self.directory / "directive")

    def run(self, **pods: Row) -> None:
        """Have the container runtime run these pods, by sandbox."""
        partial = self.directory / "pods.new"
        partial.write_text(json.dumps(pods))
        partial.replace(self.directory / "pods.json")

    def state(self) -> AgentState:
        path = self.directory / "state"
        return AgentState.FromString(path.read_bytes()) if path.exists() else AgentState()

    def ask(self, question: Inspection) -> Inspected:
        """What the agent answers to a question of an id of its own."""
        partial, path = self.directory / "question.new", self.directory / "answer"
        partial.write_bytes(question.SerializeToString())
        partial.replace(self.directory / "question")

        def answer() -> Inspected:
            return Inspected.FromString(path.read_bytes()) if path.exists() else Inspected()

        self.await_("the answer", lambda: answer().id == question.id)
        return answer()

    def batches(self) -> list[Batch]:
        """In the order of arrival, each once: by its id a control plane knows one that it has.

        One whose answer was lost, for either side was killed, is delivered again.
        """
        paths = sorted((self.directory / "batches").iterdir())
        arrived = [Batch.FromString(path.read_bytes()) for path in paths]
        return list({each.id: each for each in reversed(arrived)}.values())[::-1]

    def flows(self) -> list[Row]:
        return [
            row
            for each in self.batches()
            for row in batch.decode(batch.FLOWS, each.flows).to_pylist()
        ]

    def counted(self, column: str, pod: Pod, provider_port: int) -> int:
        """The sum of a column of flows to a port, as seen at a pod's own interface."""
        return sum(
            row[column]
            for row in self.flows()
            if row["provider_port"] == provider_port and row["interface"] == pod.host_ifindex
        )

    def drops(self) -> list[Row]:
        return [
            row
            for each in self.batches()
            for row in batch.decode(batch.DROPS, each.drops).to_pylist()
        ]

    def await_(self, what: str, reached: Callable[[], object], seconds: float = 30) -> None:
        until = time.monotonic() + seconds
        while not reached():
            if time.monotonic() > until:
                log = self.directory / "agent.log"
                pytest.fail(f"not reached: {what}\n{log.read_text() if log.exists() else ''}")
            time.sleep(0.05)


@contextlib.contextmanager
def world_in(directory: Path) -> Iterator[World]:
    """Everything but the agent runs."""
    with bpf_file_system(directory / "bpf"), node_with_pods(2) as node:
        it = World(node, directory)
        (directory / "batches").mkdir()
        _make_certificates(it)
        it.run(**sandboxes(node), sandbox0=sandbox("host", "", "") | {"host_network": True})
        it.direct(0, None)
        try:
            it.start_runtime()
            it.start_control()
            yield it
        finally:
            for role in list(it.processes):
                it.stop(role, signal.SIGKILL)


def sandbox(uid: str, netns: str, address: str) -> Row:
    return {"uid": uid, "name": uid, "netns": netns, "address": address, "host_network": False}


def sandboxes(node: Node) -> dict[str, Row]:
    return {
        f"sandbox{i}": sandbox(f"uid{i}", str(pod.path), pod.address)
        for i, pod in enumerate(node.pods, start=1)
    }


def judges(server: Pod) -> bool:
    """Whether its rules are there, more than tracking."""
    with contextlib.suppress(NftError):
        listed = nft.list_table(server.path) or ()
        return any(found.get("rule", {}).get("chain") == "rf_input" for found in listed)
    return False


def policy(server: Pod, allowed: PortRange) -> NodePolicy:
    address = parse_address(server.address)
    inbound = Program(
        (
            Rule("test/allow", Action.ALLOW, TCP, (allowed,), program.SetId("clients")),
            Rule("test/catch-all", Action.DENY, None, (), None),
        )
    )
    return NodePolicy(
        kubernetes_cluster=ClusterId(""),
        node=NodeName("n1"),
        sets={program.SetId("clients"): (host_network(Address(parse_address("10.99.1.2"))),)},
        programs={program.ProgramId("p"): inbound},
        pods=(PodBinding("uid2", "test", "pod2", (address,), (program.ProgramId("p"),), ()),),
        binding=NodeBinding((), None, None, None),
        control_plane=((parse_address("127.0.0.1"), PORT),),
    )


def _make_certificates(world: World) -> None:
    now = time.time_ns()
    world.state_dir.mkdir()
    authority = Authority.load(world.directory, now)
    certificate, key = authority.server_certificate(["127.0.0.1"], now)
    (world.directory / "server.pem").write_bytes(certificate)
    (world.directory / "server.key").write_bytes(key)
    own_key, request = new_request(ClientKind.AGENT, "n1")
    identity = ClientIdentity(ClientKind.AGENT, "n1", ClusterId(""), DEFAULT_TENANT)
    signed = authority.sign_client(request.encode(), identity, now)
    ca = authority.certificate_pem.decode()
    kept = Identity(PORT, signed.decode(), ca, own_key)
    (world.state_dir / "identity.json").write_bytes(encode(kept))
