"""What nft tells of a pod's rules in the kernel, written down for tests that need no kernel.

python -m tests.golden.listing    (as root) writes it anew
"""

import json
from pathlib import Path
from typing import Any

from ringfence.kernel import nft
from ringfence.policy.backends.nftables import Nftables
from ringfence.policy.compile import compile_policies
from ringfence.policy.program import NodePolicy, PodBinding
from tests.golden.shop import policy_set
from tests.golden.test_rules import CONTROL_PLANE, EXAMPLES
from tests.kernel.netns import namespace

FILE = Path(__file__).parent / "expected" / "front-end.nft.json"


def front_end() -> tuple[NodePolicy, PodBinding]:
    """What the shop's node enforces, and the pod whose rules are written down."""
    compiled = compile_policies(policy_set(*EXAMPLES.values()), CONTROL_PLANE)
    (policy,) = (p for p in compiled.policies.values() if p.node == "node1")
    (pod,) = (pod for pod in policy.pods if pod.name.startswith("front-end"))
    return policy, pod


def listed() -> list[dict[str, Any]]:
    """The rules of now, in a fresh namespace, as the kernel's nft tells them."""
    backend = Nftables()
    with namespace("listing") as where:
        nft.apply(where.path, backend.transaction(backend.render_pod(*front_end()), None))
        return nft.list_table(where.path) or []


def main() -> None:
    FILE.write_text("\n".join(map(json.dumps, listed())) + "\n")


if __name__ == "__main__":
    main()
