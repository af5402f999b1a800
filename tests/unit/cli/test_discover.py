"""What `ringfence discover` prints of files: what has to be looked at first, and noise in sum."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet
import pytest
from typer.testing import CliRunner, Result

from bench.discovery.files import write
from bench.discovery.simulate import simulate
from bench.discovery.style import style
from ringfence.cli.discover import app
from ringfence.model.errors import InputError, RingfenceError
from tests.unit.discovery.test_simulation import shop

WITH_ADDRESSES = """
apiVersion: ringfence.io/v1alpha1
kind: Scope
metadata: {name: top}
spec: {query: everything}
---
apiVersion: ringfence.io/v1alpha1
kind: Scope
metadata: {name: shop}
spec: {parent: top, query: 'kubernetes.namespace = "shop"'}
---
apiVersion: ringfence.io/v1alpha1
kind: AddressSet
metadata: {name: partners}
spec: {addresses: [198.51.100.7]}
---
apiVersion: ringfence.io/v1alpha1
kind: Workspace
metadata: {name: top}
spec:
  scope: top
  catchAll: {inbound: ALLOW, outbound: ALLOW}
  policies:
  - {id: partners, action: ALLOW, consumer: {addressSet: partners}, provider: {scope: shop},
     protocol: TCP, ports: [443]}
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Of the first simulation in which something awaits review."""
    folder = tmp_path_factory.mktemp("files")
    for seed in range(1, 20):
        made = write(simulate(shop(), seed, style("bare")), folder)
        if "review:" in run(made).stdout:
            return made
    raise AssertionError


def run(files: tuple[Path, Path], *options: str) -> Result:
    inventory, flows = map(str, files)
    return CliRunner().invoke(app, ["--inventory", inventory, "--flows", flows, *options])


def tables(result: Result) -> list[list[list[str]]]:
    """The cells of each table, headings and all."""
    assert result.exit_code == 0, result.output
    parts = result.stdout.strip().split("\n\n")
    return [[re.split(r" {2,}", line) for line in part.splitlines()] for part in parts]


def test_a_table_has_reviews_first_and_noise_in_sum(files: tuple[Path, Path]) -> None:
    done = run(files, "-o", "table")
    edges, in_sum = tables(done)
    outcomes = [row[0] for row in edges[1:]]
    assert outcomes == sorted(outcomes, key=["review", "ALLOW"].index)
    assert set(outcomes) == {"review", "ALLOW"}
    assert in_sum[0] == ["outcome", "why", "edges", "such as"]
    told = [(row[0], row[1]) for row in in_sum[1:]]
    assert ("core", "dns") in told
    assert ("noise", "scan") in told
    assert told == sorted(told, key=lambda one: one[0])
    assert "not proposed" not in done.stderr
    assert "dns:" not in done.stderr


def test_the_edges_of_one_outcome(files: tuple[Path, Path]) -> None:
    every = json.loads(run(files, "-o", "json").stdout)["proposals"]
    order = ["review", "ALLOW", "noise"]
    assert [one["outcome"] for one in every] == sorted(
        (one["outcome"] for one in every), key=order.index
    )
    count = Counter(one["outcome"] for one in every)
    (reviews,) = tables(run(files, "-o", "table", "--outcome", "review"))
    assert len(reviews) == 1 + count["review"]
    whys = [one["reasons"] for one in every if one["outcome"] == "review"]
    assert [row[-1].split(", ") for row in reviews[1:]] == [
        [one.partition(":")[0] for one in reasons] for reasons in whys
    ]
    (core,) = tables(run(files, "-o", "table", "--outcome", "core"))
    (noise,) = tables(run(files, "-o", "table", "--outcome", "noise"))
    assert len(core) + len(noise) == 2 + count["noise"]
    assert {row[0] for row in core[1:]} == {"core"}
    two = json.loads(run(files, "-o", "json", "--outcome", "Allow", "--outcome", "core").stdout)
    assert len(two["proposals"]) == count["ALLOW"] + len(core) - 1
    assert all(one["policy"] for one in two["proposals"] if one["outcome"] == "ALLOW")


def test_yaml_says_on_stderr_what_is_not_proposed(files: tuple[Path, Path]) -> None:
    done = run(files)
    said = done.stderr.splitlines()
    assert any(one.startswith("dns: ") for one in said), "it is proposed, under its own name"
    assert any(one.startswith("not proposed: scan: ") for one in said)
    refused = run(files, "--outcome", "noise")
    assert isinstance(refused.exception, InputError)
    assert "YAML has policies" in str(refused.exception)


def test_of_noise_alone_it_does_not_say_that_nothing_was_observed(tmp_path: Path) -> None:
    inventory, flows = tmp_path / "inventory.yaml", tmp_path / "flows.csv"
    inventory.write_text(
        "- {kind: pod, namespace: shop, name: cart, addresses: [10.1.0.1]}\n"
        "- {kind: pod, namespace: shop, name: db, addresses: [10.1.0.2]}\n"
    )
    flows.write_text(
        "first,last,consumer_address,provider_address,protocol,port,dialled_address,dialled_port,"
        "opened,answered\n"
        "2030-01-01T00:00:00Z,2030-01-01T00:00:01Z,10.1.0.1,10.1.0.2,TCP,5432,10.1.0.2,5432,1,0\n"
    )
    done = run((inventory, flows))
    assert done.exit_code == 2
    assert "no connection that a policy is proposed for was observed" in done.stderr
    assert "same clusters" not in done.stderr
    inventory.write_text("- {kind: pod, namespace: shop, name: cart, addresses: [10.9.0.1]}\n")
    done = run((inventory, flows))
    assert done.exit_code == 2
    assert (
        "note: of 1 row in the flows 0 have an end that the inventory holds at their time, and 0"
        " one in scope all; one is 10.1.0.1 to 10.1.0.2, at 2030-01-01T00:00:00Z: see that"
    ) in done.stderr
    assert "--since" not in done.stderr


def test_less_than_two_hours_are_warned_of(hostile: tuple[Path, Path], tmp_path: Path) -> None:
    assert "less than two hours" not in run(hostile).stderr
    assert not json.loads(run(hostile, "-o", "json").stdout)["brief"]
    table = pyarrow.parquet.read_table(hostile[1])
    first = pc.cast(table["first"], pa.int64())
    hour = pc.less(first, pa.scalar(pc.min(first).as_py() + 3600 * 10**9))
    flows = tmp_path / "flows.parquet"
    pyarrow.parquet.write_table(table.filter(hour), flows)
    done = run((hostile[0], flows), "-o", "json")
    assert "warning: less than two hours were seen" in done.stderr
    assert json.loads(done.stdout)["brief"]


def test_without_scopes_there_is_only_one(hostile: tuple[Path, Path]) -> None:
    refused = run(hostile, "shop")
    assert isinstance(refused.exception, RingfenceError)
    assert "no scope 'shop': without --scopes there is only 'all'" in str(refused.exception)
    assert run(hostile, "all").exit_code == 0


def test_an_exclusion_of_nobody_is_told(hostile: tuple[Path, Path]) -> None:
    done = run(hostile, "--exclude", 'name = "x"')
    assert 'note: --exclude name = "x" excludes nothing: it holds for nobody' in done.stderr
    done = run(hostile, "--exclude", 'kubernetes.owner.name = "front"')
    assert "excludes nothing" not in done.stderr


def test_rows_without_slots_are_told(hostile: tuple[Path, Path], tmp_path: Path) -> None:
    assert "--every 5m" not in run(hostile).stderr
    table = pyarrow.parquet.read_table(hostile[1])
    hour = pa.scalar(3600 * 10**9, pa.duration("ns"))
    long = pc.add(table["last"], hour)
    flows = tmp_path / "flows.parquet"
    table = table.set_column(table.schema.get_field_index("last"), "last", long)
    pyarrow.parquet.write_table(table, flows)
    assert "`ringfence flows export --every 5m` tells it" in run((hostile[0], flows)).stderr


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Of a simulation with an intruder and a scanner inside."""
    return write(simulate(shop(), 1, style("plain")), tmp_path_factory.mktemp("hostile"))


