"""What a real kernel's nft told of a pod's rules, proved; and with one thing less, refuted."""

import json
from collections import Counter
from typing import Any

import pytest

from ringfence.agent.mechanisms import MECHANISMS, Kind
from ringfence.kernel.rules import Listing
from ringfence.policy.backends.marks import DROP_MARK
from ringfence.policy.proof.prove import Proof, prove
from tests.golden.listing import front_end, recorded

LISTED = recorded(Kind.NFTABLES)
RULES = [found["rule"] for found in LISTED if "rule" in found]


IPTABLES = Kind.IPTABLES_NFT, Kind.IPTABLES_LEGACY


def proved(objects: list[dict[str, Any]], kind: Kind = Kind.NFTABLES) -> Proof:
    return prove(*front_end(), objects, MECHANISMS[kind].read)


def test_what_the_kernel_told_is_what_the_policy_says() -> None:
    proof = proved(LISTED)
    assert not proof.differing, str(proof)
    assert len(RULES) >= 50
    assert proof.classes > 100


def test_without_any_one_rule_the_proof_fails() -> None:
    """But for those of which the proof says that they decide nothing.

    The pod's peers have no IPv6 addresses, so that its last rule drops all that is sent to any.
    """
    idle = [
        rule["chain"]
        for rule in RULES
        if not proved([found for found in LISTED if found.get("rule") is not rule]).differing
    ]
    # What is dropped is dropped, remembered or not, and whether its sender hears of it or not.
    counting = ["rf_drop"] * 2 + [rule["chain"] for rule in RULES if rule["chain"] == "rf_denied"]
    assert Counter(idle) == Counter({"rf_input_6": 1, "rf_output_6": 6}) + Counter(counting)


def test_without_any_one_element_of_a_set_the_proof_fails() -> None:
    used = json.dumps(RULES)
    for found in LISTED:
        body = found.get("set", {})
        for at in range(len(body.get("elem", ()))):
            fewer = {**body, "elem": [each for i, each in enumerate(body["elem"]) if i != at]}
            proof = proved([{"set": fewer} if one is found else one for one in LISTED])
            assert f"@{body['name']}" in used
            assert proof.differing, body["name"]


def test_in_another_order_of_rules_the_proof_fails() -> None:
    """The last rule of a chain, which drops or accepts whatever comes, before the others."""
    for chain in ("rf_input_4", "rf_input_6", "rf_output_4"):
        *others, last = [rule for rule in RULES if rule["chain"] == chain]
        rest = [one for one in LISTED if one.get("rule", {}).get("chain") != chain]
        moved = [*rest, *({"rule": rule} for rule in (last, *others))]
        assert proved(moved).differing, chain


@pytest.mark.parametrize("kind", IPTABLES)
def test_what_the_kernel_told_of_iptables_is_what_the_policy_says(kind: Kind) -> None:
    proof = proved(recorded(kind), kind)
    assert not proof.differing, str(proof)
    assert proof.classes > 100


def test_both_variants_of_iptables_tell_one_thing() -> None:
    legacy, nft = (MECHANISMS[kind].door.fingerprint(recorded(kind)) for kind in IPTABLES)
    assert legacy == nft


def _text(found: dict[str, Any]) -> str:
    """A rule but for its comment."""
    return str(found.get("rule", {}).get("text", ""))


def test_without_any_one_rule_of_iptables_the_proof_fails() -> None:
    """But for those that count or silence, and one that drops ahead of what drops all IPv6."""
    listed = recorded(Kind.IPTABLES_NFT)
    idle = [
        _text(found).split()[1]
        for found in listed
        if "rule" in found and not proved(_without(listed, found), Kind.IPTABLES_NFT).differing
    ]
    counting = [_text(found).split()[1] for found in listed if _counts(_text(found))]
    assert Counter(idle) == Counter([*counting, "RINGFENCE-OUTPUT"])


def _counts(text: str) -> bool:
    return "rf_drop_" in text or f"-j MARK --set-xmark {DROP_MARK:#x}" in text or "NFQUEUE" in text


def _without(listed: Listing, one: dict[str, Any]) -> Listing:
    return [found for found in listed if found is not one]


def test_without_any_one_address_or_jump_of_iptables_the_proof_fails() -> None:
    listed = recorded(Kind.IPTABLES_LEGACY)
    for found in listed:
        if "jump" in found:
            assert proved(_without(listed, found), Kind.IPTABLES_LEGACY).differing
        body = found.get("set", {})
        for element in body.get("elem", ()):
            fewer = {**body, "elem": [one for one in body["elem"] if one is not element]}
            changed = [{"set": fewer} if one is found else one for one in listed]
            assert proved(changed, Kind.IPTABLES_LEGACY).differing, body["name"]
