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


def test_the_likest_caller_tells_whoever_else_calls() -> None:
    """As it would be told edge by edge."""
    random = np.random.default_rng(1)
    pairs = np.unique(random.integers(0, 12, (90, 2)), axis=0)
    consumer, provider = pairs.T
    same = np.full(len(pairs), 80)
    observed: Any = SimpleNamespace(consumer=consumer, provider=provider, port=same, protocol=same)
    known = random.random(len(pairs)) < 0.6
    calls = {one: set(provider[known & (consumer == one)].tolist()) for one in range(12)}
    told = [
        max(
            (len(calls[one] & its) / len(calls[one] | its) for its in calls.values() if to in its),
            default=0,
        )
        for one, to in pairs.tolist()
    ]
    assert sum(share > 0 for share in told) > len(told) / 2
    assert company(observed, known, ~known).tolist() == np.where(known, 0, told).tolist()


def test_nobody_known_keeps_no_company() -> None:
    one = np.array([1])
    observed: Any = SimpleNamespace(consumer=one, provider=one, port=one, protocol=one)
    assert company(observed, one < 0, one > 0).tolist() == [0]
    assert company(observed, one < 0, one < 0).tolist() == [0]
