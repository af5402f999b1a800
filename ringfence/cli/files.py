"""What is said of a file or a folder that cannot be read, the same by every command."""

from pathlib import Path

from ringfence.model.errors import RingfenceError


class FileError(RingfenceError):
    """A file that a command was given cannot be read."""


def unreadable(path: Path, error: OSError | UnicodeDecodeError) -> FileError:
    """The error that tells why `path` cannot be read."""
    match error:
        case FileNotFoundError():
            return FileError(f"no file {path}")
        case IsADirectoryError():
            return FileError(f"{path} is a folder; name a file")
        case UnicodeDecodeError():
            return FileError(f"{path} is not UTF-8: save it as such")
    return FileError(f"cannot read {path}: {error.strerror}")
