"""From the time that programs in the kernel tell to the one that people do."""

import time

_READINGS = 5


def boot_ns() -> int:
    """What to add to CLOCK_BOOTTIME for epoch ns: the quickest of a few readings.

    Who loses the processor between two clocks would tell times milliseconds off, and flows would
    bear the names of other pods than they had.
    """
    return min(_reading() for _ in range(_READINGS))[1]


def _reading() -> tuple[int, int]:
    """How long it took, ns, and the difference."""
    before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    epoch = time.time_ns()
    after = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    return after - before, epoch - (before + after) // 2
