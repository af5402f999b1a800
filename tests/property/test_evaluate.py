"""The evaluator and the oracle agree on everything they say, whatever the world and the policies.

`make test-long` tries a million connections.
"""

from hypothesis import given

from ringfence.model.verdict import EndRole
from ringfence.policy.connection import tabulate
from ringfence.policy.evaluate import evaluate
from ringfence.policy.explain import explain
from ringfence.policy.oracle import Oracle
from tests.property.policy_world import MOMENT, Dialling, World, numbers, worlds


@given(worlds(), numbers())
def test_evaluator_and_explanation_agree_with_the_oracle(world: World, drawn: list[int]) -> None:
    asked = list(map(Dialling(world.items).connection, drawn))
    policy_set = world.policy_set()
    columns = tabulate(world.snapshot, asked)
    verdicts, explanations = evaluate(policy_set, columns), explain([policy_set], columns)
    oracle = Oracle(world.items, world.tree, world.enforced, MOMENT, world.quarantines)
    for row, connection in enumerate(asked):
        expected = oracle.judge(connection)
        assert explanations[row] == expected
        assert bool(verdicts.allowed[row]) is expected.allowed
        places = {end.role: end.deciding.place for end in expected.ends if end.deciding}
        for role in EndRole:
            at = verdicts.deciding(role)[row]
            told = -1 if at == -1 else policy_set.rules[at].decision.place
            assert told == places.get(role, -1)
