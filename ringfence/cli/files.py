"""What is said of a file or a folder that cannot be read, the same by every command."""

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from ringfence.model.errors import RingfenceError


class FileError(RingfenceError):
    """A file that a command was given cannot be read, or written."""


def rewrite(path: Path, text: str) -> None:
    """Replace the text of a file as a whole, or leave it as it is; raises FileError."""
    real = path.resolve()
    fresh = real.with_name(f".{real.name}.new")
    try:
        real.open("r+b").close()  # what may not be written may not be replaced either
        fresh.write_text(text)
        shutil.copymode(real, fresh)
        fresh.replace(real)
    except OSError as error:
        with suppress(OSError):
            fresh.unlink(missing_ok=True)
        raise FileError(f"cannot write {path}: {error.strerror}") from error


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


@contextmanager
def opened(file: Path | None) -> Iterator[BinaryIO]:
    """Stdout, or a file, which gets its name once it is whole."""
    try:
        if file is None:
            with os.fdopen(sys.stdout.fileno(), "wb", closefd=False) as sink:
                yield sink
            return
        partial = file.with_name(f"{file.name}.partial")
        try:
            with partial.open("wb") as sink:
                yield sink
            partial.replace(file)
        finally:
            partial.unlink(missing_ok=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise FileError(f"cannot write {file or 'stdout'}: {error.strerror or error}") from error
