"""What a real kernel's nft told of a pod's rules, proved; and with one thing less, refuted."""

import json
from collections import Counter
from typing import Any

from ringfence.policy.proof.prove import Proof, prove
from tests.golden.listing import FILE, front_end

LISTED = [json.loads(line) for line in FILE.read_text().splitlines()]
RULES = [found["rule"] for found in LISTED if "rule" in found]


def proved(objects: list[dict[str, Any]]) -> Proof:
    return prove(*front_end(), objects)


def test_what_the_kernel_told_is_what_the_policy_says() -> None:
    proof = proved(LISTED)
    assert not proof.differing, str(proof)
    assert len(RULES) > 50
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
    # What is dropped is dropped, remembered or not.
    counting = ["rf_drop", *(rule["chain"] for rule in RULES if rule["chain"] == "rf_denied")]
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
