"""Laws of slices: nothing is left out, the two ways of a tuple stay together, none is too large."""

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ringfence.flows.record import FLOW_DTYPE
from ringfence.flows.slices import slices
from ringfence.model.protocol import ICMP, TCP

_ENDS = st.integers(1, 3)
_TUPLES = st.one_of(
    st.tuples(st.just(TCP), _ENDS, _ENDS, st.integers(1, 4), st.integers(1, 4)),
    st.tuples(st.just(ICMP), _ENDS, _ENDS, st.sampled_from([0, 8, 13, 14]), st.integers(0, 1)),
)
_RECORDS = st.sets(
    st.tuples(st.integers(1, 2), st.integers(0, 1), st.integers(0, 1), _TUPLES), max_size=200
)
_ANSWERED = {0: 8, 14: 13}
_LARGEST_TUPLE = 16
"""Hooks, inside a tunnel or not, request or answer, and who sent it."""


def _tuple(row: np.void) -> tuple[object, ...]:
    sport, dport = int(row["sport"]), int(row["dport"])
    if row["protocol"] == ICMP:
        sport = dport = _ANSWERED.get(sport, sport) << 8 | dport
    ends = frozenset({(row["src"].tobytes(), sport), (row["dst"].tobytes(), dport)})
    return int(row["ifindex"]), int(row["protocol"]), ends


@given(_RECORDS, st.integers(1, 40), st.randoms(use_true_random=False))
def test_slices_are_whole_bounded_and_the_same_for_the_same_records(
    drawn: set[Any], most: int, random: Any
) -> None:
    records = np.zeros(len(drawn), FLOW_DTYPE)
    for row, (ifindex, hook, inner, (protocol, source, target, sport, dport)) in zip(
        records, drawn, strict=True
    ):
        row["ifindex"], row["hook"], row["inner"], row["protocol"] = ifindex, hook, inner, protocol
        row["src"][15], row["dst"][15], row["sport"], row["dport"] = source, target, sport, dport
    parts = list(slices(records, most))
    assert sorted(row.tobytes() for part in parts for row in part) == sorted(
        row.tobytes() for row in records
    )
    tuples = [{_tuple(row) for row in part} for part in parts]
    assert sum(map(len, tuples)) == len(set().union(*tuples)), "a tuple in two slices"
    assert max(map(len, parts)) < most + _LARGEST_TUPLE
    shuffled = list(range(len(records)))
    random.shuffle(shuffled)
    again = slices(records[shuffled], most)
    assert [{row.tobytes() for row in part} for part in again] == [
        {row.tobytes() for row in part} for part in parts
    ]
