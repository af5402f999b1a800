"""How long one change among 10,000 pods takes to rules in the kernel: from the news of an item to
the rules of a node's 100 pods, each a network namespace; the network between is not in it.

The company and the changes are those of `change_cost`, in an order of their own. The control plane
compiles each; what changes nothing for the node is not counted, and of the others the node's agent
reads the directive and writes the rules. `python -m bench.change_live [changes]` (as root).
"""

import random
import sys
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from bench.change_cost import CHANGED, Cluster, percentiles
from bench.company import EAST
from bench.compile_cost import NAMESPACES, PODS, POLICIES, scopes, workspaces
from bench.enforcement import namespace
from bench.figures import load
from ringfence.agent.enforce import Enforcer
from ringfence.agent.plan import Order, read_policy
from ringfence.agent.pods import Place
from ringfence.control.compilation import Standing
from ringfence.control.judged import JudgedBy
from ringfence.kernel import nft
from ringfence.kernel.netns import inode
from ringfence.kernel.nft_watch import TableWatch
from ringfence.model.ids import NodeName
from ringfence.model.scope import ScopeTree
from ringfence.policy.backends.nftables import Nftables
from ringfence.policy.moment import Moment
from ringfence.policy.nodes import Surroundings

CHANGES = 100
"""Counted of each kind."""
HERE = NodeName("node-0")


class Marked:
    """nftables, and when it last took commands."""

    def __init__(self) -> None:
        self.taken = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(nft, name)

    def apply(self, netns: Path, commands: str) -> None:
        nft.apply(netns, commands)
        self.taken = time.monotonic()


class Node:
    """The agent of a node, and a network namespace for each pod that it runs."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._places: dict[str, Place] = {}
        self._door = Marked()
        enforcer = Enforcer(Nftables(), self._door, listen=TableWatch)
        self._enforcer = stack.enter_context(closing(enforcer))
        self._orders = 0

    def runs(self, cluster: Cluster) -> list[Place]:
        """The places of the node's pods, made where they are wanting."""
        here = [pod.name for pod in cluster.pods if pod.node == HERE]
        for name in here:
            if name not in self._places:
                path = self._stack.enter_context(namespace())
                self._places[name] = Place(name, path, inode(path))
        return [self._places[name] for name in here]

    def write(self, directive: bytes, places: list[Place]) -> tuple[float, float]:
        """When the rules stand in the kernel, and when what they deny of open connections is cut.

        They are proved before this returns.
        """
        self._orders += 1
        steps = self._enforcer.steps(Order(self._orders, read_policy(directive)), places)
        next(steps, None)
        stood, cut = self._door.taken, time.monotonic()
        for _ in steps:
            pass
        assert not self._enforcer.outcome.problem, self._enforcer.outcome.problem
        return stood, cut


def main() -> None:
    wanted = int(sys.argv[1]) if len(sys.argv) > 1 else CHANGES
    judged_by = JudgedBy(ScopeTree(scopes()), tuple(workspaces(random.Random(1))))
    cluster, standing = Cluster(), Standing(Surroundings())
    with ExitStack() as stack:
        node = Node(stack)
        first = standing.compile(judged_by, cluster.first, Moment()).nodes[EAST, HERE]
        node.write(first, node.runs(cluster))
        print(
            f"one change among {PODS:,} pods, {NAMESPACES:,} namespaces, {POLICIES:,} policies, to"
            f" rules at a node with {len(node.runs(cluster))} pods (targets 100, 500 ms), {load()}"
        )
        for kind, change in CHANGED.items():
            took: list[tuple[float, float]] = []
            before, number = first, 0
            while len(took) < wanted:
                news, number = change(cluster, number), number + 1
                places, begun = node.runs(cluster), time.monotonic()
                directive = standing.compile(judged_by, news, Moment()).nodes[EAST, HERE]
                if directive != before:
                    stood, cut = node.write(directive, places)
                    took.append((1000 * (stood - begun), 1000 * (cut - begun)))
                before = directive
            first = before
            stood_ms, cut_ms = map(list, zip(*took, strict=True))
            print(
                f"  {kind}, {wanted} of {number:,} changes: in force {percentiles(stood_ms, 'ms')}"
            )
            print(f"    open connections cut: {percentiles(cut_ms, 'ms')}", flush=True)


if __name__ == "__main__":
    main()
