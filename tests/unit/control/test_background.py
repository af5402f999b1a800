"""What goes on in the background, and what ends it."""

import asyncio
import time

import pytest

from ringfence.control.background import Alarm, Background
from ringfence.control.metrics import Metrics
from ringfence.model.errors import InputError


async def test_no_error_ends_it() -> None:
    metrics, done = Metrics(), asyncio.Event()
    failures: list[Exception] = [ValueError("a bug"), InputError("a filter")]
    changed, pauses = asyncio.Event(), [ValueError("a bug")]
    changed.set()

    async def pause() -> None:
        if pauses:
            raise pauses.pop()
        await changed.wait()
        changed.clear()

    async def work() -> None:
        if failures:
            raise failures.pop()
        done.set()

    background = Background("tests", pause, work, metrics, 0.0)
    background.start()
    try:
        async with asyncio.timeout(30):
            await done.wait()
    finally:
        await background.stop()
    assert 'ringfence_background_failures_total{work="tests"} 3.0' in metrics.render().decode()
    done.clear()
    changed.set()
    await asyncio.sleep(0)
    assert not done.is_set(), "it was stopped"
    await background.stop()


async def test_an_alarm_rings_at_the_next_instant() -> None:
    rung = asyncio.Event()
    alarm = Alarm(time.time_ns, rung.set)
    now_ns = time.time_ns()
    alarm.set([now_ns - 1, now_ns], now_ns)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await rung.wait()
    alarm.set([now_ns + 10**7, now_ns + 10**15], now_ns)
    async with asyncio.timeout(30):
        await rung.wait()


async def test_an_alarm_rings_when_the_clock_is_set_past_the_instant() -> None:
    """As it is after the machine slept, too."""
    rung, now_ns = asyncio.Event(), 10**18
    alarm = Alarm(lambda: now_ns, rung.set)
    alarm.set([now_ns + 3600 * 10**9], now_ns)
    now_ns += 3600 * 10**9
    async with asyncio.timeout(30):
        await rung.wait()
