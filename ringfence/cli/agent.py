"""`ringfence agent`: run the agent of a node, ask whether it is well, take away what it left.

The probe shares the agent's memory limit, so only the others import what the agent needs.
"""

import asyncio
import signal
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ringfence.agent.errors import AgentError
from ringfence.agent.host import health_file
from ringfence.cli.output import tell

if TYPE_CHECKING:
    from ringfence.agent.config import AgentConfig

_HEALTHY_SECONDS = 60

app = typer.Typer(no_args_is_help=True, add_completion=False)

StateDir = Annotated[
    Path, typer.Option(envvar="RINGFENCE_STATE_DIR", help="Where the agent keeps its state.")
]
RuntimeSocket = Annotated[
    str,
    typer.Option(
        envvar="RINGFENCE_RUNTIME_SOCKET",
        help="The container runtime's socket; empty on a host without pods.",
    ),
]
PinDir = Annotated[
    Path,
    typer.Option(
        envvar="RINGFENCE_PIN_DIR",
        help="Where counts outlive the agent, in a BPF file system (mount -t bpf).",
    ),
]
_STATE_DIR = Path("/var/lib/ringfence")
_RUNTIME_SOCKET = "/run/containerd/containerd.sock"
_PIN_DIR = Path("/sys/fs/bpf/ringfence")


@app.command()
def run(  # noqa: PLR0913, PLR0917 - one parameter for each option
    server: Annotated[
        str, typer.Option(envvar="RINGFENCE_SERVER", help="https://HOST:PORT of the control plane.")
    ],
    ca_file: Annotated[
        Path, typer.Option(envvar="RINGFENCE_CA_FILE", help="The control plane's CA, PEM.")
    ],
    token_file: Annotated[
        Path,
        typer.Option(envvar="RINGFENCE_TOKEN_FILE", help="The enrolment token, for the first run."),
    ] = Path("/etc/ringfence/token"),
    node: Annotated[
        str, typer.Option(envvar="RINGFENCE_NODE", help="This node's name; the host's by default.")
    ] = "",
    kubernetes_cluster: Annotated[
        str,
        typer.Option(
            envvar="RINGFENCE_KUBERNETES_CLUSTER", help="Its Kubernetes cluster; empty outside."
        ),
    ] = "",
    state_dir: StateDir = _STATE_DIR,
    runtime_socket: RuntimeSocket = _RUNTIME_SOCKET,
    pin_dir: PinDir = _PIN_DIR,
    dns: Annotated[
        bool,
        typer.Option(
            "--dns", envvar="RINGFENCE_DNS", help="Read DNS answers, to tell addresses by name."
        ),
    ] = False,
    backend: Annotated[
        str,
        typer.Option(
            envvar="RINGFENCE_BACKEND",
            help="What to write rules with: nftables, iptables-nft or iptables-legacy. By default"
            " nftables, where the kernel has it, else iptables-legacy.",
        ),
    ] = "",
    interval: Annotated[
        int, typer.Option(envvar="RINGFENCE_INTERVAL", min=1, help="Seconds between reports.")
    ] = 15,
) -> None:
    """Capture flows and enforce policy on this node until stopped. Needs root.

    Programs and rules stay in the kernel for the next agent; `agent remove` takes them away.

    Example: ringfence agent run --server https://10.0.0.1:8443 --ca-file ca.pem --token-file token
    """
    from ringfence.agent import host  # noqa: PLC0415
    from ringfence.agent.config import AgentConfig  # noqa: PLC0415
    from ringfence.agent.mechanisms import choose  # noqa: PLC0415
    from ringfence.cli import logs  # noqa: PLC0415
    from ringfence.link.identity import LinkConfig  # noqa: PLC0415
    from ringfence.model.client import ClientKind  # noqa: PLC0415

    logs.configure()
    host.check()
    link = LinkConfig(
        server=server,
        ca_file=ca_file,
        token_file=token_file,
        state_dir=state_dir,
        kind=ClientKind.AGENT,
        name=node or socket.gethostname(),
        kubernetes_cluster=kubernetes_cluster,
    )
    runtime = Path(runtime_socket) if runtime_socket else None
    config = AgentConfig(
        link, runtime, interval_seconds=interval, pin_dir=pin_dir, backend=choose(backend), dns=dns
    )
    asyncio.run(_run(config))


@app.command()
def health(state_dir: StateDir = _STATE_DIR) -> None:
    """Tell whether the agent on this node works: for a probe.

    Example: ringfence agent health
    """
    try:
        age = time.time() - health_file(state_dir).stat().st_mtime
    except OSError as error:
        raise AgentError(f"no agent has worked with {state_dir}: {error}") from error
    if age > _HEALTHY_SECONDS:
        raise AgentError(
            f"the agent has done nothing, or has had no container runtime, for {age:.0f} s;"
            " see its log"
        )


@app.command()
def remove(
    state_dir: StateDir = _STATE_DIR,
    runtime_socket: RuntimeSocket = _RUNTIME_SOCKET,
    pin_dir: PinDir = _PIN_DIR,
) -> None:
    """Take away what a stopped agent left on this node: programs, their counts, and rules.

    The state directory stays: it has the agent's certificate, and reports not yet delivered.

    Example: ringfence agent remove
    """
    from ringfence.agent.remove import remove  # noqa: PLC0415

    asyncio.run(remove(state_dir, pin_dir, Path(runtime_socket) if runtime_socket else None))
    tell(f"removed; {state_dir} is kept")


async def _run(config: "AgentConfig") -> None:
    from ringfence.agent.agent import Agent  # noqa: PLC0415

    agent = Agent(config)
    await agent.start()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    waits = [asyncio.create_task(stopped.wait()), asyncio.create_task(agent.wait())]
    try:
        done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in waits:
            task.cancel()
        await agent.stop()
