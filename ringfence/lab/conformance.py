"""Others' conformance suites, run as they are against whatever enforces policies in the lab."""

import json
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ringfence.lab import build, images, machine, node
from ringfence.lab.command import run, run_noting
from ringfence.lab.config import LabConfig
from ringfence.lab.errors import LabError
from ringfence.lab.progress import Progress
from ringfence.lab.state import State

EVERY_SPEC = "NetworkPolicy"
"""Focus that all specs have."""
_TIMEOUT = "2h"


@dataclass(frozen=True, slots=True)
class Spec:
    """One spec that was run. `failure` is empty if it passed."""

    name: str
    seconds: float
    failure: str


def network_policy(
    config: LabConfig, record: State, progress: Progress, focus: str, procs: int
) -> list[Spec]:
    """Run those of Kubernetes' own NetworkPolicy specs whose names `focus`, a Go regexp, matches.

    So many run at once as `procs` says. All that the suite told is in the run directory, in
    `conformance.log`. Raises LabError where it cannot run.
    """
    suite = build.network_policy_suite(progress)
    _load(config, record, progress, _agnhost(suite / "netpol.test"))
    report = config.run / "conformance.json"
    report.unlink(missing_ok=True)
    argv: list[str | Path] = [
        *(suite / "ginkgo", "-v", "--no-color", f"--timeout={_TIMEOUT}", f"--procs={procs}"),
        *(f"--focus={focus}", f"--output-dir={config.run}", f"--json-report={report.name}"),
        *(suite / "netpol.test", "--", f"--kubeconfig={config.kubeconfig}"),
        f"--e2e-output-dir={config.run}",
    ]
    with (
        progress.step("NetworkPolicy suite") as note,
        (config.run / "conformance.log").open("w") as log,
    ):

        def keep(line: str) -> None:
            log.write(f"{line}\n")
            if line.startswith("[It]") or "seconds]" in line:
                note(line)

        try:
            run_noting(argv, keep, env={})
        except LabError:  # also where a spec failed; the report tells
            if not report.exists():
                raise
    return _read_report(report)


def _read_report(report: Path) -> list[Spec]:
    """The specs that ran, of a report in Ginkgo's JSON."""
    return [
        Spec(
            " ".join([*spec["ContainerHierarchyTexts"], spec["LeafNodeText"]]),
            spec["RunTime"] / 1e9,
            "" if spec["State"] == "passed" else _failure(spec),
        )
        for suite in json.loads(report.read_text())
        for spec in suite["SpecReports"] or ()
        if spec["LeafNodeType"] == "It" and spec["State"] != "skipped"
    ]


def _failure(spec: dict[str, Any]) -> str:
    return str(spec.get("Failure", {}).get("Message") or spec["State"])


def _agnhost(suite: Path) -> list[str]:
    """Names under which the suite's pods ask for agnhost."""
    return re.findall(r"\S+/agnhost:\S+", run([suite, "--list-images"]))


def _load(config: LabConfig, record: State, progress: Progress, names: Sequence[str]) -> None:
    """Load agnhost into every node, under all its names."""
    archive = images.agnhost_image(progress)

    def load(name: str) -> None:
        target = machine.find(config, record, name)
        node.load_image(target, archive)
        ours = images.reference("agnhost")
        target.run(["ctr", "--namespace=k8s.io", "images", "tag", "--force", ours, *names])

    with progress.step("Image agnhost, into every node"), ThreadPoolExecutor() as pool:
        list(pool.map(load, [spec.name for spec in config.node_specs]))
