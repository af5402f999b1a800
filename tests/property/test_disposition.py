"""Every conversation has one fate, by what was reported of it and by what a file tells."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.flows.connections import Records
from ringfence.flows.disposition import Dispositions, dispose
from ringfence.flows.recorded import dispositions
from ringfence.model.flow import Category, Disposition
from ringfence.model.ids import ClusterId
from ringfence.model.protocol import TCP, UDP

CLUSTER, NOW = ClusterId("c"), 10**12
counts = st.integers(0, 6) | st.just(2**40)
nodes = st.sampled_from(["heard", "late", "none"])
THROUGH = {(CLUSTER, "heard"): NOW, (CLUSTER, "late"): 1}
rows = st.fixed_dictionaries(
    dict.fromkeys(("opened", "answered", "refused", "reverse_packets", "dropped"), counts)
    | {
        "protocol": st.sampled_from([TCP, UDP]),
        "reached": st.integers(0, 1),
        "last_ns": st.sampled_from([2, NOW - 1]),
        "kubernetes_cluster": st.just(CLUSTER),
        "consumer_node": nodes,
        "provider_node": nodes,
        "disposition": st.sampled_from(["", *Disposition]),
    }
)


def reported(seen: Records) -> Dispositions:
    return dispose(seen, THROUGH, NOW)


@pytest.mark.parametrize("told_by", [reported, dispositions])
@given(some=st.lists(rows, min_size=1, max_size=20))
def test_every_conversation_has_one_fate(told_by: Any, some: list[dict[str, Any]]) -> None:
    dropped = np.array([row["dropped"] for row in some], np.uint64)
    seen = Records(pa.Table.from_pylist(some), dropped, np.zeros(len(some), np.bool_))
    fate = told_by(seen)
    fates = np.stack([fate.passes, fate.drops, fate.silent, fate.awaited])
    opened, answered = (seen.column(name).astype(np.int64) for name in ("opened", "answered"))
    opened = np.maximum(opened, 1)
    # A drop beside as many answers as openings is of one more.
    one_more = fate.dropped & (answered >= opened)
    assert (fates >= 0).all()
    assert (fates.sum(0) == opened + one_more).all()
    escaped = fate.categories(np.zeros(len(some), np.bool_))[Category.ESCAPED]
    assert (escaped[fate.dropped] == np.minimum(answered, opened)[fate.dropped]).all()
    assert not (fate.pending & (fate.passed | fate.dropped | fate.unanswered)).any()
