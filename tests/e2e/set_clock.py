"""Wall clocks of the lab's control plane and agents, set as far as these can see.

The machine's own clock cannot be set, for others work there, and a time namespace has none of its
own (time_namespaces(7)). libfaketime also moves deadlines on the monotonic clock, by which Python
sleeps. So a library of ours before libc shifts what they read, gRPC's C core too; all else, the
connector and Kubernetes, goes by the true clock.
"""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ringfence.lab.command import run
from ringfence.lab.config import LabConfig
from ringfence.lab.machine import log_path
from tests.e2e.cluster import Lab, until
from tests.e2e.cluster import run as ask

_SOURCE = Path(__file__).with_suffix(".c")
_AGENTS = ("-n", "ringfence", "daemonset/agent")
_START = '"$@" </dev/null >>"$0" 2>&1 & echo $!'


@dataclass(frozen=True)
class Clocks:
    """The files that the library reads."""

    of_control: Path
    of_agents: Sequence[Path]

    def set(self, control: int, agents: int) -> None:
        """Say how many seconds they are ahead of the true one."""
        for file, ahead in ((self.of_control, control), *((one, agents) for one in self.of_agents)):
            with file.open("r+b" if file.exists() else "wb") as opened:  # others have it mapped
                opened.write(ahead.to_bytes(8, "little", signed=True))


@contextmanager
def set_clocks(lab: Lab, directory: Path) -> Iterator[Clocks]:
    """Agents and control plane whose clocks can be set; in the end their own again."""
    config = LabConfig()
    homes = [config.data / spec.name / "var/lib/ringfence" for spec in config.node_specs]
    clocks = Clocks(directory / "clock", [home / "clock" for home in homes])
    clocks.set(0, 0)
    library = directory / "set_clock.so"
    run(["clang", "-O2", "-shared", "-fPIC", "-o", library, _SOURCE])
    for home in homes:
        shutil.copy(library, home)
    lab.kubectl("set", "env", *_AGENTS, *_environment(Path("/var/lib/ringfence")))
    lab.kubectl("rollout", "status", *_AGENTS, "--timeout=120s")
    (server,) = lab.on("control", "pgrep", "-f", "ringfence.cli.main server").split()
    command = lab.on("control", "cat", f"/proc/{server}/cmdline").split("\0")[:-1]
    log = str(log_path(config.run, "control/ringfence"))

    def restart(pid: str, *environment: str) -> str:
        lab.on("control", "kill", "-KILL", pid)
        until("it has ended", lambda: pid not in lab.on("control", "ps", "-eo", "pid=").split())
        words = ("env", *environment, *command)
        pid = lab.on("control", "sh", "-c", _START, log, *words).strip()
        until("the control plane answers", lambda: ask("agents").returncode == 0, 120)
        return pid

    pid = restart(server, *_environment(directory))
    try:
        yield clocks
    finally:
        clocks.set(0, 0)
        restart(pid)
        lab.kubectl("set", "env", *_AGENTS, "LD_PRELOAD-", "SET_CLOCK-")
        lab.kubectl("rollout", "status", *_AGENTS, "--timeout=120s")


def _environment(directory: Path) -> tuple[str, str]:
    return f"LD_PRELOAD={directory / 'set_clock.so'}", f"SET_CLOCK={directory / 'clock'}"
