"""JSON lines, into a file that is rotated by size, or to stdout."""

import asyncio
import os
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import structlog

from ringfence.export.errors import ExportError, reason
from ringfence.export.interface import Exporter
from ringfence.export.lines import lines
from ringfence.export.url import ExportUrl
from ringfence.model.errors import InputError

_LOG = structlog.get_logger(__name__)

_STDOUT = "-"
_MEBIBYTE = 1 << 20


class JsonLines(Exporter):
    """`jsonl:-`, or `jsonl:///PATH?max-mb=100&keep=5`.

    Before a write that would take the file beyond `max-mb` MiB it becomes PATH.1, PATH.1 becomes
    PATH.2 and so on; `keep` of these are kept.
    """

    options = frozenset({"max-mb", "keep"})

    def __init__(self, url: ExportUrl) -> None:
        if url.place or not (url.path == _STDOUT or url.path.startswith("/")):
            raise InputError(f"export {url}: write jsonl:- for stdout, or jsonl:///PATH for a file")
        self._path = None if url.path == _STDOUT else Path(url.path)
        if self._path and not self._path.parent.is_dir():
            folder = str(self._path.parent)
            _LOG.warning("export waits for its folder to be made", exporter=str(url), folder=folder)
        self._most = url.whole("max-mb", 100) * _MEBIBYTE
        self._keep = url.whole("keep", 5)

    async def send(self, conversations: pa.RecordBatch) -> None:
        """Append a line for each conversation, all of them or none."""
        try:
            await asyncio.to_thread(self._write, conversations)
        except OSError as error:
            where = self._path or "stdout"
            raise ExportError(f"{where} cannot be written: {reason(error)}") from error

    async def close(self) -> None:
        """Nothing is held open."""

    def _write(self, conversations: pa.RecordBatch) -> None:
        data = text(conversations)
        if self._path is None:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
            return
        if self._path.exists() and self._path.stat().st_size + len(data) > self._most:
            self._rotate(self._path)
        _append(self._path, data)

    def _rotate(self, path: Path) -> None:
        names = [path, *(path.with_name(f"{path.name}.{n}") for n in range(1, self._keep + 1))]
        for older, newer in reversed(list(zip(names[1:], names, strict=False))):
            if newer.exists():
                newer.replace(older)


def text(conversations: pa.RecordBatch) -> bytes:
    """The lines of a batch of CONVERSATIONS, each with its line feed."""
    ended = pc.binary_join_element_wise(lines(conversations), "\n", "")
    return "".join(ended.to_pylist()).encode()


def _append(path: Path, data: bytes) -> None:
    """Append all or nothing, to a file that not everybody may read."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
    try:
        size, rest = os.fstat(descriptor).st_size, memoryview(data)
        try:
            while rest:
                rest = rest[os.write(descriptor, rest) :]
        except OSError:
            os.ftruncate(descriptor, size)
            raise
    finally:
        os.close(descriptor)
