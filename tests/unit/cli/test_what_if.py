"""`ringfence analyze --if-enforced` of files: what is to be added, as discovery proposes it."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from bench.discovery.files import write
from bench.discovery.simulate import simulate
from bench.discovery.style import style
from ringfence.cli.analyze import app as analyze
from ringfence.cli.discover import app as discover
from ringfence.policy.comments import format_text
from tests.unit.discovery.test_simulation import shop

DENYING = """
apiVersion: ringfence.io/v1alpha1
kind: Scope
metadata: {name: all}
spec: {query: everything}
---
apiVersion: ringfence.io/v1alpha1
kind: Workspace
metadata: {name: all}
spec: {scope: all, catchAll: {inbound: DENY, outbound: DENY}}
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    inventory, flows = write(simulate(shop(), 1, style("plain")), tmp_path_factory.mktemp("files"))
    return ["--inventory", str(inventory), "--flows", str(flows)]


def if_enforced(files: list[str], *options: str) -> Result:
    policies = Path(files[1]).with_name("shut.yaml")
    policies.write_text(DENYING)
    return CliRunner().invoke(
        analyze, ["--policies", str(policies), *files, "--if-enforced", *options]
    )


def test_evidence_and_noise_are_those_of_discovery(files: list[str]) -> None:
    found = json.loads(CliRunner().invoke(discover, [*files, "-o", "json"]).stdout)
    proposed = {}
    noise = {}
    for one in found["proposals"]:
        dialled = one["service"] or one["provider"], one["service"] and one["provider"]
        edge = one["consumer"], *dialled, one["protocol"], *one["ports"]
        proposed[edge] = one["evidence"]["intervals"]
        noise[edge] = one["reasons"][0] if one["outcome"] == "noise" else ""
    told = json.loads(if_enforced(files, "-o", "json").stdout)["blocked"]
    same_port = [
        (edge, row)
        for row in told
        if (edge := (*(row[name] for name in ("consumer", "provider", "backend")),
                     row["protocol"], row["port"])) in proposed
    ]  # fmt: skip
    assert len(same_port) > 10
    for edge, row in same_port:
        core = noise[edge].partition(":")[0] in {"dns", "probe", "api-server", "kubelet", "ntp"}
        assert row["noise"] == ("" if core else noise[edge])
    assert max(row["policy"]["evidence"]["intervals"] for _, row in same_port) > 100
    for edge, row in same_port:
        alone = row["policy"]["evidence"]["intervals"]
        assert alone >= proposed[edge], edge
    assert any(row["noise"] for _, row in same_port)


def test_what_is_accepted_is_written_in_canonical_form(files: list[str]) -> None:
    done = if_enforced(files, "--accept", "all")
    assert done.exit_code == 0, done.output
    assert done.stdout == format_text(done.stdout, "accepted")
