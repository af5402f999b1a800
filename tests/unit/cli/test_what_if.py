"""`ringfence analyze --if-enforced` of files: what is to be added, as discovery proposes it."""

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from bench.discovery.files import write
from bench.discovery.simulate import simulate
from bench.discovery.style import style
from ringfence.cli.analyze import app as analyze
from ringfence.cli.discover import app as discover
from ringfence.policy.comments import format_text
from tests.unit.discovery.test_simulation import shop

SCOPE = """
apiVersion: ringfence.io/v1alpha1
kind: Scope
metadata: {name: all}
spec: {query: everything}
"""
DENYING = (
    SCOPE
    + """---
apiVersion: ringfence.io/v1alpha1
kind: Workspace
metadata: {name: all}
spec: {scope: all, catchAll: {inbound: DENY, outbound: DENY}}
"""
)


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


def test_what_awaits_review_is_accepted_by_its_number_alone(
    files: list[str], tmp_path: Path
) -> None:
    invoke, policies = CliRunner().invoke, tmp_path / "shop.yaml"
    own = yaml.safe_load(if_enforced(files, "--accept", "all").stdout)
    waiting, _, *others = own["spec"]["policies"]
    own["spec"]["policies"] = [waiting, *others]
    waiting["review"] = "somebody: has to look"
    policies.write_text(f"{SCOPE}---\n{yaml.safe_dump(own)}")
    words = ["--policies", str(policies), *files, "--if-enforced"]
    told = json.loads(invoke(analyze, [*words, "-o", "json"]).stdout)["blocked"]
    held = [row for row in told if row["held"]]
    assert {row["review"] for row in held} == {"somebody: has to look"}
    assert {row["policy"]["id"] for row in held} == {waiting["id"]}
    gaps = {row["policy"]["id"] for row in told if not (row["noise"] or row["review"])}
    table = invoke(analyze, words)
    assert f"{waiting['id']} without review" in table.stdout
    assert f"all leaves out {len(held)} that await" in table.stderr
    every = invoke(analyze, [*words, "--accept", "all"])
    assert f"all leaves out {len(held)} that await" in every.stderr
    made = yaml.safe_load(every.stdout)["spec"]["policies"]
    assert made[: len(others) + 1] == [waiting, *others]
    assert {one["id"] for one in made[len(others) + 1 :]} == gaps != set()

    named = invoke(analyze, [*words, "--accept", str(held[0]["number"])])
    del waiting["review"]
    assert yaml.safe_load(named.stdout)["spec"]["policies"] == [waiting, *others]
    policies.write_text(f"{SCOPE}---\n{named.stdout}")
    left = json.loads(invoke(analyze, [*words, "-o", "json"]).stdout)["blocked"]
    assert len(left) == len(told) - len(held)


def test_what_is_all_noise_invites_to_accept_nothing(files: list[str], tmp_path: Path) -> None:
    policies = tmp_path / "shop.yaml"
    told = json.loads(if_enforced(files, "-o", "json").stdout)["blocked"]
    good = ",".join(str(row["number"]) for row in told if not row["noise"])
    accepted = if_enforced(files, "--accept", good).stdout
    policies.write_text(f"{SCOPE}---\n{accepted}")
    done = CliRunner().invoke(analyze, ["--policies", str(policies), *files, "--if-enforced"])
    assert done.exit_code == 0
    assert "nothing needs to be accepted" in done.stderr
    assert "--accept" not in done.stderr


def test_what_is_accepted_is_written_in_canonical_form(files: list[str]) -> None:
    done = if_enforced(files, "--accept", "all")
    assert done.exit_code == 0, done.output
    assert done.stdout == format_text(done.stdout, "accepted")
