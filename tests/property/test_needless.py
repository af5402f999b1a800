"""What lint calls shadowed or redundant changes no verdict when it goes, alone or all at once."""

from collections.abc import Collection
from dataclasses import replace

from hypothesis import event, given
from hypothesis import strategies as st

from ringfence.inventory.snapshot import Snapshot
from ringfence.model.errors import InputError
from ringfence.model.ids import RevisionId, Version
from ringfence.model.scope import ScopeTree
from ringfence.model.verdict import EndRole
from ringfence.policy.connection import Connection, tabulate
from ringfence.policy.document import Documents
from ringfence.policy.evaluate import UNGOVERNED, evaluate
from ringfence.policy.finding import Oddity
from ringfence.policy.lint import lint
from ringfence.policy.needless import Needless, needless
from ringfence.policy.order import Enforced, PolicySet
from ringfence.policy.universe import universe
from tests.property.policy_world import CONNECTIONS, MOMENT, Dialling, World, numbers, worlds


def without(bound: list[Enforced], gone: Collection[Needless]) -> list[Enforced]:
    names = {(one.rule.decision.workspace, one.rule.decision.policy) for one in gone}
    return [
        (
            replace(
                workspace,
                policies=tuple(
                    policy
                    for policy in workspace.policies
                    if (workspace.name, policy.id) not in names
                ),
            ),
            version,
        )
        for workspace, version in bound
    ]


def asked_of(world: World, drawn: list[int]) -> list[Connection]:
    return list(map(Dialling(world.items).connection, drawn))


@given(worlds(), st.data())
def test_no_verdict_needs_a_needless_policy(world: World, data: st.DataObject) -> None:
    snapshot, tree, bound = world.snapshot, world.tree, world.enforced
    layer = PolicySet(snapshot, tree, bound, MOMENT)
    found = needless(layer, range(len(layer.rules)))
    event("some" if found else "none")
    for one in found:
        event("shadowed" if one.shadowed else "redundant")
    if not found:
        return
    columns = tabulate(snapshot, asked_of(world, data.draw(numbers(CONNECTIONS * 3))))
    before = evaluate(layer, columns)
    shadowed = {one.rule.decision.place for one in found if one.shadowed}
    for role in EndRole:
        assert not shadowed & set(before.deciding(role).tolist())
    for at_ns in range(3):  # some have expired in the second and the third
        moment = replace(MOMENT, at_ns=at_ns)
        judged = evaluate(PolicySet(snapshot, tree, bound, moment), columns)
        for gone in (found, *([one] for one in found)):
            after = evaluate(PolicySet(snapshot, tree, without(bound, gone), moment), columns)
            assert (judged.allowed == after.allowed).all()


@given(worlds(), numbers(CONNECTIONS * 2))
def test_what_is_shadowed_in_every_inventory_is_in_any(world: World, drawn: list[int]) -> None:
    tree, bound = world.tree, world.enforced
    given = Documents(tree.preorder(), tuple(workspace for workspace, _ in bound))
    try:
        rewritten, made = universe(given)
    except InputError:
        event("too large")
        return
    versions = [(one, Version(1)) for one in rewritten.workspaces]
    imagined = Snapshot((RevisionId(number), one) for number, one in enumerate(made, 1))
    layer = PolicySet(imagined, ScopeTree(rewritten.scopes), versions)
    told = lint(layer, [workspace for workspace, _ in bound], known=False)
    found = [one for one in told if one.kind in (Oddity.SHADOWED, Oddity.CONTRADICTORY)]
    event("some" if found else "none")
    real = PolicySet(world.snapshot, tree, bound, MOMENT)
    verdicts = evaluate(real, tabulate(world.snapshot, asked_of(world, drawn)))
    gone = {(one.workspace, one.policy) for one in found}
    for role in EndRole:
        for place in {*verdicts.deciding(role).tolist()} - {UNGOVERNED}:
            decision = real.rules[place].decision
            assert (decision.workspace, decision.policy) not in gone
