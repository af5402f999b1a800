"""What outlives a process: maps and links, pinned in a BPF file system.

    DIRECTORY/DIGEST/flows_0            a map, by its name
    DIRECTORY/DIGEST/link_7_ingress     a program's link to one side of interface 7

DIGEST is of all that makes pins useless to another loader: how its maps are laid out, and not its
programs, which take the place of those before. Whoever opens the directory next takes over what is
in it: programs go on counting into the same maps all the while.
"""

import fcntl
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from ringfence.flows.record import Hook
from ringfence.kernel.errors import BpfError

_DIGEST_LENGTH = 16


def on_bpf_file_system(path: Path) -> bool:
    """Whether the directory is in a BPF file system, or would be if it were made."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    under = [(len(at), kind) for _, at, kind, *_ in mounts if path.is_relative_to(at)]
    return max(under)[1] == "bpf"


class Pins:
    """The pins of one loader, in a directory that it has to itself until `close`."""

    def __init__(self, directory: Path) -> None:
        self._root = directory

    def open(self, layout: bytes) -> None:
        """Take over the pins of a predecessor with the same layout, and remove all others.

        Raises BpfError where one is still alive.
        """
        digest = hashlib.sha256(layout).hexdigest()[:_DIGEST_LENGTH]
        self._own = self._root / digest
        try:
            self._root.mkdir(mode=0o700, exist_ok=True)
            self._lock = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                for other in set(self._root.iterdir()) - {self._own}:
                    _remove(other)
                self._own.mkdir(mode=0o700, exist_ok=True)
            except OSError:
                os.close(self._lock)
                raise
        except BlockingIOError as error:
            raise BpfError(
                f"another agent runs on this node: it holds {self._root}; stop it first"
            ) from error
        except OSError as error:
            raise BpfError(f"cannot use {self._root}: {error.strerror}") from error

    def close(self) -> None:
        """Let another have the directory, with what is pinned in it."""
        os.close(self._lock)

    def remove(self) -> None:
        """Remove every pin; what nothing else holds is freed."""
        ended = self._root / "ended"
        self._own.rename(ended)  # from here on nobody takes over: a part would be of no use
        _remove(ended)
        self._root.rmdir()

    def map(self, name: str) -> Path:
        """Where a map is pinned."""
        return self._own / name

    def link(self, ifindex: int, hook: Hook) -> Path:
        """Where the link to one side of an interface is pinned."""
        return self._own / f"link_{ifindex}_{hook.name.lower()}"

    def linked(self) -> Iterable[int]:
        """The interfaces with a link, which may be gone by now."""
        return {int(pin.name.split("_")[1]) for pin in self._own.glob("link_*")}

    def unlink(self, ifindex: int) -> None:
        """Remove the pins of an interface's links."""
        for hook in Hook:
            self.link(ifindex, hook).unlink(missing_ok=True)


def _remove(directory: Path) -> None:
    for pin in directory.iterdir():
        pin.unlink()
    directory.rmdir()
