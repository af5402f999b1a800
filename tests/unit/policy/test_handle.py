"""Handles: readable, harmless, and one for each rule."""

import re
from dataclasses import replace

import pytest

from ringfence.model.ids import PolicyId, ScopeName, Version, WorkspaceName
from ringfence.model.policy import Action
from ringfence.model.verdict import Decision, Layer, Stage
from ringfence.policy.handle import format_handle, tell_decision, tell_handle


def decision(workspace: str, policy: str | None) -> Decision:
    stage = Stage.CATCH_ALL if policy is None else Stage.DEFAULT
    name = None if policy is None else PolicyId(policy)
    scope, version = ScopeName("s"), Version(3)
    return Decision(
        Layer.RINGFENCE, stage, scope, WorkspaceName(workspace), version, name, 0, Action.ALLOW
    )


def test_a_handle_reads_as_what_it_names() -> None:
    named = decision("sock-shop", "frontend-to-carts")
    assert format_handle(named) == "default/sock-shop/p3/frontend-to-carts"
    assert format_handle(named, widened=True) == "default/sock-shop/p3/frontend-to-carts+widened"
    assert format_handle(decision("sock-shop", None)) == "catch-all/sock-shop/p3"


@pytest.mark.parametrize("widened", [False, True])
def test_a_handle_is_told_as_people_write_the_policy(widened: bool) -> None:
    for name, said in (("carts to db", "carts to db"), (None, "catch-all")):
        handle = format_handle(decision("sock-shop", name), widened=widened)
        assert tell_handle(handle) == f"sock-shop/{said}@p3"
        assert tell_decision(decision("sock-shop", name)) == tell_handle(handle)
    long = decision("all", "several-of-shop-production-to-payment-gateway-in-backoffice")
    assert tell_handle(format_handle(long)) == f"all/{long.policy}@p3", "a short workspace's"
    longer = decision("all", "x" * 80)
    assert "~" in tell_handle(format_handle(longer))
    assert tell_decision(longer) == f"all/{longer.policy}@p3"
    assert tell_handle("mid-stream") == "mid-stream"


def test_a_handle_of_the_kubernetes_layer() -> None:
    def made(policy: str | None, rule: str) -> Decision:
        held = decision("", policy)
        return replace(held, layer=Layer.KUBERNETES, stage=Stage.NETWORK_POLICY, rule=rule)

    handle = format_handle(made("NetworkPolicy/shop/db", "ingress[0]"), widened=True)
    assert handle == "kubernetes/NetworkPolicy/shop/db/ingress%5B0%5D+widened"
    assert tell_handle(handle) == "NetworkPolicy/shop/db ingress[0]"
    assert tell_handle(format_handle(made(None, "own-node"))) == "network-policy own-node"
    for one in (made("NetworkPolicy/shop/db", "ingress[0]"), made(None, "own-node")):
        assert tell_decision(one) == tell_handle(format_handle(one))
    longest = "NetworkPolicy/" + "s" * 63 + "/" + "n" * 200
    assert len(format_handle(made(longest, "egress[99]"), widened=True)) <= 100


def test_hostile_names_are_escaped_and_kept_apart() -> None:
    names = ["a", "a/b", 'quote"; drop', "new\nline", "ümläut", "+widened", "%", "~", "a" * 36]
    handles = {
        format_handle(decision(workspace, policy), widened=widened)
        for workspace in names
        for policy in (None, *names)
        for widened in (False, True)
    }
    assert len(handles) == len(names) * (len(names) + 1) * 2
    for handle in handles:
        assert re.fullmatch(r"[A-Za-z0-9_.:/%~+-]{1,100}", handle)


def test_long_names_stay_within_bounds_and_apart() -> None:
    names = ["x" * 200 + tail for tail in "ab"] + ["ä" * n for n in range(100, 110)]
    # The SHA-256 digests of these two share their first 32 bits.
    names += [f"allow-checkout-to-the-payment-gateway-{n}" for n in (9817, 64973)]
    handles = {format_handle(decision(name, name), widened=True) for name in names}
    assert len(handles) == len(names)
    assert max(map(len, handles)) <= 100
