"""What enforcement costs: rules in the kernel, in a network namespace of their own.

    make bench-enforcement    (as root)

Times are of the wall clock, and of the processor, the kernel's part included.
"""

import random
import secrets
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from bench import change_cost, compile_cost
from bench.company import EAST, Company, found, policy
from ringfence.kernel import nft
from ringfence.model.ids import NodeName, PolicyId
from ringfence.model.policy import Action, CatchAll, FilterEnd, Policy, ServiceEnd
from ringfence.model.query import parse
from ringfence.policy.backends.nftables import Nftables
from ringfence.policy.compile import compile_policies
from ringfence.policy.order import PolicySet
from ringfence.policy.proof.prove import prove

WORKLOADS, POLICIES, RUNS = 1_000, 500, 5
POD = "app-7-0"


def main() -> None:
    compile_cost.main()
    change_cost.main()
    proof()


def proof() -> None:
    """Read-back and proof of a pod's rules after a change."""
    company = found(WORKLOADS, 0)
    compiled = compile_policies(about_one_pod(company), ())
    node = next(item.node for item in company.items if item.name == POD)
    decided = compiled.policies[EAST, NodeName(node)]
    (binding,) = (pod for pod in decided.pods if pod.name == POD)
    bound = (*binding.inbound, *binding.outbound)
    rules = sum(len(decided.programs[program].rules) for program in bound)
    backend = Nftables()
    with namespace() as path:
        nft.apply(path, backend.transaction(backend.render_pod(decided, binding), None))
        took = []
        for _ in range(RUNS):
            begun, busy = time.monotonic(), time.process_time()
            listed = nft.list_table(path) or []
            read = time.monotonic()
            proved = prove(decided, binding, listed)
            ended = time.monotonic()
            took.append((ended - begun, read - begun, time.process_time() - busy))
    assert not proved.differing, proved
    whole, reading, busy = min(took)
    print(f"read-back and proof, a pod with {POLICIES} policies: {whole:.2f} s (target 1 s)")
    print(f"  {reading:.2f} s of it reading; {busy:.2f} s of the processor")
    print(
        f"  {rules} rules of the program, {len(listed):,} objects of nftables,"
        f" {proved.classes:,} classes of packets"
    )


def about_one_pod(company: Company) -> PolicySet:
    """As many policies whose provider or consumer is one application, whose scope denies."""
    chance = random.Random(1)
    names = [scope.name for scope in company.tree.preorder()]
    said = tuple(
        about_one(policy(number, WORKLOADS // 4, names, chance), number)
        for number in range(POLICIES)
    )
    workspace, version = company.enforced[0]
    stated = replace(workspace, policies=said, catch_all=CatchAll(Action.DENY, Action.DENY))
    return PolicySet(company.snapshot, company.tree, [(stated, version)])


def about_one(drawn: Policy, number: int) -> Policy:
    """The policy with the application in the place of one of its ends."""
    mine = FilterEnd(parse('kubernetes.label.app = "app-7"'))
    if isinstance(drawn.provider, ServiceEnd) or number % 2:
        return replace(drawn, id=PolicyId(f"p{number}"), consumer=mine)
    return replace(drawn, id=PolicyId(f"p{number}"), provider=mine)


@contextmanager
def namespace() -> Iterator[Path]:
    """A fresh network namespace."""
    name = f"rf-bench-{secrets.token_hex(4)}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        yield Path("/run/netns") / name
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)


if __name__ == "__main__":
    main()
