"""The spool: in order, once each, bounded, and whole again after a crash."""

import asyncio
import resource
from pathlib import Path

import pytest

from ringfence.agent.errors import SpoolError
from ringfence.agent.spool import Spool
from ringfence.model.flow import Loss
from ringfence.wire.generated.agent_pb2 import Batch


def _open(directory: Path, limit: int = 10_000) -> Spool:
    spool = Spool(directory, limit)
    spool.open()
    return spool


def lost(spool: Spool) -> dict[str, int]:
    return {cause: count for cause, count in spool.lost.items() if count}


def _files(directory: Path) -> list[Path]:
    return sorted(directory.iterdir())


async def _drain(spool: Spool) -> list[str]:
    ids = []
    while len(spool):
        place, batch = await spool.oldest()
        ids.append(batch.id)
        spool.done(place)
    return ids


async def test_batches_leave_in_order_and_outlive_the_process(tmp_path: Path) -> None:
    spool = _open(tmp_path)
    for i in range(12):
        spool.put(Batch(id=str(i)))
    place, _ = await spool.oldest()
    spool.done(place)
    again = _open(tmp_path)
    again.put(Batch(id="12"))
    assert await _drain(again) == [str(i) for i in range(1, 13)]
    assert not any(again.lost.values())
    assert _files(tmp_path) == []


async def test_a_full_spool_drops_the_oldest_and_counts_them(tmp_path: Path) -> None:
    spool = _open(tmp_path, limit=350)
    for i in range(5):
        spool.put(Batch(id=str(i), flows=bytes(100)))
    assert lost(spool) == {Loss.SPOOL_FULL: 2}
    assert await _drain(spool) == ["2", "3", "4"]


@pytest.mark.parametrize(("limit", "largest"), [(150, 10_000), (10_000, 150)])
async def test_a_batch_that_could_never_leave_is_lost_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int, largest: int
) -> None:
    monkeypatch.setattr("ringfence.agent.spool.LARGEST_MESSAGE", largest)
    spool = _open(tmp_path, limit)
    spool.put(Batch(id="a"))
    with pytest.raises(SpoolError, match="150 is the most"):
        spool.put(Batch(id="b", drops=bytes(150)))
    assert lost(spool) == {Loss.REPORT_TOO_LARGE: 1}
    assert await _drain(spool) == ["a"]


async def test_what_is_dropped_while_it_is_sent_takes_no_other_with_it(tmp_path: Path) -> None:
    spool = _open(tmp_path, limit=150)
    spool.put(Batch(id="sent", flows=bytes(100)))
    place, _ = await spool.oldest()
    spool.put(Batch(id="next", flows=bytes(100)))
    spool.done(place)
    spool.refused(place)
    assert lost(spool) == {Loss.SPOOL_FULL: 1}
    assert await _drain(spool) == ["next"]


async def test_a_damaged_or_half_written_batch_is_passed_over(tmp_path: Path) -> None:
    spool = _open(tmp_path)
    spool.put(Batch(id="a"))
    spool.put(Batch(id="b"))
    _files(tmp_path)[0].write_bytes(b"\xff\xff")
    (tmp_path / "0000000000000002.batch.partial").write_bytes(b"half")
    again = _open(tmp_path)
    _, batch = await again.oldest()
    assert batch.id == "b"
    assert lost(again) == {Loss.REPORT_UNREADABLE: 1}


async def test_a_batch_that_cannot_be_read_now_waits(tmp_path: Path) -> None:
    spool = _open(tmp_path)
    for each in "ab":
        spool.put(Batch(id=each))
    before, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limit))  # too many open files
    try:
        reading = asyncio.create_task(spool.oldest())
        await asyncio.sleep(0)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (before, limit))
    assert not reading.done()
    await reading
    assert await _drain(spool) == ["a", "b"]
    assert not any(spool.lost.values())


async def test_a_batch_that_is_refused_or_cannot_be_written_is_counted(tmp_path: Path) -> None:
    spool = _open(tmp_path / "spool")
    spool.put(Batch(id="a"))
    place, _ = await spool.oldest()
    spool.refused(place)

    (tmp_path / "spool").rmdir()
    with pytest.raises(SpoolError, match="cannot keep a report"):
        spool.put(Batch(id="b"))
    assert lost(spool) == {Loss.REPORT_REFUSED: 1, Loss.REPORT_NOT_KEPT: 1}
    assert len(spool) == 0


async def test_the_reader_waits_for_a_batch(tmp_path: Path) -> None:
    spool = _open(tmp_path)
    waiting = asyncio.create_task(spool.oldest())
    await asyncio.sleep(0)
    assert not waiting.done()
    spool.put(Batch(id="a"))
    _, batch = await waiting
    assert batch.id == "a"
