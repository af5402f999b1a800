"""Packets lost between a sender at full speed and the records, drained every 100 ms.

.venv/bin/python -m bench.flow_race [packets]
"""

import sys
from collections.abc import Iterator

from bench.figures import Figure
from ringfence.kernel.bpf import object_path
from ringfence.kernel.capture import FlowCapture
from tests.kernel.race import race

PACKETS = 100_000_000
PAUSE = 0.1


def figures(packets: int = PACKETS) -> Iterator[Figure]:
    capture = FlowCapture(object_path("flow"))
    capture.open()
    try:
        outcome = race(capture, packets, PAUSE)
    finally:
        capture.close()
    ways = outcome.ways.values()
    sent = sum(way.sent - way.dropped for way in ways)
    recorded = sum(way.recorded for way in ways)
    unlike = sum(abs(way.audited - way.by_interface) for way in ways)
    measured = f"{sent - recorded} ({sent:,} sent in {outcome.seconds:.0f} s)"
    lossless = all(way.sent - way.dropped == way.recorded for way in ways)
    yield Figure("packets lost with 100 ms between drains", "0", measured, lossless)
    yield Figure("packets seen against the interface's counters", "0", f"{unlike}", unlike == 0)


def main() -> None:
    for what, _, measured, _ in figures(*map(int, sys.argv[1:])):
        print(f"{what}: {measured}")


if __name__ == "__main__":
    main()
