"""What a lab could leave on its host, as sets that can be compared before and after."""

import json
import subprocess
import time
from pathlib import Path

from ringfence.lab.node import save_sysctls

_TRIES = 5
Footprint = dict[str, frozenset[str]]


def footprint() -> Footprint:
    return {
        "namespaces of processes": _process_namespaces(),
        "named network namespaces": _names(Path("/run/netns")),
        "mounts": frozenset(
            line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()
        ),
        "cgroups": frozenset(str(p) for p in Path("/sys/fs/cgroup").glob("**/*") if p.is_dir()),
        "interfaces": frozenset(_json("ip", "-json", "address", key="ifname")),
        "nftables rules": frozenset(_run("nft", "--stateless", "list", "ruleset").splitlines()),
        "BPF links": _bpf_links(),
        "kernel settings": frozenset(f"{k}={v}" for k, v in save_sysctls().items()),
        "run directories": _names(Path("/run")) | _names(Path("/var/lib")),
    }


def added(before: Footprint, after: Footprint) -> dict[str, set[str]]:
    """What exists after and did not before, by kind."""
    found = {kind: set(after[kind] - before[kind]) for kind in before}
    return {kind: names for kind, names in found.items() if names}


def _process_namespaces() -> frozenset[str]:
    links = [
        p for kind in ("net", "mnt", "pid", "uts") for p in Path("/proc").glob(f"[0-9]*/ns/{kind}")
    ]
    found = set()
    for link in links:
        try:
            found.add(str(link.readlink()))
        except OSError:
            continue  # the process is gone
    return frozenset(found)


def _bpf_links() -> frozenset[str]:
    """bpftool fails when a link goes while it lists them, so it is asked again."""
    for _ in range(_TRIES):
        try:
            return frozenset(_json("bpftool", "--json", "link", key="id"))
        except subprocess.CalledProcessError:
            time.sleep(0.2)
    raise RuntimeError("bpftool cannot list the BPF links")


def _names(directory: Path) -> frozenset[str]:
    return frozenset(str(p) for p in directory.iterdir()) if directory.exists() else frozenset()


def _json(*argv: str, key: str) -> list[str]:
    return [str(item[key]) for item in json.loads(_run(*argv) or "[]")]


def _run(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout
