"""Exit codes and first words of the command, mostly as a whole process."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ringfence import __version__
from ringfence.cli.files import FileError, rewrite
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
        (["analysis"], 3, "Example: ringfence analysis start sock-shop@p3"),
        (["alerts", "--help"], 0, "Example: ringfence alerts list --since 1d"),
        (["alerts", "sink"], 3, "Example: ringfence alerts sink add"),
        (["nonsense"], 3, "nonsense"),
        (["inventory"], 1, "no control plane is known: run `ringfence login"),
        (["enforce"], 1, "no control plane is known"),
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


def test_a_broken_file_is_no_wrong_use(tmp_path: Path) -> None:
    bad, latin = tmp_path / "bad.yaml", tmp_path / "latin.yaml"
    bad.write_text("kind: [\n")
    latin.write_bytes(b"\xff\n")
    for words in (
        ("export", "--as", "networkpolicy", "-f", str(bad)),
        ("fmt", str(bad)),
        ("lint", str(latin)),
        ("login", "https://x", "--token-file", str(latin), "--ca", "c"),
    ):
        done = run(tmp_path, *words)
        assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr


def test_a_file_that_is_called_stdin_is_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "stdin"
    file.write_text(SCOPE)
    file.chmod(0o640)
    done = run(tmp_path, "fmt", "stdin")
    assert (done.returncode, done.stdout) == (0, "stdin\n")
    assert "  name: shop\n" in file.read_text()
    assert (file.stat().st_mode & 0o777, list(tmp_path.iterdir())) == (0o640, [file])


def test_a_file_that_cannot_be_written_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("old")

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", fail)
    with pytest.raises(FileError, match=r"cannot write .*: No space left"):
        rewrite(file, "new")
    assert (file.read_text(), list(tmp_path.iterdir())) == ("old", [file])


SCOPE = """\
apiVersion: ringfence.io/v1alpha1
kind: Scope
metadata: {name: shop}
spec: {query: everything}
"""


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str) -> None:
    done = CliRunner().invoke(app, [name, "--help"])
    assert done.exit_code == 0
    assert f"Usage: root {name} " in done.stdout


@pytest.mark.parametrize(("words", "offered"), [([], True), (["inventory"], False)])
def test_completion_is_offered_once(words: list[str], offered: bool) -> None:
    done = CliRunner().invoke(app, [*words, "--help"])
    assert ("--install-completion" in done.stdout) is offered
