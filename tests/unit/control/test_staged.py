"""When a staged trial is kept, taken back, or waited for."""

from dataclasses import replace

import pytest

from ringfence.control.staged import Seen, Step, decide
from ringfence.store.relational.trials import Trial

TRIAL = Trial(2, 1, 0, 100, (), 0.01)


@pytest.mark.parametrize(
    ("seen", "problem", "now_ns", "step"),
    [
        (Seen(1000, 0), "", 99, Step.WAIT),
        (Seen(1000, 10), "", 99, Step.WAIT),
        (Seen(1000, 11), "", 99, Step.TAKE_BACK),
        (Seen(50, 1), "", 99, Step.WAIT),  # too few to tell
        (Seen(50, 1), "", 100, Step.TAKE_BACK),
        (Seen(50, 50), "", 99, Step.TAKE_BACK),
        (Seen(1, 1), "", 99, Step.WAIT),
        (Seen(1000, 10), "", 100, Step.KEEP),
        (Seen(0, 0), "", 99, Step.WAIT),
        (Seen(0, 0), "", 100, Step.TAKE_BACK),
        (Seen(10, 0), "node1 is gone", 99, Step.WAIT),
        (Seen(10, 0), "node1 is gone", 100, Step.WAIT),
        (Seen(10, 0), "node1 is gone", 100 + 30 * 10**9, Step.TAKE_BACK),
        (Seen(1000, 11), "node1 is gone", 100, Step.TAKE_BACK),
    ],
)
def test_what_becomes_of_a_trial(seen: Seen, problem: str, now_ns: int, step: Step) -> None:
    assert decide(TRIAL, seen, problem, now_ns)[0] is step


@pytest.mark.parametrize(
    ("unforeseen", "now_ns", "step"),
    [
        (1, 99, Step.WAIT),
        (2, 99, Step.TAKE_BACK),
        (1, 100, Step.TAKE_BACK),
        (0, 100, Step.KEEP),
    ],
)
def test_where_nothing_may_be_dropped(unforeseen: int, now_ns: int, step: Step) -> None:
    trial, seen = replace(TRIAL, threshold=0.0), Seen(100_000, unforeseen)
    assert decide(trial, seen, "", now_ns)[0] is step
