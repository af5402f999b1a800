"""A machine of the lab: network, mount, UTS and pid namespaces held by one init process.

Whatever runs on the machine lives in its pid namespace, so ending init ends all of it, and
its mounts go with the last process of its mount namespace.
"""

import shlex
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ringfence.lab.command import environment, run
from ringfence.lab.config import LabConfig, MachineSpec, NodeSpec
from ringfence.lab.errors import LabError
from ringfence.lab.processes import Process, child, identify
from ringfence.lab.state import State

_READY = "ready"
_LOG_TAIL = 1500  # characters


@dataclass(frozen=True)
class Machine:
    """A running machine. ``init`` is the pid, on the host, of the process that holds it."""

    spec: MachineSpec
    init: int
    state: State

    def command(self, argv: Sequence[str | Path]) -> list[str]:
        """Words that run ``argv`` on this machine."""
        enter = ["nsenter", f"--target={self.init}", "--mount", "--uts", "--net", "--pid", "--"]
        return enter + [str(a) for a in argv]

    def run(self, argv: Sequence[str | Path], *, stdin: str | None = None) -> str:
        """Run a program here to its end and return what it printed."""
        return run(self.command(argv), stdin=stdin)

    def spawn(self, name: str, argv: Sequence[str | Path]) -> Process:
        """Start a program here that stays; it logs to the run directory, and dies with init."""
        label = f"{self.spec.name}/{name}"
        log = log_path(self.state.path.parent, label)
        with log.open("ab") as output:
            popen = subprocess.Popen(
                self.command(argv),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd="/",
                env=environment(),
            )
        process = identify(label, popen.pid)
        self.state.add(process)
        return process


def log_path(run_directory: Path, name: str) -> Path:
    """Where a process of the lab logs."""
    return run_directory / f"{name.replace('/', '-')}.log"


def require_alive(state: State, processes: Sequence[Process]) -> None:
    """Raise LabError, with the end of its log, if one of ``processes`` has ended."""
    for process in processes:
        if not process.alive:
            raise LabError(f"{process.name} ended; {log_end(state, process)}")


def log_end(state: State, process: Process) -> str:
    """Where a process logs, and the last lines of it."""
    log = log_path(state.path.parent, process.name)
    return f"its log {log} ends with:\n{_tail(log)}"


def boot(config: LabConfig, spec: MachineSpec, state: State) -> Machine:
    """Start a machine in its network namespace, which exists already."""
    unshare = ["unshare", "--mount", "--uts", "--pid", "--fork", "--mount-proc", "--kill-child"]
    popen = subprocess.Popen(
        [
            "nsenter",
            f"--net=/run/netns/{spec.netns}",
            *unshare,
            "sh",
            "-euc",
            _script(config, spec),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        cwd="/",
        env=environment(),
    )
    state.add(identify(f"{spec.name}/unshare", popen.pid))
    assert popen.stdout is not None
    assert popen.stderr is not None
    if popen.stdout.readline().strip() != _READY:
        raise LabError(f"the namespaces of {spec.name} cannot be made: {popen.stderr.read()}")
    popen.stdout.close()
    popen.stderr.close()
    process = identify(f"{spec.name}/init", child(popen.pid))
    state.add_init(spec.name, process)
    return Machine(spec, process.pid, state)


def find(config: LabConfig, state: State, name: str) -> Machine:
    """Return a machine of a running lab by its name."""
    for spec in config.machines:
        if spec.name == name and name in state.inits:
            return Machine(spec, state.inits[name], state)
    known = ", ".join(state.inits)
    raise LabError(f"the lab has no machine {name!r}; it has {known}")


def _script(config: LabConfig, spec: MachineSpec) -> str:
    """Shell script of the init process.

    Init ignores SIGCHLD, so that the kernel reaps the orphans that it inherits.
    """
    mounts = _node_mounts(config, spec) if isinstance(spec, NodeSpec) else []
    lines = ["mount --make-rshared /", *mounts, f"hostname {spec.name}", f"echo {_READY}"]
    last = "exec env --ignore-signal=CHLD sleep infinity </dev/null >/dev/null 2>&1"
    return "\n".join([*lines, last])


def _node_mounts(config: LabConfig, spec: NodeSpec) -> list[str]:
    """What a node must not share with the host and the other nodes."""
    data = config.data / spec.name
    lines = []
    for target in _RUN_DIRECTORIES:
        lines += [f"mkdir -p {target}", f"mount -t tmpfs tmpfs {target}"]
    for target in NODE_DIRECTORIES:
        source = shlex.quote(f"{data}{target}")
        lines += [f"mkdir -p {source} {target}", f"mount --bind {source} {target}"]
    return [*lines, "mount -t bpf bpf /sys/fs/bpf"]


def missing_directories() -> list[str]:
    """What the host lacks of the directories that machines mount over, outermost first."""
    targets = [Path(target) for target in (*_RUN_DIRECTORIES, *NODE_DIRECTORIES)]
    needed = {path for target in targets for path in (target, *target.parents)}
    return sorted(str(path) for path in needed if not path.exists())


def remove_directories(directories: Sequence[str]) -> None:
    """Take away directories that machines made; one that somebody has filled since stays."""
    mounts = {line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()}
    for path in map(Path, reversed(directories)):
        with suppress(OSError):
            # The first named network namespace makes /run/netns a mount.
            if str(path) in mounts and not any(path.iterdir()):
                run(["umount", path])
            path.rmdir()


_RUN_DIRECTORIES = ("/run/netns", "/run/containerd")
NODE_DIRECTORIES = (
    "/etc/cni/net.d",
    "/etc/systemd/system",
    "/var/lib/cni",
    "/var/lib/containerd",
    "/var/lib/kubelet",
    "/var/lib/ringfence",
    "/var/log/containers",
    "/var/log/pods",
)
"""Directories that each node has for itself."""


def _tail(path: Path) -> str:
    return path.read_text(errors="replace")[-_LOG_TAIL:] if path.exists() else "(no log)"
