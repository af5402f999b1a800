"""Others' conformance suites, run as they are against whoever enforces policies in the lab."""

import json
import re
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from ringfence.kube.watch import ABSENT_S
from ringfence.lab import build, images, kubectl, machine, node
from ringfence.lab.command import run, run_noting
from ringfence.lab.config import LabConfig
from ringfence.lab.errors import LabError
from ringfence.lab.progress import Note, Progress
from ringfence.lab.state import State

_TIMEOUT = "2h"
_RESULT = re.compile(r"\s*--- (PASS|FAIL): TestConformance/(\S+) \((\S+)s\)")
"""How Go tells of a test that has ended."""
_DEFINITION = "clusternetworkpolicies.policy.networking.k8s.io"
_AGNHOST = re.compile(r"[\w./-]+/agnhost:[\w.]+")


class Suite(StrEnum):
    """Whose tests."""

    NETWORK_POLICY = "networkpolicy"
    """Those of NetworkPolicy in Kubernetes' own end-to-end tests."""
    CLUSTER_NETWORK_POLICY = "clusternetworkpolicy"
    """Those of the network-policy-api."""


@dataclass(frozen=True, slots=True)
class Spec:
    """One test that was run. `failure` is empty if it passed."""

    name: str
    seconds: float
    failure: str


@dataclass(frozen=True)
class Lab:
    """The running lab, as the suites need it."""

    config: LabConfig
    record: State
    progress: Progress


def conform(lab: Lab, suite: Suite, focus: str, procs: int) -> list[Spec]:
    """Run those tests of a suite whose names `focus`, a Go regexp, matches.

    So many run at once as `procs` says, where the suite can do that. All that it told is in the run
    directory, in `conformance.log`. Raises LabError where it cannot run.
    """
    if suite is Suite.NETWORK_POLICY:
        return _network_policy(lab, focus, procs)
    return _cluster_network_policy(lab, focus)


def _network_policy(lab: Lab, focus: str, procs: int) -> list[Spec]:
    directory, config = build.network_policy_suite(lab.progress), lab.config
    _load(lab, _AGNHOST.findall(run([directory / "netpol.test", "--list-images"])))
    report = config.run / "conformance.json"
    report.unlink(missing_ok=True)
    argv: list[str | Path] = [
        *(directory / "ginkgo", "-v", "--no-color", f"--timeout={_TIMEOUT}", f"--procs={procs}"),
        *(f"--focus=NetworkPolicy.*({focus})", f"--output-dir={config.run}"),
        *(f"--json-report={report.name}", directory / "netpol.test"),
        *("--", f"--e2e-output-dir={config.run}"),
    ]

    def hear(line: str, note: Note) -> None:
        if "seconds]" in line:
            note(line)

    _run(lab, "NetworkPolicy suite", argv, hear)
    if not report.exists():
        raise LabError(f"the suite reported nothing; see {config.run}/conformance.log")
    return [
        Spec(
            " ".join([*spec["ContainerHierarchyTexts"], spec["LeafNodeText"]]),
            spec["RunTime"] / 1e9,
            "" if spec["State"] == "passed" else _failure(spec),
        )
        for found in json.loads(report.read_text())
        for spec in found["SpecReports"] or ()
        if spec["LeafNodeType"] == "It" and spec["State"] != "skipped"
    ]


def _failure(spec: dict[str, Any]) -> str:
    return str(spec.get("Failure", {}).get("Message") or spec["State"])


def _cluster_network_policy(lab: Lab, focus: str) -> list[Spec]:
    directory, config = build.cluster_network_policy_suite(lab.progress), lab.config
    _load(lab, _AGNHOST.findall((directory / "manifests.yaml").read_text()))
    if not kubectl.kubectl(config, "get", "crd", "--ignore-not-found", _DEFINITION):
        kubectl.kubectl(config, "create", f"--filename={directory / 'definition.yaml'}")
        with lab.progress.step("Until enforcers have noticed the definition"):
            time.sleep(ABSENT_S)
    argv: list[str | Path] = [
        *(directory / "conformance.test", "-test.v", f"-test.timeout={_TIMEOUT}", "-all-features"),
        f"-test.run=^TestConformance$/{focus}",
    ]
    found: list[Spec] = []

    def hear(line: str, note: Note) -> None:
        if ended := _RESULT.fullmatch(line):
            result, name, seconds = ended.groups()
            failure = "" if result == "PASS" else "see conformance.log"
            found.append(Spec(name, float(seconds), failure))
            note(line)

    succeeded = _run(lab, "ClusterNetworkPolicy suite", argv, hear)
    specs = leaves(found)
    if not specs or not (succeeded or any(spec.failure for spec in specs)):
        raise LabError(f"the suite ended early; see {config.run}/conformance.log")
    return specs


def leaves(found: Iterable[Spec]) -> list[Spec]:
    """The tests without those that have tests within, unless none of these tells of a failure."""
    some = list(found)
    failing = {spec.name.rpartition("/")[0] for spec in some if spec.failure}
    within = {spec.name.rpartition("/")[0] for spec in some}
    return [
        spec
        for spec in some
        if spec.name not in within or (spec.failure and spec.name not in failing)
    ]


def _run(
    lab: Lab, title: str, argv: Sequence[str | Path], hear: Callable[[str, Note], None]
) -> bool:
    """Run a suite, and tell whether all went well; what failed is for its report to tell."""
    with (
        lab.progress.step(title) as note,
        (lab.config.run / "conformance.log").open("w") as log,
        suppress(LabError),
    ):

        def keep(line: str) -> None:
            log.write(f"{line}\n")
            hear(line, note)

        run_noting(argv, keep, env={"KUBECONFIG": str(lab.config.kubeconfig)})
        return True
    return False


def _load(lab: Lab, names: Sequence[str]) -> None:
    """Load agnhost into every node, under the names by which a suite's pods ask for it."""
    archive = images.agnhost_image(lab.progress)

    def load(name: str) -> None:
        target = machine.find(lab.config, lab.record, name)
        node.load_image(target, archive)
        ours = images.reference("agnhost")
        tag = ["ctr", "--namespace=k8s.io", "images", "tag", "--force", ours]
        target.run([*tag, *sorted(set(names))])

    with lab.progress.step("Image agnhost, into every node"), ThreadPoolExecutor() as pool:
        list(pool.map(load, [spec.name for spec in lab.config.node_specs]))
