"""What a machine lacks is said, with what to do: each lack is made for one process, none played."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kernel.conftest import ROOT

RINGFENCE = Path(sys.executable).with_name("ringfence")
LAB = [str(RINGFENCE), "lab", "up"]
SETUP = [str(ROOT / "scripts/setup")]

# In namespaces of its own, so that a process which is not refused disturbs nobody.
ALONE = ["unshare", "--net", "--mount"]
# A user namespace that maps nobody: not root, and yet the owner of what root owns.
NO_ROOT = [*ALONE, "--user"]
NO_BTF = [*ALONE, "sh", "-c", 'mount -t tmpfs tmpfs /sys/kernel/btf && exec "$@"', "sh"]
NO_PERFMON = [
    *ALONE,
    "setpriv",
    "--bounding-set=-all,+bpf,+net_admin,+sys_admin",
    "--inh-caps=-all",
]
NO_CAPABILITY = [*ALONE, "setpriv", "--bounding-set=-all", "--inh-caps=-all"]


def agent(state: Path) -> list[str]:
    return [
        str(RINGFENCE), "agent", "run", "--server", "https://127.0.0.1:1", "--ca-file", "/none",
        "--state-dir", str(state), "--runtime-socket", "",
    ]  # fmt: skip


def refused(*argv: str, path: str = os.environ["PATH"]) -> str:
    """Run what must fail; returns what it says of it, which is one line."""
    done = subprocess.run(
        argv, env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=30,
        check=False,
    )  # fmt: skip
    assert done.returncode == 1, done
    (line,) = done.stderr.splitlines()
    return line


@pytest.mark.parametrize(
    ("without", "wrong", "remedy"),
    [
        (NO_ROOT, "writes firewall rules", "run it as root"),
        (NO_PERFMON, "missing capabilities: PERFMON;", "capabilities.add"),
        (NO_CAPABILITY, "missing capabilities: NET_ADMIN, SYS_ADMIN, PERFMON, BPF;", "add them to"),
        (NO_BTF, "/sys/kernel/btf/vmlinux is missing", "CONFIG_DEBUG_INFO_BTF=y"),
    ],
)
def test_an_agent_names_what_its_node_lacks(
    tmp_path: Path, without: list[str], wrong: str, remedy: str
) -> None:
    said = refused(*without, *agent(tmp_path / "state"))
    assert said.startswith("error: ")
    assert wrong in said
    assert remedy in said
    assert not (tmp_path / "state").exists(), "it looks before it touches anything"


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([*NO_ROOT, *LAB], "error: the lab makes namespaces and mounts: run this as root"),
        ([*NO_ROOT, *SETUP], "error: setup installs packages and the lab makes namespaces: run"),
        ([*NO_BTF, *SETUP], "CONFIG_DEBUG_INFO_BTF=y"),
    ],
)
def test_lab_and_setup_name_what_the_machine_lacks(argv: list[str], said: str) -> None:
    assert said in refused(*argv)


def test_setup_names_a_missing_toolchain(tmp_path: Path) -> None:
    for tool in ("bash", "dirname", "mktemp", "rm"):
        (tmp_path / tool).symlink_to(str(shutil.which(tool)))
    assert "install Python 3.11" in refused(*SETUP, path=str(tmp_path))
    (tmp_path / "python3").symlink_to(sys.executable)
    assert "Go is missing: install Go" in refused(*SETUP, path=str(tmp_path))
