"""Where the preview of a scope edit names nobody, the edit changes no verdict and no reason."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from ringfence.inventory.snapshot import NOWHERE, Snapshot
from ringfence.model.scope import ScopeTree
from ringfence.model.verdict import EndRole
from ringfence.policy.connection import tabulate
from ringfence.policy.evaluate import UNGOVERNED, end_items, evaluate
from ringfence.policy.impact import impact
from ringfence.policy.order import PolicySet
from tests.property.policy_world import MOMENT, QUERIES, Dialling, World, numbers, worlds


@st.composite
def edited(draw: st.DrawFn, tree: ScopeTree) -> ScopeTree:
    """The tree with one scope's query and order changed."""
    scopes = list(tree.preorder())
    at = draw(st.integers(0, len(scopes) - 1))
    query, order = draw(st.sampled_from(QUERIES)), draw(st.integers(0, 2))
    scopes[at] = replace(scopes[at], query=query, order=order)
    return ScopeTree(scopes)


@given(worlds(), numbers(), st.data())
def test_whoever_is_not_named_keeps_every_verdict(
    world: World, drawn: list[int], data: st.DataObject
) -> None:
    trees = world.tree, data.draw(edited(world.tree))
    sets = [
        PolicySet(world.snapshot, tree, world.enforced, MOMENT, world.quarantines) for tree in trees
    ]
    named = impact(*sets).workloads
    columns = tabulate(world.snapshot, list(map(Dialling(world.items).connection, drawn)))
    verdicts = [evaluate(one, columns) for one in sets]
    for role in EndRole:
        places = [one.deciding(role).tolist() for one in verdicts]
        for row, item in enumerate(end_items(columns, role).tolist()):
            was, will = (
                None if at[row] == UNGOVERNED else replace(held.rules[at[row]].decision, place=0)
                for held, at in zip(sets, places, strict=True)
            )
            if was != will:
                assert item != NOWHERE
                assert item in named


def test_an_edit_that_changes_nothing_has_no_impact() -> None:
    empty = PolicySet(Snapshot([]), ScopeTree([]), [])
    nothing = impact(empty, empty)
    assert (nothing.moves, nothing.rules, nothing.swaps) == ((), (), ())
