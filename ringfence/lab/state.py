"""What a running lab has recorded about itself, for the commands that come later."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Lock

from ringfence.lab.config import Cni
from ringfence.lab.processes import Process


@dataclass
class State:
    """The lab's record in its run directory; written after every change."""

    path: Path
    nodes: int
    cni: Cni
    sysctls: dict[str, str] = field(default_factory=dict)
    """Kernel settings as they were before, which are put back in the end."""
    directories: list[str] = field(default_factory=list)
    """What the host lacks of the directories that machines mount over, outermost first."""
    inits: dict[str, int] = field(default_factory=dict)
    """By machine, the pid of the process that holds its namespaces."""
    processes: list[Process] = field(default_factory=list)
    _lock: Lock = field(default_factory=Lock, repr=False, compare=False)

    def add(self, process: Process) -> None:
        """Record a process that was started."""
        with self._lock:
            self.processes.append(process)
            self._write()

    def add_init(self, machine: str, process: Process) -> None:
        """Record the process that holds a machine's namespaces."""
        self.inits[machine] = process.pid
        self.add(process)

    def forget_ended(self) -> None:
        """Forget processes that run no more."""
        with self._lock:
            self.processes = [process for process in self.processes if process.alive]
            self._write()

    def write(self) -> None:
        """Write the record, whole or not at all."""
        with self._lock:
            self._write()

    def _write(self) -> None:
        content = {
            "nodes": self.nodes,
            "cni": self.cni,
            "sysctls": self.sysctls,
            "directories": self.directories,
            "inits": self.inits,
            "processes": [asdict(p) for p in self.processes],
        }
        temporary = self.path.with_suffix(".new")
        temporary.write_text(json.dumps(content, indent=1))
        temporary.rename(self.path)


def load(path: Path) -> State | None:
    """Read the record of a lab; None if there is none."""
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    processes = [Process(**p) for p in content.pop("processes")]
    return State(path, cni=Cni(content.pop("cni")), **content, processes=processes)
