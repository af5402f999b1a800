"""What tests could leave on their host, as sets that can be compared before and after."""

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

from ringfence.lab.config import PREFIX
from ringfence.lab.node import save_sysctls

Footprint = dict[str, frozenset[str]]

_CGROUPS = Path("/sys/fs/cgroup")
_NAMESPACES = Path("/run/netns")
_PROCESSES = Path("/proc")
_TRIES = 5


def of_host() -> Footprint:
    """Everything on the host: for a suite that has it to itself."""
    return {
        "namespaces of processes": _process_namespaces(),
        "named network namespaces": _names(_NAMESPACES),
        "mounts": _mounts(),
        "cgroups": frozenset(str(p) for p in _CGROUPS.glob("**/*") if p.is_dir()),
        "interfaces": frozenset(_json("ip", "-json", "address", key="ifname")),
        "nftables rules": frozenset(_run("nft", "--stateless", "list", "ruleset").splitlines()),
        "BPF links": _bpf("link"),
        "kernel settings": frozenset(f"{k}={v}" for k, v in save_sysctls().items()),
        "run directories": _names(Path("/run")) | _names(Path("/var/lib")),
    }


def of_session(mark: str, directory: Path) -> Footprint:
    """What one test session answers for on a host that it shares with others and with a lab.

    Its processes have `mark` in their environment and its namespaces in their name; its files are
    in `directory`. What bears no name is told from that of others by its use: theirs is in the
    hands of a process or pinned elsewhere, and nobody but a leak writes rules in the host's own
    namespace.
    """
    started = {pid: command for pid, command in _commands() if _environment_has(pid, mark)}
    ours = {*started, os.getpid()}
    return {
        "processes": frozenset(f"{pid} {command}" for pid, command in started.items()),
        "named network namespaces": frozenset(n for n in _names(_NAMESPACES) if mark in n),
        "mounts": frozenset(at for at in _mounts() if mark in at or str(directory) in at),
        "cgroups": frozenset(_empty_cgroups()),
        "nftables tables": frozenset(_run("nft", "list", "tables").splitlines()),
        "BPF programs": _bpf("prog")
        - _held_by_others("prog_id", ours)
        - _pinned_elsewhere("prog_id", directory),
        "BPF links": _bpf("link")
        - _held_by_others("link_id", ours)
        - _pinned_elsewhere("id", directory),
    }


def added(before: Footprint, after: Footprint) -> dict[str, set[str]]:
    """What exists after and did not before, by kind."""
    found = {kind: set(after[kind] - before[kind]) for kind in before}
    return {kind: names for kind, names in found.items() if names}


def assert_nothing_stays(
    before: Footprint, measure: Callable[[], Footprint], seconds: float = 10
) -> None:
    """All that came is gone, at the latest in a moment: the kernel frees in its own time."""
    deadline = time.monotonic() + seconds
    while left := added(before, measure()):
        assert time.monotonic() < deadline, f"left behind: {left}"
        time.sleep(0.5)


def _process_namespaces() -> frozenset[str]:
    kinds = ("net", "mnt", "pid", "uts")
    found = (_target(link) for kind in kinds for link in _PROCESSES.glob(f"[0-9]*/ns/{kind}"))
    return frozenset(found) - {""}


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except OSError:  # the process is gone
        return ""


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:  # what it tells of is gone
        return ""


def _commands() -> Iterator[tuple[int, str]]:
    for directory in _PROCESSES.glob("[0-9]*"):
        yield int(directory.name), _text(directory / "cmdline").replace("\0", " ")


def _environment_has(pid: int, mark: str) -> bool:
    return mark in _text(_PROCESSES / str(pid) / "environ")


def _mounts() -> frozenset[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return frozenset(line.split()[4] for line in lines)


def _empty_cgroups() -> Iterator[str]:
    """Those with neither process nor child; a lab's go with the lab."""
    for procs in _CGROUPS.glob("**/cgroup.procs"):
        group = procs.parent
        with contextlib.suppress(FileNotFoundError):  # a lab has taken it away meanwhile
            bare = not any(child.is_dir() for child in group.iterdir()) and not _text(procs)
            if bare and f"/{PREFIX}" not in str(group):
                yield str(group)


def _bpf(kind: str) -> frozenset[str]:
    """The ids of the loaded programs (`prog`) or links (`link`)."""
    return frozenset(str(each["id"]) for each in _bpftool(kind))


def _bpftool(kind: str) -> list[dict[str, Any]]:
    """bpftool fails when one goes while it lists them, so it is asked again."""
    for _ in range(_TRIES):
        with contextlib.suppress(subprocess.CalledProcessError):
            found: list[dict[str, Any]] = json.loads(
                _run("bpftool", "--json", "--bpffs", kind) or "[]"
            )
            return found
        time.sleep(0.2)
    raise RuntimeError(f"bpftool cannot list each BPF {kind}")


def _held_by_others(field: str, ours: Collection[int]) -> set[str]:
    """The ids that descriptors of other processes hold, by their line in fdinfo (proc(5))."""
    held = set()
    for descriptor in _PROCESSES.glob("[0-9]*/fd/*"):
        directory = descriptor.parent.parent
        if int(directory.name) in ours or not _target(descriptor).startswith("anon_inode:bpf"):
            continue
        lines = _text(directory / "fdinfo" / descriptor.name).splitlines()
        held |= {line.split()[1] for line in lines if line.startswith(f"{field}:")}
    return held


def _pinned_elsewhere(field: str, directory: Path) -> set[str]:
    """A field of the links that are pinned, and not in the directory."""
    return {
        str(link[field])
        for link in _bpftool("link")
        for pin in link.get("pinned", ())
        if directory not in Path(pin).parents
    }


def _names(directory: Path) -> frozenset[str]:
    return frozenset(str(p) for p in directory.iterdir()) if directory.exists() else frozenset()


def _json(*argv: str, key: str) -> list[str]:
    return [str(item[key]) for item in json.loads(_run(*argv) or "[]")]


def _run(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout
