"""What logs connections, kept as numbers."""

import numpy as np

from ringfence.control.deciding import Logging
from ringfence.model.ids import PolicyId, ScopeName, Version, WorkspaceName
from ringfence.model.policy import Action
from ringfence.model.verdict import Decision, Layer, Stage


def rule(place: int) -> Decision:
    return Decision(
        layer=Layer.RINGFENCE,
        stage=next(iter(Stage)),
        scope=ScopeName("shop"),
        workspace=WorkspaceName("shop"),
        version=Version(1),
        policy=PolicyId(f"log-{place}"),
        place=place,
        action=Action.LOG,
    )


def test_each_rule_that_logs_is_told_once_of_each_connection() -> None:
    first, second = rule(1), rule(2)
    logging = Logging(4)
    logging.add(second, np.array([0, 1]))
    logging.add(first, np.array([1, 2]))
    logging.add(second, np.array([1]))
    assert [set(logging[row]) for row in range(4)] == [{second}, {first, second}, {first}, set()]
    more = logging.spread(np.array([3, 1, 1, 0]))
    assert [set(more[row]) for row in range(4)] == [
        set(),
        {first, second},
        {first, second},
        {second},
    ]
    chosen = np.array([True, True, False, True])
    assert list(more.counts(chosen).items()) == [(first, 1), (second, 2)]
    assert len(more[1]) == 2
