"""Building and loading the objects, and what a person is told when that cannot be."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ringfence.kernel import bpf
from ringfence.kernel.bpf import object_path
from ringfence.kernel.capture import FlowCapture
from ringfence.kernel.drops import DropCapture
from ringfence.kernel.errors import BpfError
from tests.kernel.netns import namespace

ROOT = Path(__file__).parents[2]


def make(
    out: Path, source: Path = ROOT / "bpf", **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/usr/bin/make", "-C", source, f"OUT={out}"],
        env={**os.environ, **environment}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_the_objects_build_from_scratch_and_load(tmp_path: Path) -> None:
    done = make(tmp_path / "build")
    assert done.returncode == 0, done.stderr
    for capture in (
        FlowCapture(tmp_path / "build" / "flow.bpf.o"),
        DropCapture(tmp_path / "build" / "drop.bpf.o"),
    ):
        capture.open()
        capture.close()


def test_every_checkout_builds_the_same_bytes(tmp_path: Path) -> None:
    built = []
    for name in ("one", "another/one"):
        shutil.copytree(ROOT / "bpf", tmp_path / name / "bpf")
        assert make(Path("../build"), tmp_path / name / "bpf").returncode == 0
        objects = sorted((tmp_path / name / "build").iterdir())
        built.append([(path.name, path.read_bytes()) for path in objects])
    assert [name for name, _ in built[0]] == ["drop.bpf.o", "flow.bpf.o"]
    assert built[0] == built[1]


def test_a_missing_compiler_is_named(tmp_path: Path) -> None:
    (tmp_path / "uname").symlink_to("/usr/bin/uname")
    done = make(tmp_path / "build", PATH=str(tmp_path))
    assert done.returncode != 0
    assert "apt-get install clang" in done.stderr


def test_a_missing_object_says_how_to_build_it() -> None:
    with pytest.raises(BpfError, match="make -C bpf"):
        object_path("unheard-of")


def test_a_file_that_is_no_object_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.o").write_bytes(b"not ELF")
    with pytest.raises(BpfError, match="cannot open the BPF object"):
        FlowCapture(tmp_path / "x.o").open()


def test_a_kernel_without_type_information_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(bpf, "_BTF", tmp_path / "vmlinux")
    with pytest.raises(BpfError, match="CONFIG_DEBUG_INFO_BTF"):
        FlowCapture(object_path("flow")).open()


def open_both_with(*capabilities: str) -> subprocess.CompletedProcess[str]:
    script = (
        "from ringfence.kernel.bpf import object_path\n"
        "from ringfence.kernel.capture import FlowCapture\n"
        "from ringfence.kernel.drops import DropCapture\n"
        "flows = FlowCapture(object_path('flow'))\n"
        "flows.open()\n"
        "flows.attach(1)\n"
        "DropCapture(object_path('drop')).open()\n"
    )
    bounds = ",".join(["-all", *(f"+{name}" for name in capabilities)])
    with namespace("capabilities") as where:
        return subprocess.run(
            ["ip", "netns", "exec", where.name, "setpriv", f"--bounding-set={bounds}",
             "--inh-caps=-all", sys.executable, "-c", script],
            capture_output=True, text=True, check=False,
        )  # fmt: skip


def test_missing_capabilities_are_named() -> None:
    assert "CAP_BPF, CAP_PERFMON" in open_both_with().stderr.splitlines()[-1]


def test_the_capabilities_of_the_agent_are_enough() -> None:
    done = open_both_with("bpf", "perfmon", "net_admin", "sys_admin")
    assert done.returncode == 0, done.stderr
