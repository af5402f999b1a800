"""Put Ringfence into a running lab: a control plane beside Kubernetes' own, and from `deploy/`
the connector and an agent on each node."""

import base64
import json
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

from ringfence.lab import cluster, images, kubectl, machine, node
from ringfence.lab.config import LabConfig
from ringfence.lab.errors import LabError
from ringfence.lab.machine import require_alive
from ringfence.lab.processes import Process
from ringfence.lab.progress import Progress
from ringfence.lab.relay import Forward
from ringfence.lab.state import State

KUBERNETES_CLUSTER = "lab"
"""The id under which the lab's Kubernetes cluster is known to the control plane."""
_HTTP_PORT, _GRPC_PORT = 8443, 8444
_MANIFESTS = ("namespace", "connector", "agent")
_START_TIMEOUT = 120.0  # seconds, while images are written to the same disk
_POLL = 0.2


@dataclass(frozen=True)
class Installation:
    """How the host reaches the lab's control plane."""

    server: str
    token_file: Path
    ca: Path


def installed(config: LabConfig) -> Installation:
    """Where the control plane of a lab is, running or not."""
    directory = config.run / "ringfence"
    server = f"https://127.0.0.1:{config.control_plane_port}"
    return Installation(server, directory / "admin.token", directory / "data/ca.pem")


def install(
    config: LabConfig, record: State, progress: Progress, *, dns: bool = False
) -> Installation:
    """Start a control plane and deploy connector and agents; return when all are there.

    With `dns` the agents read the answers of DNS servers.
    """
    where = installed(config)
    archive = images.ringfence_image(progress)
    nodes = [machine.find(config, record, spec.name) for spec in config.node_specs]
    with ThreadPoolExecutor() as pool:
        loaded = [pool.submit(node.load_image, target, archive) for target in nodes]
        with progress.step("Control plane"):
            _start_control_plane(config, record, where)
        with progress.step("Image of connector and agents, into every node"):
            for future in loaded:
                future.result()
    with progress.step("Connector and agents"):
        _deploy(config, where, dns)
        _wait_agents(config, where)
    return where


def _start_control_plane(config: LabConfig, record: State, where: Installation) -> None:
    if any(process.name == "control/ringfence" and process.alive for process in record.processes):
        raise LabError("Ringfence is in this lab already; start over with `ringfence lab up`")
    address = str(config.control.address)
    where.token_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    command: Sequence[str | Path] = [
        *(sys.executable, "-m", "ringfence.cli.main", "server"),
        *("--data-dir", where.ca.parent, "--admin-token-file", where.token_file),
        *("--http-listen", f"{address}:{_HTTP_PORT}", "--grpc-listen", f"{address}:{_GRPC_PORT}"),
        *("--advertise", address, "--advertise", "127.0.0.1"),
    ]
    server = machine.find(config, record, "control").spawn("ringfence", command)
    forward = Forward(config.control_plane_port, address, _HTTP_PORT)
    relay = cluster.add_relay(record, config.control.netns, [forward])
    _wait_ready(record, [server, relay], where)


def _wait_ready(record: State, needed: Sequence[Process], where: Installation) -> None:
    deadline = time.monotonic() + _START_TIMEOUT
    while True:
        require_alive(record, needed)
        try:
            _call(where, "GET", "/readyz", authenticated=False)
        except (OSError, LabError) as error:
            if time.monotonic() > deadline:
                told = machine.log_end(record, needed[0])
                raise LabError(f"the control plane is not ready: {error}; {told}") from error
            time.sleep(_POLL)
        else:
            return


def _deploy(config: LabConfig, where: Installation, dns: bool) -> None:
    values = {
        "IMAGE": images.reference("ringfence"),
        "SERVER": f"https://{config.control.address}:{_HTTP_PORT}",
        "KUBERNETES_CLUSTER": KUBERNETES_CLUSTER,
        "CA_PEM_BASE64": base64.b64encode(where.ca.read_bytes()).decode(),
        "CONNECTOR_TOKEN": _enrolment_token(where, "connector", 1),
        "AGENT_TOKEN": _enrolment_token(where, "agent", config.nodes),
        "DNS": str(dns).lower(),
    }
    for name in _MANIFESTS:
        text = (images.ROOT / f"deploy/kubernetes/{name}.yaml").read_text()
        manifest = Template(text).substitute(values)
        kubectl.kubectl(config, "apply", "--server-side", "--filename=-", stdin=manifest)


def _enrolment_token(where: Installation, kind: str, uses: int) -> str:
    body = {"kind": kind, "kubernetes_cluster": KUBERNETES_CLUSTER, "uses": uses}
    answer = _call(where, "POST", "/api/v1/enrolment-tokens", {**body, "ttl_seconds": 86400})
    return str(answer["token"])


def _wait_agents(config: LabConfig, where: Installation) -> None:
    """Until every node's agent is connected and the connector has published the nodes."""
    deadline = time.monotonic() + _START_TIMEOUT
    while True:
        agents = _call(where, "GET", "/api/v1/agents")["items"]
        nodes = _call(where, "GET", "/api/v1/inventory?kind=node")["items"]
        connected = [agent["name"] for agent in agents if agent["connected"]]
        if len(connected) == len(nodes) == config.nodes:
            return
        if time.monotonic() > deadline:
            pods = kubectl.kubectl(config, "get", "pods", "--namespace=ringfence", "-o", "wide")
            raise LabError(
                f"agents connected: {connected or 'none'}; nodes in the inventory: {len(nodes)}."
                f" The pods are:\n{pods}"
            )
        time.sleep(_POLL)


def _call(
    where: Installation,
    method: str,
    path: str,
    body: dict[str, Any] | None = None,
    *,
    authenticated: bool = True,
) -> Any:
    """One call of the control plane's API; OSError if it cannot be reached."""
    context = ssl.create_default_context(cafile=where.ca if where.ca.exists() else None)
    request = urllib.request.Request(  # noqa: S310  # the URL is the lab's own
        where.server + path,
        method=method,
        data=json.dumps(body).encode() if body is not None else None,
        headers={"Content-Type": "application/json"},
    )
    if authenticated:
        request.add_header("Authorization", f"Bearer {where.token_file.read_text().strip()}")
    try:
        with urllib.request.urlopen(request, context=context, timeout=10) as answer:  # noqa: S310
            return json.loads(answer.read() or b"null")
    except urllib.error.HTTPError as error:
        raise LabError(f"{method} {path}: {error.code} {error.read().decode()}") from error
