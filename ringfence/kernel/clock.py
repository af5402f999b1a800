"""From the time that programs in the kernel tell to the one that people do."""

import time


def boot_ns() -> int:
    """What to add to CLOCK_BOOTTIME for epoch ns."""
    return time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
