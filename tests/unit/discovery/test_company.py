"""Whose calls are much the same keep company, by what is known."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ringfence.discovery.company import company

ORDERS, CARTS, STORE, CONFIG, TRACES, ALONE = range(6)
KNOWN = [(ORDERS, CONFIG), (ORDERS, TRACES), (CARTS, CONFIG), (STORE, ALONE)]


@pytest.mark.parametrize(("asked", "share"), [
    ((CARTS, TRACES), 1 / 2), ((STORE, TRACES), 0), ((CARTS, ALONE), 0), ((CARTS, STORE), 0),
])  # fmt: skip
def test_company_is_what_two_callers_have_in_common(asked: tuple[int, int], share: float) -> None:
    consumer, provider = np.array([*KNOWN, asked], dtype=np.int64).T
    same = np.full(len(consumer), 80)
    observed: Any = SimpleNamespace(consumer=consumer, provider=provider, port=same, protocol=same)
    known = np.arange(len(consumer)) < len(KNOWN)
    assert company(observed, known, ~known).tolist() == [0, 0, 0, 0, share]


def test_nobody_known_keeps_no_company() -> None:
    one = np.array([1])
    observed: Any = SimpleNamespace(consumer=one, provider=one, port=one, protocol=one)
    assert company(observed, one < 0, one > 0).tolist() == [0]
    assert company(observed, one < 0, one < 0).tolist() == [0]