def test_workspaces_beside_the_scopes_may_name_address_sets(
    hostile: tuple[Path, Path], tmp_path: Path
) -> None:
    scopes = tmp_path / "scopes.yaml"
    scopes.write_text(WITH_ADDRESSES)
    done = run(hostile, "--scopes", str(scopes), "--scope", "shop")
    assert done.exit_code == 0, done.exception


def test_a_coarse_step_says_which_suspicious_edges_it_lets_pass(
    hostile: tuple[Path, Path],
) -> None:
    fine = run(hostile, "-o", "json")
    told = json.loads(fine.stdout)
    assert told["admitted"] == []
    assert "lets pass" not in fine.stderr
    done = run(hostile, "-o", "json", "--boundary", "kubernetes-cluster")
    assert done.exit_code == 0
    told = json.loads(done.stdout)

    def edges(rows: list[dict[str, Any]]) -> set[tuple[str, ...]]:
        return {(one["consumer"], one["provider"], one["protocol"], *one["ports"]) for one in rows}

    wide = next(one for one in told["workspace"]["policies"] if one["id"] == "all-to-all")
    mine = [one for one in told["admitted"] if one["policy"] == "all-to-all"]
    scanned = [
        one
        for one in told["proposals"]
        if one["reasons"][0].startswith("scan")
        and (one["protocol"], one["consumer"]) == (wide["protocol"], "shop-carts")
    ]
    assert len(scanned) > 20
    assert edges(scanned) <= edges(mine)
    assert {one["outcome"] for one in mine} <= {"noise", "review"}
    assert {one["reason"].partition(":")[0] for one in mine} >= {"scan"}
    said = f"lets pass {len(mine)} edges of noise or review, such as "
    assert f"note: all/all-to-all {said}" in done.stderr
    assert said in wide["evidence"]["why"]
    assert any(said in one for one in told["warnings"])


def test_whose_role_is_a_guess_is_said(tmp_path: Path) -> None:
    made = write(simulate(shop(), 1, style("plain", withheld=True)), tmp_path)
    report = json.loads(run(made, "-o", "json").stdout)
    guessed = Counter(
        (role["name"], member["note"])
        for role in report["roles"]
        for member in role["members"]
        if not member["confidence"]
    )
    assert guessed
    assert {note for _, note in guessed} == {"no conversation seen"}
    (told,) = (one for one in tables(run(made, "-o", "table")) if one[0][0] == "role")
    assert [(role, int(count), note) for role, count, _, note in told[1:]] == [
        (role, count, note) for (role, note), count in guessed.items()
    ]
