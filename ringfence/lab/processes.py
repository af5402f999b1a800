"""Processes that outlive the command that started them, known by pid and start time.

A pid alone may have been reused when a later command looks; with the start time it cannot lie.
"""

import os
import signal
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
_START_TIME = 19  # of /proc/PID/stat, counted after the command's closing parenthesis
_POLL = 0.02  # seconds


@dataclass(frozen=True)
class Process:
    """A process of the lab: ``machine/program``, its pid, its start in clock ticks since boot."""

    name: str
    pid: int
    started: int

    @property
    def alive(self) -> bool:
        """Whether this very process still runs; a zombie does not."""
        return start_time(self.pid) == self.started


def start_time(pid: int) -> int | None:
    """Start of a running process in clock ticks since boot (proc(5)); None if it runs no more."""
    try:
        fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[_START_TIME])


def identify(name: str, pid: int) -> Process:
    """Record a process that was just started; one that is gone already gets start time -1."""
    started = start_time(pid)
    return Process(name, pid, -1 if started is None else started)


def child(pid: int) -> int:
    """The one child of a process that has one."""
    return int((PROC / str(pid) / "task" / str(pid) / "children").read_text())


def pids() -> Iterator[int]:
    """All pids of this pid namespace."""
    return (int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit())


def in_network_namespaces(inodes: set[int]) -> list[Process]:
    """Processes of which a thread is in one of the network namespaces with these ``inodes``."""
    found = []
    for pid in pids():
        try:
            inside = {path.stat().st_ino for path in (PROC / str(pid)).glob("task/*/ns/net")}
        except OSError:
            continue  # gone meanwhile, or a zombie
        if inside & inodes:
            found.append(identify("", pid))
    return found


def kill(processes: Iterable[Process], *, timeout: float = 10) -> list[Process]:
    """Kill the processes that still run and wait for their end; return those that would not."""
    waiting = [p for p in processes if p.alive]
    for process in waiting:
        try:
            os.kill(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    deadline = time.monotonic() + timeout
    while (waiting := [p for p in waiting if p.alive]) and time.monotonic() < deadline:
        time.sleep(_POLL)
    return waiting
