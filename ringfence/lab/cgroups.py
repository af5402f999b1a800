"""The cgroups of the lab's nodes, on hosts with cgroup v1 and with v2."""

from pathlib import Path

from ringfence.lab.config import PREFIX

ROOT = Path("/sys/fs/cgroup")
_V2_CONTROLLERS = ("cpuset", "cpu", "io", "memory", "pids")


def hierarchies() -> list[Path]:
    """Roots of the hierarchies: one with v2; with v1 one for each controller (cgroups(7))."""
    if (ROOT / "cgroup.controllers").exists():
        return [ROOT]
    return [d for d in ROOT.iterdir() if d.is_dir() and not d.is_symlink()]


def make(name: str) -> None:
    """Make a node's cgroup, ready for children, in each hierarchy."""
    for root in hierarchies():
        group = root / name
        group.mkdir(exist_ok=True)
        if root == ROOT:
            _delegate(root, group)
        # Under v1 a new cpuset is empty, and nothing can run in it before it is filled.
        for setting in ("cpuset.cpus", "cpuset.mems"):
            if (group / setting).exists() and root != ROOT:
                (group / setting).write_text((root / setting).read_text())


def _delegate(root: Path, group: Path) -> None:
    available = (root / "cgroup.controllers").read_text().split()
    wanted = " ".join(f"+{c}" for c in _V2_CONTROLLERS if c in available)
    for level in (root, group):
        (level / "cgroup.subtree_control").write_text(wanted)


def existing(name: str = f"{PREFIX}*") -> list[Path]:
    """The lab's cgroups that exist, top ones only: all, or one node's."""
    return sorted(d for root in hierarchies() for d in root.glob(name))


def members(group: Path) -> set[int]:
    """Pids in a cgroup and all below it."""
    return {int(p) for f in group.rglob("cgroup.procs") for p in f.read_text().split()}


def remove(name: str = f"{PREFIX}*") -> None:
    """Remove the lab's cgroups, all or one node's; their processes are gone already."""
    for group in existing(name):
        below = [d for d in group.rglob("*") if d.is_dir()]
        for directory in sorted(below, key=lambda d: len(d.parts), reverse=True):
            directory.rmdir()
        group.rmdir()
