"""The queue before a receiver: bounded, patient, exact in what it counts."""

import asyncio
from collections.abc import Callable

import pyarrow as pa
import pytest

from ringfence.export.delivery import Delivery, cost
from ringfence.export.errors import ExportError, RefusedError
from ringfence.export.interface import Exporter
from ringfence.export.url import ExportUrl
from ringfence.model.backoff import Backoff
from tests.unit.export.conversations import batch, conversation

SOON = Backoff(first=0.01, most=0.01)


class Receiver(Exporter):
    """Answers each attempt as it is told to, else takes what comes."""

    def __init__(self, url: ExportUrl | None = None) -> None:
        self.answers: list[Exception] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.taken: list[int] = []
        self.closed = 0

    async def send(self, conversations: pa.RecordBatch) -> None:
        await self.gate.wait()
        if self.answers:
            raise self.answers.pop(0)
        self.taken += conversations["opened"].to_pylist()

    async def close(self) -> None:
        self.closed += 1


def numbered(*numbers: int) -> pa.RecordBatch:
    return batch(*(conversation(opened=number) for number in numbers))


async def until(true: Callable[[], bool]) -> None:
    for _ in range(10_000):
        if true():
            return
        await asyncio.sleep(0.001)
    pytest.fail("it did not come to that")


async def test_a_receiver_that_comes_back_gets_everything_once_and_in_order() -> None:
    receiver = Receiver()
    receiver.answers = [ExportError("away"), ExportError("away"), ExportError("away")]
    delivery = Delivery("x", receiver, SOON)
    await delivery.start()
    for number in range(3):
        delivery.offer(numbered(number))
    await until(lambda: not delivery.up)
    await until(lambda: delivery.up)
    await delivery.stop()
    assert receiver.taken == [0, 1, 2]
    assert receiver.closed == 3 + 1  # after each failure, to dial anew, and at the end
    assert delivery.sent == 3
    assert not delivery.dropped.total()


async def test_a_receiver_that_cannot_even_be_closed_is_tried_again() -> None:
    class Broken(Receiver):
        async def close(self) -> None:
            raise OSError("the connection is gone already")

    receiver = Broken()
    receiver.answers = [ExportError("away")]
    delivery = Delivery("x", receiver, SOON)
    await delivery.start()
    delivery.offer(numbered(1))
    await until(lambda: not delivery.up)
    await until(lambda: delivery.up)
    await delivery.stop()
    assert receiver.taken == [1]


async def test_a_full_queue_drops_its_oldest_and_counts_them() -> None:
    receiver = Receiver()
    receiver.gate.clear()
    delivery = Delivery("x", receiver, SOON, room=2 * cost(numbered(0, 0)))
    await delivery.start()
    delivery.offer(numbered(0, 0))
    await until(lambda: delivery.queued_bytes == 0)  # the first is under way
    for number in range(1, 5):
        delivery.offer(numbered(number, number))
    delivery.offer(numbered())
    receiver.gate.set()
    await delivery.stop()
    assert receiver.taken == [0, 0, 3, 3, 4, 4]
    assert delivery.sent == 6
    assert delivery.dropped == {"queue full": 4, "refused": 0, "failed": 0, "stopped": 0}
    assert delivery.queued_bytes == 0


async def test_what_is_larger_than_the_queue_is_dropped_alone() -> None:
    receiver = Receiver()
    delivery = Delivery("x", receiver, SOON, room=cost(numbered(0)))
    await delivery.start()
    await asyncio.sleep(0)
    delivery.offer(numbered(1, 2))
    await asyncio.sleep(0)
    delivery.offer(numbered(3))
    await delivery.stop()
    assert receiver.taken == [3]
    assert delivery.dropped["queue full"] == 2


async def test_what_is_refused_is_not_tried_again() -> None:
    receiver = Receiver()
    receiver.answers = [RefusedError("no", records=1), ValueError("a bug")]
    delivery = Delivery("x", receiver, SOON)
    await delivery.start()
    for first in (1, 3, 5):
        delivery.offer(numbered(first, first + 1))
    await delivery.stop()
    assert receiver.taken == [5, 6]
    assert delivery.sent == 1 + 2
    assert (delivery.dropped["refused"], delivery.dropped["failed"]) == (1, 2)


@pytest.mark.parametrize("away", [True, False])
async def test_what_a_stop_leaves_behind_is_counted(
    away: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ringfence.export.delivery.FLUSH_SECONDS", 0.01)
    receiver = Receiver()
    receiver.answers = [ExportError("away")] if away else []
    delivery = Delivery("x", receiver, Backoff(first=3600.0))
    await delivery.start()
    if not away:
        receiver.gate.clear()
    delivery.offer(numbered(1, 2))
    delivery.offer(numbered(3))
    await until(lambda: delivery.queued_bytes == cost(numbered(3)))
    await delivery.stop()
    assert delivery.dropped["stopped"] == 3
    assert receiver.taken == []


@pytest.mark.parametrize("steps", range(6))
async def test_a_stop_that_is_cancelled_says_so_at_whatever_moment(steps: int) -> None:
    receiver = Receiver()
    receiver.gate.clear()
    delivery = Delivery("x", receiver, SOON)
    await delivery.start()
    delivery.offer(numbered(1))
    stopping = asyncio.create_task(delivery.stop())
    await until(lambda: delivery.queued_bytes == 0)
    receiver.gate.set()
    for _ in range(steps):  # while it hears that all is delivered
        await asyncio.sleep(0)
    cancelled = stopping.cancel()
    await asyncio.gather(stopping, return_exceptions=True)
    assert stopping.cancelled() == cancelled
    await delivery.stop()
