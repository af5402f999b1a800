"""Exit codes and first words of the command, mostly as a whole process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ringfence import __version__
from ringfence.cli.main import COMMANDS, app

COMMAND = Path(sys.executable).parent / "ringfence"


def run(tmp_path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith("RINGFENCE_")},
        "XDG_CONFIG_HOME": str(tmp_path),
        "RINGFENCE_CONTEXT": "login",
        "NO_COLOR": "1",
    }
    return subprocess.run(
        [COMMAND, *words],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def keep(tmp_path: Path, ca: str = "") -> None:
    """A login to a place where nobody listens."""
    context = tmp_path / "ringfence" / "context.json"
    context.parent.mkdir()
    context.write_text(json.dumps({"server": "https://127.0.0.1:1", "token": "t", "ca": ca}))


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--help"], 0, "Commands:"),
        (["flows", "lst"], 3, "list"),
        (["nonsense"], 3, "nonsense"),
        (["inventory"], 1, "no control plane is known: run `ringfence login"),
        (["enforce"], 3, "--off"),
        (["enforce", "shop@latest"], 3, "write shop@p3"),
        (["analyze", "shop@"], 3, "write shop@p3"),
        (["--version"], 0, f"ringfence {__version__}"),
        (["inventory", "--kind", "pods"], 3, "'pod'"),
        (["analyze", "shop", "--category", "nothing"], 3, "'escaped'"),
        (["flows", "list", "--limit", "0"], 3, "greater than or equal to 1"),
        (["flows", "denied", "--limit", "0"], 3, "greater than or equal to 1"),
        (["flows", "related", "carts"], 3, "not a connection's id"),
        (["flows", "related", "a", "b", "--protocol", "any"], 3, "is not a protocol"),
        (["flows", "top", "--sort", "size"], 3, "'connections'"),
        (["flows", "graph", "-o", "svg"], 3, "'-o': 'svg' is not one of 'table'"),
        (["flows", "export", "-o", "xlsx"], 3, "'parquet'"),
        (["flows", "list", "-o", "parquet"], 3, "`ringfence flows export -o parquet` writes"),
        (["flows", "list", "-o", "svg"], 3, "'svg' is not one of 'table'"),
        (["flows", "watch", "-o", "csv"], 3, "'jsonl'"),
        (["why", "a", "b", "99999"], 3, "less than or equal to 65535"),
        (["why", "a", "b", "-o", "csv"], 3, "table, json, yaml or jsonl"),
        (["diff", "-f", "x.yaml", "-o", "md"], 3, "table, json, yaml or jsonl"),
        (["tokens", "enrol", "node", "--kubernetes-cluster", "lab"], 3, "'connector'"),
        (["enforce", "shop", "--override", "foo"], 3, "'probes'"),
        (["enforce", "shop"], 3, "nobody can answer here: pass --yes"),
        (["login", "127.0.0.1:1", "--token-file", "t", "--ca", "c"], 3, "begin with https://"),
        (["apply", "-f", "/nonexistent.yaml"], 1, "no file /nonexistent.yaml"),
        (["labels", "upload", "/nonexistent.csv"], 1, "no file /nonexistent.csv"),
        (["labels", "upload", "/usr"], 1, "/usr is a folder; name a file"),
        (["capture", "replay", "/nonexistent.pcap"], 1, "no file /nonexistent.pcap"),
        (["netpol", "connectivity", "--dir", "/nonexistent"], 1, "no folder /nonexistent"),
    ],
)
def test_exit_codes(tmp_path: Path, words: list[str], code: int, said: str) -> None:
    done = run(tmp_path, *words)
    assert done.returncode == code
    assert said in done.stdout + done.stderr


def test_a_missing_ca_says_so(tmp_path: Path) -> None:
    keep(tmp_path, ca=str(tmp_path / "gone.pem"))
    done = run(tmp_path, "agents")
    assert done.returncode == 1
    assert f"cannot read the CA certificate '{tmp_path}/gone.pem' (No such file" in done.stderr


def test_an_unreachable_control_plane_says_so(tmp_path: Path) -> None:
    keep(tmp_path)
    done = run(tmp_path, "agents")
    assert done.returncode == 1
    assert "cannot reach the control plane at https://127.0.0.1:1: Connection" in done.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str) -> None:
    done = CliRunner().invoke(app, [name, "--help"])
    assert done.exit_code == 0
    assert f"Usage: root {name} " in done.stdout


@pytest.mark.parametrize(("words", "offered"), [([], True), (["inventory"], False)])
def test_completion_is_offered_once(words: list[str], offered: bool) -> None:
    done = CliRunner().invoke(app, [*words, "--help"])
    assert ("--install-completion" in done.stdout) is offered
