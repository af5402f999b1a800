"""JSON lines in a file: whole lines only, rotated by size."""

import json
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from ringfence.export.errors import ExportError
from ringfence.export.jsonl import JsonLines
from ringfence.export.kinds import make_exporter
from ringfence.export.url import parse_url
from tests.unit.export.conversations import batch, conversation


def opened(path: Path) -> list[int]:
    return [json.loads(line)["opened"] for line in path.read_text().splitlines()]


async def test_a_file_is_rotated_before_it_grows_too_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ringfence.export.jsonl._MEBIBYTE", 1_700)
    path = tmp_path / "flows.jsonl"
    exporter = make_exporter(parse_url(f"jsonl://{path}?max-mb=1&keep=2"))
    for number in range(7):
        await exporter.send(batch(conversation(opened=number)))
    assert opened(path) == [6]
    assert opened(path.with_name("flows.jsonl.1")) == [4, 5]
    assert opened(path.with_name("flows.jsonl.2")) == [2, 3]
    assert not path.with_name("flows.jsonl.3").exists()
    assert not path.stat().st_mode & 0o007, "others cannot read it"


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Writing beyond `size` fails in the middle, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


async def test_a_write_that_fails_halfway_leaves_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "flows.jsonl"
    exporter = JsonLines(parse_url(f"jsonl://{path}"))
    await exporter.send(batch(conversation(opened=1)))
    with (
        largest_file(path.stat().st_size + 10),
        pytest.raises(ExportError, match=r"flows\.jsonl cannot be written: File too large"),
    ):
        await exporter.send(batch(conversation(opened=2)))
    await exporter.send(batch(conversation(opened=3)))
    assert opened(path) == [1, 3]


def test_a_missing_folder_is_told_at_the_start(tmp_path: Path) -> None:
    for folder, told in ((tmp_path, []), (tmp_path / "none", [str(tmp_path / "none")])):
        with capture_logs() as logs:
            JsonLines(parse_url(f"jsonl://{folder}/flows.jsonl"))
        assert [line["folder"] for line in logs] == told
