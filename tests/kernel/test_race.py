"""No packet is lost or counted twice while the maps swap, and none silently when one is full."""

import pytest

from ringfence.kernel.capture import FlowCapture
from tests.kernel.race import IP_BYTES, race


@pytest.mark.parametrize(("pause", "packets"), [(0.1, 5_000_000), (0.001, 2_000_000)])
def test_packets_sent_are_packets_counted(pause: float, packets: int, capture: FlowCapture) -> None:
    """Agents drain more rarely than every 100 ms; with 1 ms between drains the swap races more."""
    outcome = race(capture, packets, pause)
    assert outcome.drains > 10
    for way in outcome.ways.values():
        assert way.full == 0
        assert way.recorded == way.sent - way.dropped
        assert way.recorded_bytes == IP_BYTES * way.recorded
        assert way.audited == way.by_interface >= way.recorded
    assert sum(way.sent for way in outcome.ways.values()) >= packets
