"""Our counters against the kernel's: what is sure, what is possible, and how much is told."""

import os

import numpy as np

from ringfence.agent.audit import SelfAudit
from ringfence.kernel.capture import AUDIT_DTYPE
from ringfence.kernel.counters import Counters
from ringfence.kernel.interfaces import Interface
from ringfence.wire.generated.agent_pb2 import Audit
from ringfence.wire.limits import AUDITED_INTERFACES

Row = tuple[int, int, int]


def interface(ifindex: int, kind: str = "veth") -> Interface:
    return Interface(ifindex, f"veth{ifindex:08x}", kind, True, None, None, frozenset())


def kernel(ingress: int, egress: int = 0, *, cut: bool = False) -> dict[int, Counters]:
    return {1: Counters(ingress, egress, cut)}


def counted(*rows: Row) -> np.ndarray[tuple[int], np.dtype[np.void]]:
    """Rows of (ifindex, hook, skbs)."""
    audit = np.zeros(len(rows), AUDIT_DTYPE)
    for name, values in zip(("ifindex", "hook", "skbs"), zip(*rows, strict=True), strict=True):
        audit[name] = values
    return audit


PROCESSORS = os.cpu_count() or 1
NOTHING = np.zeros(0, AUDIT_DTYPE)


def told(self_audit: SelfAudit) -> tuple[int, int, int]:
    """What is surely missed, surely counted twice, and how much more it may be."""
    audit = Audit()
    self_audit.tell(audit)
    return audit.unaccounted, audit.overcounted, audit.uncertain


def test_what_passes_while_counters_are_read_is_uncertain_until_a_quiet_moment() -> None:
    held = SelfAudit()
    assert held.attached([interface(1)])
    held.hold(kernel(100), 0, counted((1, 0, 0), (1, 1, 0)), kernel(110))
    held.hold(kernel(1000), 0, counted((1, 0, 900), (1, 1, 0)), kernel(1040))
    # 100 to 110 had passed before, so 890 to 940 passed since, of which 900 are counted; and each
    # processor may be at one more, at both readings and at both of their ends.
    assert told(held) == (0, 0, 940 - 890 + 4 * PROCESSORS)
    held.hold(kernel(2000), 0, counted((1, 0, 1894), (1, 1, 0)), kernel(2000))
    assert told(held) == (0, 0, 0)
    held.hold(kernel(3000), 7, counted((1, 0, 2871), (1, 1, 0)), kernel(3000))
    assert told(held) == (23 - 7 - PROCESSORS, 0, 2 * 2 * (7 + PROCESSORS))
    held.hold(kernel(3000), 0, counted((1, 0, 2894), (1, 1, 0)), kernel(3000))
    assert told(held) == (0, 0, 0)
    held.hold(kernel(3100), 0, counted((1, 0, 3000), (1, 1, 0)), kernel(3100))
    assert told(held) == (0, 6, 0)


def test_what_was_missed_outlives_the_interface() -> None:
    held = SelfAudit()
    held.attached([interface(1)])
    held.hold(kernel(0), 0, NOTHING, kernel(0))
    held.hold(kernel(50, 7), 0, counted((1, 0, 30), (1, 1, 7)), kernel(50, 7))
    held.detached(1)
    assert told(held) == (20, 0, 0)
    held.attached([interface(1)])
    held.hold(kernel(50, 7), 0, NOTHING, kernel(50, 7))
    held.hold(kernel(60, 7), 0, counted((1, 0, 10), (1, 1, 0)), kernel(60, 7))
    assert told(held) == (20, 0, 0)


def test_where_the_counters_need_not_agree_nothing_is_judged() -> None:
    for kind, cut, rows in (
        ("", False, counted((1, 0, 5), (1, 1, 0))),  # hardware merges
        ("veth", True, counted((1, 0, 5), (1, 1, 0))),  # a shaper cuts
        ("veth", False, counted((0, 0, 5))),  # counted with others'
    ):
        held = SelfAudit()
        held.attached([interface(1, kind)])
        held.hold(kernel(0), 0, NOTHING, kernel(0))
        held.hold(kernel(9), 0, rows, kernel(9, cut=cut))
        assert told(held) == (0, 0, 0)
        audit = Audit()
        held.tell(audit)
        assert audit.judged == 0
        assert [each.judged for each in audit.interfaces] == [False]


def test_an_interface_that_is_gone_before_it_is_noticed_keeps_its_last_word() -> None:
    held = SelfAudit()
    held.attached([interface(1)])
    held.hold(kernel(0), 0, NOTHING, kernel(0))
    held.hold(kernel(9), 0, counted((1, 0, 4), (1, 1, 0)), kernel(9))
    held.hold({}, 0, counted((1, 0, 4), (1, 1, 0)), {})
    assert told(held) == (5, 0, 0)


def test_of_many_interfaces_the_most_wrong_are_told_and_the_totals_hold_all() -> None:
    count = 2 * AUDITED_INTERFACES
    held = SelfAudit()
    start = {each: Counters(0, 0, cut=False) for each in range(1, count + 1)}
    held.attached([interface(each) for each in start])
    held.hold(start, 0, NOTHING, start)
    now = {each: Counters(10**12, 10**12, cut=False) for each in start}
    rows = [(each, hook, 10**12 - (each if hook else 0)) for each in start for hook in (0, 1)]
    held.hold(now, 0, counted(*rows), now)
    audit = Audit()
    held.tell(audit)
    assert audit.unaccounted == count * (count + 1) // 2
    assert audit.judged == count
    assert [each.ifindex for each in audit.interfaces] == list(
        range(count, count - AUDITED_INTERFACES, -1)
    )
    assert audit.ByteSize() < 64 * AUDITED_INTERFACES
