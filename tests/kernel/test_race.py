"""No packet is lost or counted twice while the maps swap, and none silently when one is full."""

import pytest

from ringfence.kernel.bpf import object_path, possible_processors, run_on_frame
from ringfence.kernel.capture import FlowCapture
from tests.kernel.netns import namespace
from tests.kernel.race import FLOWS, FRAMES, IP_BYTES, race


@pytest.mark.parametrize(("pause", "packets"), [(0.1, 5_000_000), (0.001, 2_000_000)])
def test_packets_sent_are_packets_counted(pause: float, packets: int, capture: FlowCapture) -> None:
    """Agents drain more rarely than every 100 ms; with 1 ms between drains the swap races more."""
    outcome = race(capture, packets, pause)
    assert outcome.drains > 10
    for way in outcome.ways.values():
        assert way.full == 0
        assert way.recorded == way.sent - way.dropped
        assert way.recorded_bytes == IP_BYTES * way.recorded
        assert way.audited == way.by_interface == way.recorded + way.of_others
    assert sum(way.sent for way in outcome.ways.values()) >= packets


def test_what_finds_the_map_full_is_counted_to_the_packet() -> None:
    """Four times as many tuples as there is room for, made anew after each drain."""
    room = 2 * FLOWS // 4
    capture = FlowCapture(object_path("flow"), max_flows=room)
    capture.open()
    try:
        outcome = race(capture, 1_000_000, 0.01)
    finally:
        capture.close()
    assert outcome.largest <= room + possible_processors()
    for way in outcome.ways.values():
        assert way.recorded > 0
        assert way.audited == way.by_interface == way.recorded + way.full + way.of_others
    assert sum(way.full for way in outcome.ways.values()) > 0


def test_the_fill_of_the_map_is_known_at_any_time() -> None:
    capture = FlowCapture(object_path("flow"), max_flows=512)
    capture.open()
    try:
        with namespace("fill") as where:
            program = capture.program_fd("ethernet_ingress")
            for frame in [*FRAMES[:128], *FRAMES[:64]]:
                where.call(lambda: run_on_frame(program, frame))  # noqa: B023
            assert capture.fill() == 0.25
            capture.drain()
            assert capture.fill() == 0
            for frame in FRAMES:
                where.call(lambda: run_on_frame(program, frame))  # noqa: B023
            assert capture.fill() == 1
    finally:
        capture.close()
