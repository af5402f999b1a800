"""The data directory: private to its owner, and held by one process at a time."""

import fcntl
import os
import stat
from pathlib import Path

from ringfence.control.errors import StartError

_LOCK = "lock"
_OF_A_FILE_SYSTEM = {"lost+found"}
"""What an empty volume may hold."""


def write_private(path: Path, data: bytes) -> None:
    """Write a file that only its owner may read, whole or not at all; raises StartError."""
    temporary = path.with_name(f"{path.name}.new")
    try:
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        temporary.rename(path)
    except OSError as error:
        raise StartError(f"cannot write {path}: {error.strerror}") from error


class DataDirectory:
    """A directory (mode 0700) and the lock on it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None

    def open(self) -> None:
        """Create the directory where it is missing and lock it; raises StartError.

        One that others use is left as it is.
        """
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._check_own()
            self.path.chmod(0o700)
            descriptor = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise StartError(
                f"the data directory {self.path} cannot be used: {error.strerror}; "
                "choose another with --data-dir, or make it writable for this user"
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            raise StartError(
                f"the data directory {self.path} is in use by another control plane; "
                "stop that one, or choose another directory with --data-dir"
            ) from error
        self._lock = descriptor

    def _check_own(self) -> None:
        if self.path.stat().st_mode & stat.S_IWOTH:
            what = "everybody may write there"
        else:
            held = {entry.name for entry in self.path.iterdir()} - _OF_A_FILE_SYSTEM
            if not held or _LOCK in held:
                return
            what = "it holds files, and no control plane's"
        raise StartError(
            f"{self.path} is no data directory: {what}; "
            "choose an empty one or a new one with --data-dir"
        )

    def close(self) -> None:
        """Let go of the lock."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
