"""A plan that goes by the one before is the plan that would be made without it."""

from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from ringfence.agent.plan import plan
from ringfence.agent.pods import Place
from ringfence.policy.backends.nftables import Nftables
from ringfence.policy.program import NodePolicy, PodBinding
from tests.property.program_world import IN, NODE, OUT, POD, RECEIVED, policies

PODS = tuple(
    PodBinding(f"{POD}-{at}", "shop", "pod", (), inbound, outbound)
    for at, (inbound, outbound) in enumerate([((IN,), ()), ((), (OUT,)), ((RECEIVED, IN), (OUT,))])
)
PLACES = [Place(uid, Path(uid), at) for at, uid in enumerate([NODE, *(pod.uid for pod in PODS)])]


@st.composite
def histories(draw: st.DrawFn) -> list[NodePolicy]:
    """Policies of which each differs from the one before in few things, or in nothing."""
    drawn = draw(st.lists(policies(), min_size=2, max_size=4))
    now = replace(drawn[0], pods=PODS)
    history = [now]
    for other in drawn[1:]:
        sets = draw(st.sets(st.sampled_from(sorted(now.sets)), max_size=2))
        programs = draw(st.sets(st.sampled_from([IN, OUT, RECEIVED]), max_size=1))
        server = draw(st.sampled_from([now, now, other])).control_plane
        now = replace(
            now,
            sets={**now.sets, **{name: other.sets[name] for name in sets}},
            programs={**now.programs, **{name: other.programs[name] for name in programs}},
            pods=tuple(draw(st.permutations(PODS))) if draw(st.booleans()) else now.pods,
            binding=draw(st.sampled_from([now, other])).binding,
            control_plane=server,
        )
        if draw(st.booleans()):
            first, *others = now.pods
            now = replace(now, pods=(replace(first, inbound=(RECEIVED,)), *others))
        history.append(now)
    return history


@given(histories())
def test_what_is_kept_is_what_would_be_made(history: list[NodePolicy]) -> None:
    backend = Nftables()
    before = plan(history[0], PLACES, backend)
    for policy in history[1:]:
        before = plan(policy, PLACES, backend, before=before)
        assert before == plan(policy, PLACES, Nftables())


@given(policies())
def test_the_same_once_more_renders_nothing(policy: NodePolicy) -> None:
    policy = replace(policy, pods=PODS)
    first = plan(policy, PLACES, Nftables())
    again = plan(replace(policy), PLACES, Nftables(), before=first)
    for place in PLACES[1:]:
        assert again.rulesets[place] is first.rulesets[place]
