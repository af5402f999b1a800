"""Laws of the order of policies: what a change to some of them may do to verdicts, and what not."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from random import Random
from typing import TypeVar

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ringfence.inventory.snapshot import Snapshot
from ringfence.model.ids import PolicyId, RevisionId, WorkspaceName
from ringfence.model.policy import Action, CidrEnd, Direction, Policy, ServiceEnd
from ringfence.model.scope import ScopeTree
from ringfence.model.verdict import EndRole, Stage
from ringfence.policy.connection import tabulate
from ringfence.policy.evaluate import Verdicts, evaluate
from ringfence.policy.order import Enforced, PolicySet
from tests.property.policy_world import MOMENT, NETWORKS, Dialling, World, numbers, policies, worlds

T = TypeVar("T")
EVERYONE = CidrEnd((NETWORKS[0], NETWORKS[1]))


Name = tuple[WorkspaceName, Stage, PolicyId | None, Direction | None]


class Judged:
    """Verdicts on some connections, and the rules that made them, each by what it is."""

    def __init__(self, world: World, drawn: list[int], bound: list[Enforced] | None = None) -> None:
        connections = map(Dialling(world.items).connection, drawn)
        policy_set = world.policy_set(bound)
        self.rules = policy_set.rules
        columns = tabulate(world.snapshot, list(connections))
        self.verdicts: Verdicts = evaluate(policy_set, columns)
        self.names: list[Name] = [
            (one.decision.workspace, one.decision.stage, one.decision.policy, one.direction)
            for one in self.rules
        ]

    def deciding(self, role: EndRole) -> list[Name | None]:
        names: list[Name | None] = [*self.names, None]
        return [names[place] for place in self.verdicts.deciding(role).tolist()]


def changed(
    world: World, number: int, change: Callable[[tuple[Policy, ...]], tuple[Policy, ...]]
) -> list[Enforced]:
    """The enforced set with other policies in its workspace of that number."""
    bound = list(world.enforced)
    workspace, version = bound[number]
    bound[number] = replace(workspace, policies=change(workspace.policies)), version
    return bound


@given(worlds(), numbers(100), st.data())
def test_a_policy_never_changes_what_is_decided_above_it(
    world: World, drawn: list[int], data: st.DataObject
) -> None:
    one = replace(data.draw(policies(world.tree, 0)), id=PolicyId("added"))
    number = data.draw(st.integers(0, len(world.enforced) - 1))
    at = data.draw(st.integers(0, len(world.enforced[number][0].policies)))
    bound = changed(world, number, lambda held: (*held[:at], one, *held[at:]))
    before, after = Judged(world, drawn), Judged(world, drawn, bound)
    (place,) = (place for place, rule in enumerate(after.rules) if rule.decision.policy == "added")
    places = {name: place for place, name in enumerate(after.names)}
    for role in EndRole:
        for was, name in zip(before.deciding(role), after.deciding(role), strict=True):
            assert name == was or name == after.names[place]
            assert name == was or (was is not None and place < places[was])


@given(worlds(), numbers(100), st.randoms(use_true_random=False))
def test_the_order_of_inputs_says_nothing(world: World, drawn: list[int], chance: Random) -> None:
    def shuffled(given: list[T]) -> list[T]:
        return chance.sample(given, len(given))

    revised = list(enumerate(world.items, 1))
    snapshot = Snapshot((RevisionId(number), item) for number, item in shuffled(revised))
    tree = ScopeTree(shuffled(list(world.tree.preorder())))
    apart = shuffled(world.quarantines)
    policy_set = PolicySet(snapshot, tree, shuffled(world.enforced), MOMENT, apart)
    assert policy_set.rules == world.policy_set().rules
    order = shuffled(list(range(len(drawn))))
    columns = tabulate(snapshot, [Dialling(world.items).connection(drawn[at]) for at in order])
    verdicts = evaluate(policy_set, columns).allowed
    assert verdicts.tolist() == Judged(world, drawn).verdicts.allowed[order].tolist()


@given(worlds(), numbers(100))
def test_policies_that_decide_nothing_change_nothing(world: World, drawn: list[int]) -> None:
    before = Judged(world, drawn)
    deciding = {name for role in EndRole for name in before.deciding(role)}
    used = {(name[0], name[2]) for name in deciding if name}
    bound = [
        (
            replace(
                workspace,
                policies=tuple(
                    one for one in workspace.policies if (workspace.name, one.id) in used
                ),
            ),
            version,
        )
        for workspace, version in world.enforced
    ]
    after = Judged(world, drawn, bound)
    assert [before.deciding(role) for role in EndRole] == [after.deciding(role) for role in EndRole]
    assert (before.verdicts.allowed == after.verdicts.allowed).all()


def exchanged(one: Policy, held: tuple[Policy, ...]) -> tuple[Policy, ...]:
    """The policies with one in the place of its namesake."""
    return tuple(one if policy.id == one.id else policy for policy in held)


@given(worlds(), numbers(100))
def test_a_coarser_allow_never_removes_a_connection(world: World, drawn: list[int]) -> None:
    def coarser(policy: Policy) -> Policy:
        """A policy of everyone; what names a Service keeps it, for a node is met by that alone."""
        to_service = isinstance(policy.provider, ServiceEnd)
        provider = policy.provider if to_service else EVERYONE
        return replace(policy, consumer=EVERYONE, provider=provider, protocol=None, ports=())

    before = Judged(world, drawn)
    deciding = {name for role in EndRole for name in before.deciding(role) if name}
    for number, (workspace, _) in enumerate(world.enforced):
        for policy in workspace.policies:
            name = workspace.name, Stage(policy.rank), policy.id, None
            if policy.action is Action.ALLOW and name in deciding:
                bound = changed(world, number, partial(exchanged, coarser(policy)))
                after = Judged(world, drawn, bound)
                assert not np.any(before.verdicts.allowed & ~after.verdicts.allowed)
