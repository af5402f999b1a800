"""What the kernel tells of a pod's rules, written down for tests that need no kernel.

python -m tests.golden.listing    (as root) writes it anew, a file for each mechanism
"""

import json
from pathlib import Path

from ringfence.agent.mechanisms import MECHANISMS, Kind
from ringfence.kernel.rules import Listing
from ringfence.policy.compile import compile_policies
from ringfence.policy.program import NodePolicy, PodBinding
from tests.golden.shop import policy_set
from tests.golden.test_rules import CONTROL_PLANE, EXAMPLES
from tests.kernel.netns import namespace

FILES = {
    Kind.NFTABLES: "front-end.nft.json",
    Kind.IPTABLES_NFT: "front-end.iptables-nft.json",
    Kind.IPTABLES_LEGACY: "front-end.iptables-legacy.json",
}


def file(kind: Kind) -> Path:
    return Path(__file__).parent / "expected" / FILES[kind]


def recorded(kind: Kind) -> Listing:
    """The rules as they were written down."""
    return [json.loads(line) for line in file(kind).read_text().splitlines()]


def front_end() -> tuple[NodePolicy, PodBinding]:
    """What the shop's node enforces, and the pod whose rules are written down."""
    compiled = compile_policies(policy_set(*EXAMPLES.values()), CONTROL_PLANE)
    (policy,) = (p for p in compiled.policies.values() if p.node == "node1")
    (pod,) = (pod for pod in policy.pods if pod.name.startswith("front-end"))
    return policy, pod


def listed(kind: Kind) -> Listing:
    """The rules of now, in a fresh namespace, as the kernel tells them."""
    mechanism = MECHANISMS[kind]
    backend = mechanism.backend()
    with namespace("listing") as where:
        commands = backend.transaction(backend.render_pod(*front_end()), None)
        mechanism.door.apply(where.path, commands)
        return mechanism.door.list_table(where.path) or []


def main() -> None:
    for kind in Kind:
        file(kind).write_text("\n".join(map(json.dumps, listed(kind))) + "\n")


if __name__ == "__main__":
    main()
