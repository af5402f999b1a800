"""Which rules belong where: a function of policy and pods alone."""

import itertools
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from ringfence.agent.enforce import Enforcer
from ringfence.agent.held import Held
from ringfence.agent.plan import plan
from ringfence.agent.pods import Place
from ringfence.kernel import nft
from ringfence.kernel.drops import DROP_DTYPE
from ringfence.kernel.libnftables import NftError
from ringfence.model.errors import InputError
from ringfence.model.ids import ClusterId, NodeName
from ringfence.model.policy import Action
from ringfence.policy.backends.interface import Ruleset, UnsupportedError
from ringfence.policy.program import (
    NO_GUARDED,
    Guarded,
    NodeBinding,
    NodePolicy,
    Passage,
    PodBinding,
    Program,
    ProgramId,
    Rule,
)
from ringfence.wire import batch

DENY_ALL = ProgramId("deny")
NODE, POD, FREE, ODD = (
    Place(uid, Path(f"/run/netns/{uid}"), i) for i, uid in enumerate(("", "pod", "free", "odd"))
)


class Recorder:
    """A back end that writes down for whom it renders, and cannot express one of them."""

    keeps_drops = True

    def render_pod(self, policy: NodePolicy, binding: PodBinding) -> Ruleset:
        if binding.uid == "odd":
            raise UnsupportedError("cannot be said")
        return Ruleset(f"chain {binding.uid}", {}, (), {})

    def render_node(
        self, policy: NodePolicy, released: Iterable[Passage] = (), guarded: Guarded = NO_GUARDED
    ) -> Ruleset:
        return Ruleset("chain node" if policy.binding.inbound else "", {}, (), {})

    def sayable(self, policy: NodePolicy) -> NodePolicy:
        return policy

    def transaction(self, desired: Ruleset, previous: Ruleset | None) -> str:
        raise NotImplementedError

    def text(self, ruleset: Ruleset) -> str:
        raise NotImplementedError


def _policy(inbound: ProgramId | None = None) -> NodePolicy:
    return NodePolicy(
        kubernetes_cluster=ClusterId("c"),
        node=NodeName("n"),
        sets={},
        programs={DENY_ALL: Program((Rule("w/all", Action.DENY, None, (), None),))},
        pods=tuple(
            PodBinding(uid, "ns", uid, (), (DENY_ALL,), ()) for uid in ("pod", "odd", "elsewhere")
        ),
        binding=NodeBinding((), inbound, None, None),
        control_plane=(),
    )


def test_bound_pods_get_rules_others_none_and_the_inexpressible_a_reason() -> None:
    for order in itertools.permutations((NODE, POD, FREE, ODD)):
        planned = plan(_policy(DENY_ALL), order, Recorder())
        frames = {place: ruleset and ruleset.frame for place, ruleset in planned.rulesets.items()}
        assert frames == {NODE: "chain node", POD: "chain pod", FREE: None}
        assert planned.problems == {ODD: "cannot be said"}


def test_a_node_that_nothing_governs_and_an_empty_directive_leave_no_rules() -> None:
    assert plan(_policy(), [NODE], Recorder()).rulesets == {NODE: None}
    everywhere = plan(None, [NODE, POD, FREE, ODD], Recorder())
    assert set(everywhere.rulesets.values()) == {None}
    assert not everywhere.problems


def test_a_namespace_whose_counters_cannot_be_read_costs_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(path: Path, *, elements: bool) -> None:
        raise NftError("out of memory")

    monkeypatch.setattr(nft, "list_table", refuse)
    enforcer = Enforcer(Recorder())
    enforcer._held[POD] = Held(Ruleset("chain pod", {}, (), {}))
    others = np.zeros(1, DROP_DTYPE)
    others["netns"] = NODE.inode
    enforcer.read_drops(others, {POD: (), NODE: ()})
    ((drops, _),) = enforcer.ledger.take()
    assert len(batch.decode(batch.DROPS, drops)) == 1
    assert POD in enforcer._held
    assert not enforcer.tampered


def test_a_program_without_an_end_never_reaches_a_plan() -> None:
    with pytest.raises(InputError):
        Program(())
