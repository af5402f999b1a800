"""Who holds a socket: its process and the container of that, by /proc alone.

A socket's inode, which sock_diag tells, stands in the link of each descriptor of it
(/proc/PID/fd, proc(5)). Reading all links of a node is dear, so only those of processes in the
socket's own network namespace are read, and only for sockets that nobody asked about before.

The processes of a node are seen from its own PID namespace alone, and their links with
CAP_SYS_PTRACE (ptrace(2), PTRACE_MODE_READ). Without either there is no answer, never a wrong one.
"""

import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import NamedTuple

_PROC = "/proc"
_SOCKET = "socket:["
_CONTAINER = re.compile(r"[0-9a-f]{64}")
_MOST_FILES = 16_384
"""Looked at of one namespace's processes in one go: what a pod can cost by its open files."""


class Process(NamedTuple):
    """A process as the node sees it."""

    pid: int
    name: str
    """Of its main thread, up to 15 bytes (PR_SET_NAME): any that the process likes."""
    containers: tuple[str, ...]
    """The runtimes' ids of the containers that it is in, the outermost first."""


class Processes:
    """Remembers who holds which socket, for as long as it is asked about."""

    def __init__(self) -> None:
        self._known: dict[int, Process | None] = {}
        self.unseen: frozenset[int] = frozenset()
        """The namespaces with sockets but without a process to look into, as of the last call."""

    def holders(self, sockets: Mapping[int, Collection[int]]) -> dict[int, Process]:
        """Who holds sockets, by inode; of several the process with the lowest PID.

        `sockets` are the inodes of all sockets that there are, by the inode of their network
        namespace. One whose holder was not found is not looked for again, and a process keeps the
        name that it had when it was found.
        """
        found = {
            inode: self._known[inode]
            for inodes in sockets.values()
            for inode in inodes
            if inode in self._known
        }
        wanted = {netns: set(inodes) - found.keys() for netns, inodes in sockets.items()}
        wanted = {netns: inodes for netns, inodes in wanted.items() if inodes}
        processes = _by_namespace(wanted)
        for netns, inodes in wanted.items():
            found |= dict.fromkeys(inodes) | _search(processes[netns], inodes)
        self._known = found
        self.unseen = frozenset(netns for netns, pids in processes.items() if not pids)
        return {inode: process for inode, process in found.items() if process}


def _by_namespace(wanted: Collection[int]) -> dict[int, list[int]]:
    """The processes of these network namespaces, the lowest PID first."""
    found: dict[int, list[int]] = {netns: [] for netns in wanted}
    if not wanted:
        return found
    with suppress(OSError), _directory(_PROC) as proc:
        for pid in sorted(int(name) for name in _names(proc) if name.isdigit()):
            with suppress(OSError):  # it has ended, or is not to be looked into
                netns = os.stat(f"{pid}/ns/net", dir_fd=proc).st_ino
                if netns in found:
                    found[netns].append(pid)
    return found


def _search(pids: Collection[int], wanted: Collection[int]) -> dict[int, Process]:
    """The first of the processes that holds each of the wanted sockets."""
    missing, left = set(wanted), _MOST_FILES
    found: dict[int, Process] = {}
    for pid in pids:
        held = set()
        with suppress(OSError), _directory(f"{_PROC}/{pid}/fd") as files:
            descriptors = _names(files, left)
            left -= len(descriptors)
            for inode in _sockets(files, descriptors):
                if inode in missing:
                    held.add(inode)
                if len(held) == len(missing):
                    break
        if held and (process := _process(pid)):
            found |= dict.fromkeys(held, process)
            missing -= held
        if not left or not missing:
            break
    return found


def _sockets(files: int, descriptors: Sequence[str]) -> Iterator[int]:
    """The inodes of the sockets among some open files, in the directory `files`."""
    # The newest sockets most often have the highest descriptors.
    for descriptor in reversed(descriptors):
        with suppress(OSError):  # closed meanwhile
            link = os.readlink(descriptor, dir_fd=files)
            if link.startswith(_SOCKET):
                yield int(link[len(_SOCKET) : -1])


@contextmanager
def _directory(path: str) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _names(directory: int, most: int | None = None) -> list[str]:
    """What is in a directory; to list it costs more than to read its links."""
    with os.scandir(directory) as entries:
        return [entry.name for entry in islice(entries, most)]


def _process(pid: int) -> Process | None:
    """What a process is called and runs in; None where it has ended."""
    try:
        name = Path(f"{_PROC}/{pid}/comm").read_bytes().removesuffix(b"\n")
        groups = Path(f"{_PROC}/{pid}/cgroup").read_text(errors="replace")
    except OSError:
        return None
    return Process(pid, name.decode(errors="replace"), container_ids(groups))


def container_ids(groups: str) -> tuple[str, ...]:
    """The containers that /proc/PID/cgroup names.

    containerd, CRI-O and Docker call a container's cgroup by its id, some with a word in front and
    `.scope` behind; there is one within another where a node is a container itself.
    """
    for line in groups.splitlines():
        if ids := _CONTAINER.findall(line):
            return tuple(ids)
    return ()
