"""What policy costs: judging connections, filters, reach, and advice, on a made company.

    make bench-policy

Times are of the processor, so that others who keep it busy count little: figures are per core.
"""

import os
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TypeVar

import numpy as np

from bench import netpol
from bench.company import NODES, TIERS, Company, found, traffic
from ringfence.inventory.index import LabelIndex
from ringfence.model.ids import Version
from ringfence.model.labels import make_labels
from ringfence.model.query import parse
from ringfence.policy.evaluate import evaluate
from ringfence.policy.lint import lint
from ringfence.policy.oracle import Oracle
from ringfence.policy.order import PolicySet
from ringfence.policy.reach import Survey
from ringfence.policy.reachable import gained, outbound
from ringfence.policy.requests import needed

T = TypeVar("T")
FLOWS, IDENTITIES, OF_ORACLE = 1_000_000, 50_000, 200
LABELLED = 100_000


def main() -> None:
    company = found(1_000, 500)
    depth = max(len(company.tree.path(scope.name)) for scope in company.tree.preorder())
    print(f"1,000 pods, 500 policies, {len(company.tree.preorder())} scopes, depth {depth}")
    evaluator(company)
    filters()
    reach()
    advice()
    if "RINGFENCE_CORPORA" in os.environ:
        netpol.main()


def seconds(work: Callable[[], T]) -> tuple[float, T]:
    """The least of three runs."""
    took = []
    for _ in range(3):
        begun = time.process_time()
        answer = work()
        took.append(time.process_time() - begun)
    return min(took), answer


def evaluator(company: Company) -> None:
    """Verdicts and deciding policies, by the evaluator and by the oracle that it is held against.

    Each run makes the tables of the rules anew.
    """
    snapshot, policy_set = company.snapshot, company.policy_set()
    pool = traffic(1_000, IDENTITIES, fresh=False).located(snapshot)
    repeated = pool.take(np.random.default_rng(3).integers(0, IDENTITIES, FLOWS))
    took, verdicts = seconds(lambda: evaluate(policy_set, repeated))
    print(f"repeated, {IDENTITIES:,} tuples: {FLOWS / took:,.0f} flows/s (target 1,000,000)")
    print(f"  {verdicts.allowed.mean():.0%} of them allowed")
    fresh = traffic(1_000, FLOWS, fresh=True)
    cold, verdicts = seconds(lambda: evaluate(policy_set, fresh.located(snapshot)))
    print(f"cold, addresses looked up: {FLOWS / cold:,.0f} flows/s (target 100,000)")
    oracle = Oracle(company.items, company.tree, company.enforced)
    few = fresh.listed(OF_ORACLE)
    begun = time.process_time()
    expected = [oracle.judge(one).allowed for one in few]
    slow = (time.process_time() - begun) / OF_ORACLE
    assert verdicts.allowed[:OF_ORACLE].tolist() == expected
    print(f"oracle, cold: {1 / slow:,.0f} flows/s; evaluator {slow * FLOWS / cold:,.0f} times that")


def filters() -> None:
    """One item for each position; its name is its own, other labels are shared."""
    index = LabelIndex(
        make_labels(
            [
                ("name", f"app-{at % 997}-{at}"),
                ("kubernetes.namespace", f"ns-{at % 50}"),
                ("kubernetes.label.tier", TIERS[at % 3]),
                ("user.env", "prod" if at % 7 else "test"),
            ]
        )
        for at in range(LABELLED)
    )
    labels = 'kubernetes.label.tier = "web" and user.env = "prod"'
    pattern = 'name matches "app-[0-9]*7-.*[02468]"'
    for text, target in (
        (f'{pattern} and kubernetes.namespace = "ns-8" and {labels}', " (target 5 ms)"),
        (f'{pattern} and kubernetes.namespace matches "ns-1." and {labels}', ""),
        (pattern, ""),
    ):
        took, chosen = seconds(partial(index.select, parse(text)))
        print(f"filter over {LABELLED:,}: {took * 1000:.1f} ms{target}, {len(chosen):,} match")
        print(f"  {text}")


def reach() -> None:
    """What one workload reaches, and what a version changes for all of them."""
    company = found(10_000, 1_000)
    old, version = company.policy_set(), company.enforced[0][0]
    fewer = replace(version, policies=version.policies[::2])
    new = PolicySet(company.snapshot, company.tree, [(fewer, Version(2)), *company.enforced[1:]])
    took, told = seconds(lambda: outbound(Survey([old]).judge(0), NODES))
    print(f"reach of one of 10,000 pods, 1,000 policies: {took:.1f} s, {len(told)} groups of peers")

    def compare() -> int:
        survey = Survey([old, new])
        was, will = survey.judge(0), survey.judge(1)
        return len(gained(was, will)) + len(gained(will, was))

    took, lines = seconds(compare)
    print(f"difference in reach of two versions: {took:.1f} s, {lines} lines")


def advice() -> None:
    """What is odd about policies, and which requests they need, for 10,000 pods.

    Beside each, as a measure of the machine, how long reading the same policies takes.
    """
    company = found(10_000, 4_000)
    read, policy_set = seconds(company.policy_set)
    judged = [workspace for workspace, _ in company.enforced]
    took, told = seconds(lambda: lint(policy_set, judged))
    print(f"lint of 4,000 policies, 10,000 pods: {took:.1f} s, {len(told):,} findings")
    print(f"  {took / read:.0f} times as long as reading them")
    company = found(10_000, 1_000)
    read, _ = seconds(company.policy_set)
    workspaces = [workspace for workspace, _ in company.enforced]
    took, asked = seconds(lambda: needed(company.snapshot, company.tree, workspaces))
    print(f"requests of 1,000 policies, 10,000 pods: {took:.2f} s (target 1 s),")
    print(f"  {len(asked.requests)} needed; {took / read:.0f} times as long as reading them")


if __name__ == "__main__":
    main()
