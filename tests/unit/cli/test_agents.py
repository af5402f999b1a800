"""What the table of agents says in words."""

import pytest

from ringfence.cli.agents import _pods


@pytest.mark.parametrize(
    ("desired", "reasons", "said"),
    [
        (3, {}, "2/2"),
        (3, {"shop/a": "no network namespace"}, "1/2, not shop/a: no network namespace"),
        (3, {"shop/a": "x", "shop/b": "y"}, "0/2, not shop/a: x, 1 more in -o json"),
        (0, {"shop/a": "x", "shop/b": "y"}, "0/2"),
    ],
)
def test_a_pod_without_its_rules_is_named(desired: int, reasons: dict[str, str], said: str) -> None:
    pods = {"programmed": 2 - len(reasons), "total": 2, "reasons": reasons}
    assert _pods({"desired_revision": desired, "pods": pods}) == said
