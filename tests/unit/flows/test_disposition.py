"""How many conversations of a connection that was dropped in part count as what."""

import numpy as np
import pyarrow as pa
import pytest

from ringfence.flows.connections import Records
from ringfence.flows.disposition import dispose
from ringfence.model.flow import Category
from ringfence.model.protocol import TCP, UDP


@pytest.mark.parametrize(
    ("protocol", "counts", "dropped", "passes", "drops", "silent"),
    [
        (TCP, {"opened": 2166, "answered": 2097}, 207, 2097, 69, 0),
        (TCP, {"opened": 100, "answered": 60}, 10, 60, 10, 30),
        (TCP, {"opened": 1, "answered": 1}, 3, 1, 1, 0),
        (TCP, {"opened": 1, "answered": 2}, 3, 1, 1, 0),
        (TCP, {"opened": 0, "answered": 0}, 3, 0, 1, 0),
        (TCP, {"opened": 50, "answered": 0}, 3, 0, 50, 0),
        (TCP, {"opened": 50, "answered": 0, "refused": 47}, 3, 0, 50, 0),
        (UDP, {"opened": 900, "answered": 890, "reverse_packets": 890}, 5, 890, 5, 5),
        (TCP, {"opened": 100, "answered": 60}, 0, 100, 0, 0),
    ],
)
def test_what_was_neither_answered_nor_dropped_did_not_pass(
    protocol: int, counts: dict[str, int], dropped: int, passes: int, drops: int, silent: int
) -> None:
    row = {"protocol": protocol, "reached": 1, "last_ns": 1, "refused": 0, "reverse_packets": 0}
    nodes = {"kubernetes_cluster": "c", "consumer_node": "n1", "provider_node": "n1"}
    table = pa.Table.from_pylist([row | counts | nodes])
    seen = Records(table, np.array([dropped], np.uint64), np.zeros(1, np.bool_))
    found = dispose(seen, {}, 1).categories(np.ones(1, np.bool_))
    told = {name: int(count[0]) for name, count in found.items() if count[0]}
    wanted = {
        Category.PERMITTED: passes,
        Category.MISDROPPED: drops,
        Category.UNANSWERED: silent,
    }
    assert told == {name: count for name, count in wanted.items() if count}
