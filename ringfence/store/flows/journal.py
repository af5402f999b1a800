"""Insertions in progress, on disk, so that one that is cut short is finished and never doubled.

ClickHouse knows an insertion again if the same rows come in the same order under the same token.
Agents that send their reports again cannot bring that about: they come in other company. So what
will be inserted is written down first, and what a failure leaves here is inserted anew before
anything else is.
"""

import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from ringfence.store.errors import StoreError

_PARTIAL, _ASIDE = ".partial", ".aside"
_SUFFIX = ".arrows"


@dataclass(frozen=True, slots=True)
class Entry:
    """One insertion: a directory with a file for each table."""

    path: Path

    @property
    def token(self) -> str:
        """What it is known by."""
        return self.path.name

    def tables(self) -> Iterator[tuple[str, Path]]:
        """Tables in the order of insertion, each with its rows as an Arrow stream."""
        for file in sorted(self.path.glob(f"*{_SUFFIX}")):
            yield file.stem.partition("-")[2], file

    def set_aside(self, file: Path) -> Path:
        """Take a table's file out, which is not inserted any more; where it is kept."""
        return file.rename(self.path.with_name(f"{self.token}-{file.stem}{_ASIDE}"))

    def finish(self) -> None:
        """Forget it: all its rows are in."""
        shutil.rmtree(self.path)


class Journal:
    """The insertions that are not known to be finished, in a directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def open(self) -> None:
        """Make the directory; raises StoreError."""
        try:
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            for path in self._directory.glob(f"*{_PARTIAL}"):
                shutil.rmtree(path)
        except OSError as error:
            raise StoreError(f"cannot use {self._directory}: {error.strerror}") from error

    def unfinished(self) -> list[Entry]:
        """What is still to be inserted."""
        found = (
            path for path in self._directory.iterdir() if path.suffix not in (_PARTIAL, _ASIDE)
        )
        return [Entry(path) for path in sorted(found)]

    def aside(self) -> int:
        """How many files are kept that could not be read."""
        return len(list(self._directory.glob(f"*{_ASIDE}")))

    def add(self, token: str, tables: Mapping[str, pa.Table]) -> Entry:
        """Write down an insertion, its tables in order, whole or not at all; raises StoreError."""
        path, partial = self._directory / token, self._directory / f"{token}{_PARTIAL}"
        try:
            partial.mkdir(mode=0o700)
            for number, (name, rows) in enumerate(tables.items()):
                with (partial / f"{number}-{name}{_SUFFIX}").open("wb") as file:
                    with pa.ipc.new_stream(file, rows.schema) as stream:
                        stream.write_table(rows.combine_chunks())
                    os.fsync(file.fileno())
            partial.rename(path)
        except OSError as error:
            shutil.rmtree(partial, ignore_errors=True)
            raise StoreError(f"cannot write to {self._directory}: {error}") from error
        return Entry(path)
