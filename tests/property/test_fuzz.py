"""A share of `make fuzz`: parsers refuse what is broken, with their own error and at once."""

import pytest

from tests.fuzz import TARGETS, run


@pytest.mark.parametrize(("target", "count"), [("filters", 8_000), ("documents", 800)])
def test_broken_input_is_refused(target: str, count: int) -> None:
    outcomes = run(TARGETS[target], count, seed=7)
    assert outcomes["refused"] > count // 2
    assert outcomes["read"] > count // 50
