"""The spool: in order, once each, bounded, and whole again after a crash."""

import asyncio
import contextlib
import resource
import signal
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


def _put(spool: Spool, *batches: Batch) -> None:
    """Put them, and let them go out."""
    for batch in batches:
        spool.put(batch)
    spool.release()


def lost(spool: Spool) -> dict[str, int]:
    return {cause: count for cause, count in spool.lost.items() if count}


def _files(directory: Path) -> list[Path]:
    return sorted(directory.iterdir())


async def _drain(spool: Spool) -> list[str]:
    spool.release()
    ids = await _out(spool)
    assert len(spool) == 0
    return ids


async def _out(spool: Spool) -> list[str]:
    """What may go out."""
    ids = []
    with contextlib.suppress(TimeoutError):
        while True:
            async with asyncio.timeout(0):
                place, batch = await spool.oldest()
            ids.append(batch.id)
            spool.done(place)
    return ids


async def test_batches_leave_in_order_and_outlive_the_process(tmp_path: Path) -> None:
    spool = _open(tmp_path)
    for i in range(12):
        _put(spool, Batch(id=str(i)))
    place, _ = await spool.oldest()
    spool.done(place)
    again = _open(tmp_path)
    _put(again, Batch(id="12"))
    assert await _drain(again) == [str(i) for i in range(1, 13)]
    assert not any(again.lost.values())
    assert _files(tmp_path) == []


async def test_a_full_spool_drops_the_oldest_and_counts_them(tmp_path: Path) -> None:
    spool = _open(tmp_path, limit=350)
    for i in range(5):
        _put(spool, Batch(id=str(i), flows=bytes(100)))
    assert lost(spool) == {Loss.SPOOL_FULL: 2}
    assert await _drain(spool) == ["2", "3", "4"]


@pytest.mark.parametrize(("limit", "largest"), [(150, 10_000), (10_000, 150)])
async def test_a_batch_that_could_never_leave_is_lost_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int, largest: int
) -> None:
    monkeypatch.setattr("ringfence.agent.spool.LARGEST_MESSAGE", largest)
    spool = _open(tmp_path, limit)
    _put(spool, Batch(id="a"))
    with pytest.raises(SpoolError, match="150 is the most"):
        _put(spool, Batch(id="b", drops=bytes(150)))
    assert lost(spool) == {Loss.REPORT_TOO_LARGE: 1}
    assert await _drain(spool) == ["a"]


async def test_what_is_dropped_while_it_is_sent_takes_no_other_with_it(tmp_path: Path) -> None:
    spool = _open(tmp_path, limit=150)
    _put(spool, Batch(id="sent", flows=bytes(100)))
    place, _ = await spool.oldest()
    _put(spool, Batch(id="next", flows=bytes(100)))
    spool.done(place)
    spool.refused(place)
    assert lost(spool) == {Loss.SPOOL_FULL: 1}
    assert await _drain(spool) == ["next"]


async def test_a_damaged_or_half_written_batch_is_passed_over(tmp_path: Path) -> None:
    spool = _open(tmp_path)
    _put(spool, Batch(id="a"))
    _put(spool, Batch(id="b"))
    _files(tmp_path)[0].write_bytes(b"\xff\xff")
    (tmp_path / "0000000000000002.batch.partial").write_bytes(b"half")
    again = _open(tmp_path)
    again.release()
    _, batch = await again.oldest()
    assert batch.id == "b"
    assert lost(again) == {Loss.REPORT_UNREADABLE: 1}


async def test_a_batch_that_cannot_be_read_now_waits(tmp_path: Path) -> None:
    spool = _open(tmp_path)
    for each in "ab":
        _put(spool, Batch(id=each))
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


async def test_a_report_that_finds_no_room_takes_none(tmp_path: Path) -> None:
    spool = _open(tmp_path)
    before, limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, limit))
    try:
        for each in "abc":
            with pytest.raises(SpoolError):
                spool.put(Batch(id=each, flows=bytes(2_000)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before, limit))
        signal.signal(signal.SIGXFSZ, ignored)
    assert _files(tmp_path) == []
    assert spool.lost[Loss.REPORT_NOT_KEPT] == 3
    _put(spool, Batch(id="d"))
    assert await _drain(spool) == ["d"]


async def test_a_batch_that_is_refused_or_cannot_be_written_is_counted(tmp_path: Path) -> None:
    spool = _open(tmp_path / "spool")
    _put(spool, Batch(id="a"))
    place, _ = await spool.oldest()
    spool.refused(place)

    (tmp_path / "spool").rmdir()
    with pytest.raises(SpoolError, match="cannot keep a report"):
        _put(spool, Batch(id="b"))
    assert lost(spool) == {Loss.REPORT_REFUSED: 1, Loss.REPORT_NOT_KEPT: 1}
    assert len(spool) == 0


async def test_what_cannot_be_taken_away_keeps_nothing_waiting(tmp_path: Path) -> None:
    """As on a disk that is read-only now; it is delivered again after a restart, and known."""
    spool = _open(tmp_path, limit=150)
    _put(spool, Batch(id="a"), Batch(id="b", flows=bytes(50)))
    place, _ = await spool.oldest()
    for path in _files(tmp_path):
        path.unlink()
        path.mkdir()  # which unlink(2) refuses, even to root
    spool.done(place)
    _put(spool, Batch(id="c", flows=bytes(100)), Batch(id="d"))
    assert lost(spool) == {Loss.SPOOL_FULL: 1}
    assert await _out(spool) == ["c", "d"]


async def test_the_reader_waits_for_a_batch(tmp_path: Path) -> None:
    spool = _open(tmp_path)
    waiting = asyncio.create_task(spool.oldest())
    await asyncio.sleep(0)
    assert not waiting.done()
    _put(spool, Batch(id="a"))
    _, batch = await waiting
    assert batch.id == "a"


async def test_a_window_goes_out_whole_once_nobody_will_make_it_anew(tmp_path: Path) -> None:
    spool = _open(tmp_path)
    _put(spool, Batch(id="old", more=True), Batch(id="old-1"))
    spool.put(Batch(id="new", more=True))
    assert not spool.holds("new"), "cut short"
    spool.put(Batch(id="new-1"))
    assert spool.holds("new")
    assert await _out(spool) == ["old", "old-1"]
    again = _open(tmp_path)
    assert await _out(again) == []
    assert again.holds("new")
    again.put(Batch(id="new"))  # of one batch, this time
    assert await _drain(again) == ["new"]
    assert _files(tmp_path) == []
