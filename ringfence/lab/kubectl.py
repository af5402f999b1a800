"""The lab's Kubernetes API as kubectl sees it from the host."""

import json
from collections.abc import Sequence
from typing import Any

from ringfence.lab import build
from ringfence.lab.command import run
from ringfence.lab.config import LabConfig, cache_dir


def command(config: LabConfig, argv: Sequence[str]) -> list[str]:
    """Words that run kubectl against the lab."""
    version = build.kubernetes_version()
    program = cache_dir() / f"kubernetes-{version}/kubectl"
    options = [f"--kubeconfig={config.kubeconfig}", f"--cache-dir={config.run / 'kubectl-cache'}"]
    return [str(program), *options, *argv]


def kubectl(config: LabConfig, *argv: str, stdin: str | None = None) -> str:
    """Run kubectl to its end and return what it printed; raises LabError."""
    return run(command(config, argv), stdin=stdin)


def apply(config: LabConfig, objects: Sequence[dict[str, object]]) -> None:
    """Create or update objects, in their order."""
    bundle = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
    server_side = ["--server-side", "--force-conflicts"]
    kubectl(config, "apply", *server_side, "--filename=-", stdin=json.dumps(bundle))


def get(config: LabConfig, *argv: str) -> list[dict[str, Any]]:
    """List objects."""
    items: list[dict[str, Any]] = json.loads(kubectl(config, "get", "-o", "json", *argv))["items"]
    return items
