"""Slots of continuous analysis, and what becomes of alerts."""

from dataclasses import replace
from typing import Any

import pytest

from ringfence.control.alerts import LATE_NS, SILENCE_NS, changes, format_rules, is_news
from ringfence.control.continuous import HOUR_NS, SLOT_NS, joined, segments, slot_of
from ringfence.model.flow import Category
from ringfence.model.ids import Version, WorkspaceName
from ringfence.model.promotion import Criteria, Facts, Stage, criteria_for
from ringfence.model.tally import Cause, Tally
from ringfence.policy.spared import decision_of
from ringfence.store.relational.enforcement import NEVER, Enforced
from ringfence.store.relational.verdicts import Told

S = 10**9
NOW = 1_900_000_800 * S
SHOP, ALL = (WorkspaceName("shop"), Version(1)), (WorkspaceName("all"), Version(1))
CAUSE = Cause(Category.MISDROPPED, (), "shop/front", "shop/db", 6, 3306)


def enforced(revision: int, since_ns: int, staged_until_ns: int | None = 0) -> Enforced:
    return Enforced(revision, (SHOP,), "ann", since_ns, staged_until_ns)


def test_a_window_belongs_to_the_slot_in_which_it_ended() -> None:
    start = NOW // SLOT_NS * SLOT_NS
    assert slot_of(start + 1, NOW) == (start, start + SLOT_NS)
    assert slot_of(start + SLOT_NS, NOW) == (start, start + SLOT_NS)
    old = NOW - 5 * HOUR_NS
    hour = (old - 1) // HOUR_NS * HOUR_NS
    assert slot_of(old, NOW) == (hour, hour + HOUR_NS)


@pytest.mark.parametrize(
    ("sets", "told"),
    [
        ([NEVER], [(0, 300, 0)]),
        ([NEVER, enforced(1, 100)], [(0, 100, 0), (117, 300, 1)]),
        ([enforced(1, -50), enforced(2, 100)], [(0, 100, 1), (117, 300, 2)]),
        ([enforced(1, -10)], [(7, 300, 1)]),
        ([enforced(1, -50), enforced(2, 100), enforced(3, 105)], [(0, 100, 1), (122, 300, 3)]),
        ([enforced(1, -50), enforced(2, 290)], [(0, 290, 1)]),
        ([enforced(1, -50), enforced(2, 100, 200)], [(0, 100, 1), (217, 300, 2)]),
        ([enforced(1, -50), enforced(2, 100, None)], [(0, 100, 1)]),
        (
            [enforced(1, -50), enforced(2, 100, None), enforced(3, 200)],
            [(0, 100, 1), (217, 300, 3)],
        ),
        ([enforced(2, -500, -8)], [(9, 300, 2)]),
    ],
)
def test_no_part_of_a_slot_tells_of_two_sets(
    sets: list[Enforced], told: list[tuple[int, int, int]]
) -> None:
    found = [one for one in segments((0, 300), sets, 17) if not one.staged]
    assert [(*one.span, one.enforced.revision) for one in found] == told


def tell(count: int, last_ns: int, start_ns: int = NOW - SLOT_NS, named: object = SHOP) -> Told:
    span = start_ns, start_ns + SLOT_NS
    return Told(named, *span, True, Tally(CAUSE, count, last_ns))  # type: ignore[arg-type]


def test_parts_of_an_hour_add_up() -> None:
    parts = [tell(2, NOW - 5), tell(3, NOW - 9, NOW - 2 * SLOT_NS), tell(1, NOW - 7, named=ALL)]
    whole = joined((0, HOUR_NS), parts)
    assert [(one.named, one.tally.conversations, one.tally.last_ns) for one in whole] == [
        (SHOP, 5, NOW - 5),
        (ALL, 1, NOW - 7),
    ]


def test_what_two_workspaces_tell_of_counts_once() -> None:
    told = [tell(2, NOW - 5), tell(3, NOW - 4, named=ALL), tell(4, NOW - 400 * S, NOW - 500 * S)]
    (alert,) = changes([], told, NOW, may_open=True)
    assert (alert.conversations, alert.last_ns) == (7, NOW - 4)
    assert is_news({}, alert)
    assert changes([], told, NOW, may_open=False) == []
    assert changes([alert], told, NOW, may_open=True) == []


