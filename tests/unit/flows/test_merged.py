"""Slots of one conversation are one, however the file is cut into parts."""

import numpy as np
import pytest

from ringfence.flows import merged as subject
from ringfence.flows.connections import Records
from ringfence.flows.merged import Merging, merged
from ringfence.flows.recorded import dispositions, told_apart
from ringfence.model.errors import InputError
from tests.unit.flows.test_recorded import NOON, read, rows

SLOTS = [
    {
        "first": NOON + at * 10**9,
        "last": NOON + (at + 1) * 10**9,
        "opened": at,
        "answered": at,
        "forward_bytes": 2**53,
        "dropped": 0,
        "rtt_samples": at,
        "rtt_min_ns": 100 - at,
        "rtt_mean_ns": 200,
        "connection": f"{at}",
        "disposition": "passed",
    }
    for at in (2, 0, 1)
]
OTHER = {**SLOTS[0], "port": 81}
DROPPED = {**SLOTS[0], "disposition": "dropped", "dropped": 3, "answered": 0}


def test_counts_add_up_from_the_first_time_to_the_last() -> None:
    seen = read(rows(*SLOTS))
    (one,) = merged(seen, told_apart(seen))[0].table.to_pylist()
    assert (one["opened"], one["answered"], one["forward_bytes"]) == (3, 3, 3 * 2**53)
    assert (one["first_ns"], one["last_ns"]) == (NOON, NOON + 3 * 10**9)
    assert (one["rtt_samples"], one["rtt_min_ns"], one["rtt_sum_ns"]) == (3, 98, 600)
    assert one["connection_id"] == "2", "all else is the newest row's"


def test_another_port_and_another_end_of_it_are_another_conversation() -> None:
    seen = read(rows(*SLOTS, OTHER, DROPPED, DROPPED))
    found, newest = merged(seen, told_apart(seen))
    assert sorted(found.column("provider_port").tolist()) == [80, 80, 81]
    assert found.dropped.sum() == 6
    assert dispositions(found).dropped.tolist() == [one in {4, 5} for one in newest.tolist()]
    assert dispositions(found).passed.sum() == 2


def told(seen: Records) -> list[str]:
    return sorted(str(sorted(row.items(), key=str)) for row in seen.table.to_pylist())


def test_parts_give_what_the_whole_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "_FEW", 2)
    whole = read(rows(*SLOTS, OTHER, DROPPED))
    parts = Merging(told_apart)
    for at in range(len(whole)):
        parts.add(whole.take(np.array([at])))
    assert told(parts.all()) == told(merged(whole, told_apart(whole))[0])
    assert len(parts.all()) == 3


@pytest.mark.parametrize("name", ["opened", "dropped", "reverse_packets"])
def test_counts_that_would_begin_anew_are_refused(name: str) -> None:
    seen = read(rows(*({"first": NOON, "last": NOON, name: 2**53} for _ in range(2048))))
    with pytest.raises(InputError, match=f"^{name}: over"):
        merged(seen, told_apart(seen))


def test_of_nothing_there_is_nothing() -> None:
    parts = Merging(told_apart)
    parts.add(read(rows()).take(np.zeros(1, np.bool_)))
    assert len(parts.all()) == 0
