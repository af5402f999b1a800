"""How long wrong rules stand: until tampering is repaired, and until a version is rolled back."""

import random
import threading
import time
from contextlib import ExitStack, closing
from dataclasses import replace
from itertools import pairwise

from bench.company import EAST, Company, found
from bench.enforcement import POD, POLICIES, WORKLOADS, about_one_pod, namespace
from bench.figures import load
from ringfence.agent.enforce import Enforcer
from ringfence.agent.plan import Order
from ringfence.agent.pods import Place
from ringfence.kernel import nft
from ringfence.kernel.netns import inode
from ringfence.kernel.nft_watch import TableWatch
from ringfence.model.ids import NodeName
from ringfence.policy.backends.nftables import Nftables
from ringfence.policy.compile import compile_policies
from ringfence.policy.order import PolicySet
from ringfence.policy.program import NodePolicy, decode, encode

RUNS, LOOK_SECONDS = 10, 1.0
"""Seconds between two looks of an agent."""
PODS = 20


def main() -> None:
    company = found(WORKLOADS, 0)
    now = about_one_pod(company)
    with ExitStack() as stack:
        places = {
            pod.uid: Place(pod.uid, path, inode(path))
            for pod in _compiled(company, now).pods[:PODS]
            for path in [stack.enter_context(namespace())]
        }
        enforcer = stack.enter_context(closing(Enforcer(Nftables(), listen=TableWatch)))
        repair(enforcer, _compiled(company, now), list(places.values()))
        rollback(enforcer, company, now, list(places.values()))


def repair(enforcer: Enforcer, policy: NodePolicy, places: list[Place]) -> None:
    """From a rule that somebody adds to the rules that are wanted, as an agent looks after them."""
    order = Order(1, policy)
    assert not enforcer.apply(order, places).problem
    stopping, took = threading.Event(), []

    def look() -> None:
        while not stopping.wait(LOOK_SECONDS):
            enforcer.hear()
            if enforcer.tampered:
                enforcer.apply(order, places)

    looking = threading.Thread(target=look)
    looking.start()
    try:
        for place in random.Random(1).choices(places, k=RUNS):
            time.sleep(random.uniform(0, LOOK_SECONDS))
            good = nft.fingerprint(nft.list_table(place.netns) or [])
            nft.apply(place.netns, "insert rule inet ringfence rf_input accept\n")
            begun = time.monotonic()
            while nft.fingerprint(nft.list_table(place.netns) or []) != good:
                time.sleep(0.01)
            took.append(time.monotonic() - begun)
    finally:
        stopping.set()
        looking.join()
    print(
        f"tampering repaired, a node with {len(places)} pods, one of {POLICIES} policies:"
        f" p50 {sorted(took)[RUNS // 2]:.2f} s, at most {max(took):.2f} s (target 2 s)"
    )


def rollback(enforcer: Enforcer, company: Company, now: PolicySet, places: list[Place]) -> None:
    """From the version that is wanted to its rules, proved, on one node; the network aside."""
    workspace, version = now.enforced[0]
    fewer = replace(workspace, policies=workspace.policies[1:])
    before = PolicySet(company.snapshot, company.tree, [(fewer, version)])
    took = []
    for number in range(RUNS):
        begun, busy = time.monotonic(), time.process_time()
        policy = decode(encode(_compiled(company, (before, now)[number % 2])))
        steps = enforcer.steps(Order(2 + number, policy), places)
        marks = [begun, time.monotonic()]
        for at, _ in enumerate(steps):
            if not at:
                marks.append(time.monotonic())
        marks += [time.monotonic()] * (4 - len(marks))
        took.append((marks[-1] - begun, time.process_time() - busy, marks))
        assert not enforcer.outcome.problem, enforcer.outcome.problem
    whole, busy, marks = sorted(took)[RUNS // 2]
    print(
        f"version rolled back, {WORKLOADS} pods, {POLICIES} policies, at a node with {len(places)}:"
        f" p50 {whole:.2f} s, at most {max(took)[0]:.2f} s (target 5 s), {load()}"
    )
    parts = ", ".join(f"{end - start:.2f} s" for start, end in pairwise(marks))
    print(f"  {busy:.2f} s of the processor; compiled in, written in, proved in {parts}")


def _compiled(company: Company, policy_set: PolicySet) -> NodePolicy:
    """What the node of the pod enforces, that pod first."""
    node = next(item.node for item in company.items if item.name == POD)
    policy = compile_policies(policy_set, ()).policies[EAST, NodeName(node)]
    governed = [pod for pod in policy.pods if pod.inbound or pod.outbound]
    return replace(policy, pods=tuple(sorted(governed, key=lambda pod: pod.name != POD)))


if __name__ == "__main__":
    main()