def test_an_alert_goes_on_and_ends_in_silence() -> None:
    (alert,) = changes([], [tell(2, NOW - 5)], NOW, may_open=True)
    (more,) = changes([alert], [tell(6, NOW)], NOW, may_open=True)
    assert more == replace(alert, conversations=6, last_ns=NOW)
    assert not is_news({CAUSE: alert}, more)
    later = NOW + SILENCE_NS + 1
    (over,) = changes([more], [tell(6, NOW)], later, may_open=True)
    assert over == replace(more, resolved_ns=later)
    assert is_news({CAUSE: more}, over)
    assert changes([over], [tell(6, NOW)], later, may_open=True) == [], "it is over"
    again = [tell(6, NOW), tell(1, later, NOW + SLOT_NS)]
    (another,) = changes([over], again, later, may_open=True)
    assert (another.id != over.id, another.conversations) == (True, 1)


def test_a_fail_safe_that_decided_has_its_name() -> None:
    kubelet, itself = map(decision_of, ("fail-safe/kubelet", "fail-safe/itself"))
    assert format_rules([kubelet, itself]) == ["ALLOW fail-safe/kubelet", "ALLOW fail-safe/itself"]


def test_what_is_told_late_opens_an_alert_that_ends_when_no_more_is_told() -> None:
    late = [tell(2, NOW - 5)]
    heard_ns = NOW + 10 * SILENCE_NS
    (alert,) = changes([], late, heard_ns, may_open=True)
    assert (alert.last_ns, alert.heard_ns, alert.resolved_ns) == (NOW - 5, heard_ns, None)
    soon, later = heard_ns + SILENCE_NS, heard_ns + SILENCE_NS + 1
    assert changes([alert], late, soon, may_open=True) == []
    assert changes([alert], late, later, may_open=True) == [replace(alert, resolved_ns=later)]
    assert changes([], late, NOW + LATE_NS, may_open=True) == [], "it is too late"


def test_each_of_many_causes_is_looked_for_once() -> None:
    asked = 0

    class Counted(Cause):
        def __eq__(self, other: object) -> bool:
            nonlocal asked
            asked += 1
            return super().__eq__(other)

        __hash__ = Cause.__hash__

    causes = [Counted(Category.MISDROPPED, (), "a", "b", 6, port) for port in range(200)]
    told = [replace(tell(1, NOW), tally=Tally(cause, 1, NOW)) for _ in range(3) for cause in causes]
    opened = changes([], told, NOW - 1, may_open=True)
    asked = 0
    assert changes(opened, told, NOW, may_open=True) == []
    assert asked < 5 * len(told)


@pytest.mark.parametrize(
    ("conversations", "unforeseen", "met"), [(0, 0, False), (100, 1, True), (100, 2, False)]
)
def test_a_trial_may_drop_as_much_as_its_threshold(
    conversations: int, unforeseen: int, met: bool
) -> None:
    facts = Facts(Stage.STAGED, 0, trial_conversations=conversations, trial_unforeseen=unforeseen)
    (found,) = criteria_for(Stage.ENFORCED, Criteria(threshold=0.01), facts)
    assert (found.wanted, found.met) == ("the trial drops no more than 1.00% unforeseen", met)


@pytest.mark.parametrize(
    ("changed", "met"),
    [
        ({}, [True, True, True]),
        ({"permitted": 98}, [True, False, True]),
        ({"permitted": 0, "escaped": 0}, [True, False, True]),
        ({"misdropped": 1}, [True, True, False]),
        ({"analysed_seconds": 3599}, [False, True, False]),
    ],
)
def test_what_a_trial_wants(changed: dict[str, Any], met: list[bool]) -> None:
    criteria = Criteria(coverage=0.99, quiet_seconds=3600)
    facts = Facts(Stage.ANALYSE, 0, analysed_seconds=3600, permitted=99, escaped=1)
    found = criteria_for(Stage.STAGED, criteria, replace(facts, **changed))
    assert [one.met for one in found] == met
