"""The offset of the kernel's clock, read by a process that loses the processor meanwhile."""

import itertools
import time

import pytest

from ringfence.kernel.clock import boot_ns

BOOTED_NS = 1_700_000_000 * 10**9
PAUSE_NS = 12_000_000


@pytest.mark.parametrize("paused_before", range(1, 10))
def test_a_pause_between_two_clocks_moves_nothing(
    monkeypatch: pytest.MonkeyPatch, paused_before: int
) -> None:
    reads = itertools.count(1)
    passed_ns = 0

    def since_boot(_clock: int = 0) -> int:
        nonlocal passed_ns
        passed_ns += 100 + (PAUSE_NS if next(reads) == paused_before else 0)
        return passed_ns

    monkeypatch.setattr(time, "clock_gettime_ns", since_boot)
    monkeypatch.setattr(time, "time_ns", lambda: BOOTED_NS + since_boot())
    assert boot_ns() == BOOTED_NS
