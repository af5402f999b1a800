"""Changes to an approved workspace, as they are accepted, and for how long a policy is unused."""

from dataclasses import replace

import pytest

from ringfence.control.comparison import Known, silence
from ringfence.discovery.changes import ChangeKind, changed, changes
from ringfence.model.ids import PolicyId, ScopeName, WorkspaceName
from ringfence.model.policy import (
    Action,
    CatchAll,
    Cluster,
    ClusterEnd,
    OutsideEnd,
    Policy,
    Workspace,
)
from ringfence.model.protocol import TCP, PortRange
from ringfence.model.query import parse

DAY = 24 * 3600 * 10**9
NOW = 1_000 * DAY
CARTS, ORDERS = (Cluster(name, parse(f'name = "{name}"')) for name in ("carts", "orders"))
HTTP, HTTPS = PortRange(80, 80), PortRange(443, 443)


def policy(said: str, cluster: str, *ports: PortRange, review: str = "") -> Policy:
    ends = ClusterEnd(cluster), OutsideEnd()
    return Policy(PolicyId(said), *ends, TCP, ports, Action.ALLOW, review=review)


def workspace(*policies: Policy, clusters: tuple[Cluster, ...] = (CARTS,)) -> Workspace:
    deny = CatchAll(Action.DENY, Action.DENY)
    return Workspace(WorkspaceName("w"), ScopeName("w"), True, deny, clusters, policies)


def accepted(approved: Workspace, proposed: Workspace) -> Workspace:
    """With all that differs."""
    made = changed(approved, proposed, list(changes(approved, proposed, NOW)))
    assert list(changes(made, proposed, NOW)) == [], "what was accepted differs no more"
    return made


def test_what_is_accepted_leaves_the_rest_as_it_was() -> None:
    deny = replace(policy("no", "carts", HTTP), action=Action.DENY, owner="ann")
    old = replace(policy("out", "carts", HTTP), owner="ann", ticket="T-1")
    made = accepted(workspace(deny, old), workspace(policy("out", "carts", HTTP, HTTPS)))
    assert made.policies == (deny, replace(old, ports=(HTTP, HTTPS)))
    made = accepted(workspace(deny, old), workspace())
    assert made.policies == (deny,)


def test_a_name_that_is_taken_is_taken_from_nobody() -> None:
    approved = workspace(replace(policy("out", "carts", HTTP), action=Action.DENY))
    proposed = workspace(policy("out", "orders", HTTP), clusters=(replace(ORDERS, name="orders"),))
    made = accepted(approved, proposed)
    assert [one.id for one in made.policies] == ["out", "out-2"]
    assert made.clusters == (CARTS, ORDERS)
    other = replace(ORDERS, name="carts")
    made = accepted(approved, workspace(policy("more", "carts", HTTP), clusters=(other,)))
    assert made.clusters == (CARTS, replace(ORDERS, name="carts-2"))
    assert made.policies[1].consumer == ClusterEnd("carts-2")


def test_what_awaits_review_takes_no_policys_place() -> None:
    old, look = policy("out", "carts", HTTP), policy("out", "carts", HTTPS, review="alone")
    made = accepted(workspace(old), workspace(look))
    assert made.policies == (old, replace(look, id=PolicyId("out-2")))
    assert accepted(made, workspace(old, replace(look, id=PolicyId("x")))) == made
    sure = policy("out-2", "carts", HTTPS)
    assert accepted(made, workspace(old, sure)).policies == (old, sure)


@pytest.mark.parametrize(
    ("known", "last_ns", "since_ns", "said"),
    [
        (Known(), None, NOW - DAY, "no traffic for 1 day, all that is known"),
        (Known(NOW - 12 * DAY), None, NOW - 30 * DAY, "never since it was made 12 days ago"),
        (
            Known(NOW - 90 * DAY, NOW - 40 * DAY),
            None,
            NOW - DAY,
            "no traffic for 40 days, all that is known",
        ),
        (
            Known(NOW - 90 * DAY, NOW - 40 * DAY),
            NOW - 30 * DAY,
            NOW - DAY,
            "no traffic for 30 days",
        ),
        (Known(NOW - 90 * DAY), NOW - 30 * DAY, NOW - DAY, "no traffic for 1 day"),
        (Known(NOW - 90 * DAY), None, NOW + DAY, "nothing was seen in this time"),
    ],
)
def test_nothing_is_unused_for_longer_than_anybody_looked(
    known: Known, last_ns: int | None, since_ns: int, said: str
) -> None:
    assert silence(known, last_ns, since_ns, NOW) == said


def test_another_port_makes_no_policy_more_general() -> None:
    old, new = policy("out", "carts", HTTP), policy("out", "carts", HTTPS)
    told = [(one.kind, one.policy) for one in changes(workspace(old), workspace(new), NOW)]
    assert told == [(ChangeKind.ADDED, new), (ChangeKind.UNUSED, old)]
    assert accepted(workspace(old), workspace(new)).policies == (new,)
