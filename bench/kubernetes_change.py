"""What one change of a NetworkPolicy costs from the news of it to rules in the kernel; no network.

Two nodes, each with as many pods as are asked for, all in one namespace, as in `live_netpol`; its
policies select all of them. The control plane compiles, its directive is read, and one node's agent
writes the rules of its pods in network namespaces of their own.

Run: `.venv/bin/python -m bench.kubernetes_change [policies] [pods] [changes]` (as root).
"""

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Any

from bench.company import EAST, nodes, v4
from bench.enforcement import namespace
from bench.figures import load
from bench.live_netpol import NAMESPACE, PORT, filler, policy
from ringfence.agent.enforce import Enforcer
from ringfence.agent.plan import Order, read_policy
from ringfence.agent.pods import Place
from ringfence.control.compilation import Standing
from ringfence.control.judged import JudgedBy
from ringfence.inventory.living import News
from ringfence.kernel.netns import inode
from ringfence.kernel.nft_watch import TableWatch
from ringfence.model.ids import NodeName, RevisionId, item_key
from ringfence.model.labels import make_labels
from ringfence.model.manifest import Metadata, PolicyManifest
from ringfence.model.scope import ScopeTree
from ringfence.model.workload import Item, ItemKind
from ringfence.policy.backends.nftables import Nftables
from ringfence.policy.moment import Moment
from ringfence.policy.nodes import Surroundings

FIRST_POD = 10 << 24 | 244 << 16
NODE = EAST, NodeName("node-1")
JUDGED_BY = JudgedBy(ScopeTree(()), (), live=(EAST,))
STEPS = ("compiled", "read", "written", "proved")


def main() -> None:
    policies, of_node, changes = (
        int(given) if given else usual
        for given, usual in zip((*sys.argv[1:], "", "", "")[:3], (640, 1, 20), strict=True)
    )
    at_first = [*nodes(2), space(), *pods(2 * of_node), *map(held, map(filler, range(policies)))]
    with ExitStack() as stack:
        paths = [stack.enter_context(namespace()) for _ in range(of_node)]
        places = [
            Place(one.key.rpartition("/")[2], path, inode(path))
            for one, path in zip(pods(2 * of_node), paths, strict=False)
        ]
        enforcer = stack.enter_context(closing(Enforcer(Nftables(), listen=TableWatch)))
        standing = Standing(Surroundings())
        print(f"{policies} policies, {of_node} pods of the node, {load()}")
        print("  " + told([step(standing, enforcer, places, dict(map(news, at_first)))]))
        for what, one in {
            "one that allows a port to anybody": held(
                policy("one", {"matchLabels": {"app": "server"}}, [{"ports": [{"port": PORT}]}])
            ),
            "one that allows somebody, to all pods": held(filler(10_000)),
        }.items():
            both = (news(one), (one.key, None))
            taken = [step(standing, enforcer, places, dict([now])) for now in both * changes]
            print(f"  {what}, created and deleted: {told(taken)}")


def step(standing: Standing, enforcer: Enforcer, places: list[Place], fresh: News) -> list[float]:
    """Milliseconds from the news to each of the steps."""
    begun, marks = time.process_time(), []

    def mark() -> None:
        marks.append((time.process_time() - begun) * 1000)

    compiled = standing.compile(JUDGED_BY, fresh, Moment())
    mark()
    order = Order(1, read_policy(compiled.nodes[NODE]))
    mark()
    for number, _ in enumerate(enforcer.steps(order, places)):
        if not number:
            mark()
    assert not enforcer.outcome.problem, enforcer.outcome.problem
    marks += [marks[-1]] * (len(STEPS) - 1 - len(marks))
    mark()
    return marks


def told(taken: list[list[float]]) -> str:
    """The medians."""
    middle = [sorted(column)[len(column) // 2] for column in zip(*taken, strict=True)]
    return ", ".join(f"{name} {at:.0f} ms" for name, at in zip(STEPS, middle, strict=True))


def news(one: Item) -> tuple[Any, Any]:
    """The item as news."""
    return one.key, (RevisionId(1), one)


def space() -> Item:
    """The namespace of the pods."""
    labels = make_labels([("kind", "namespace"), ("kubernetes.namespace", NAMESPACE)])
    key = item_key(EAST, "namespace", NAMESPACE)
    return Item(key, ItemKind.NAMESPACE, EAST, "", NAMESPACE, (), labels)


def pods(count: int) -> Iterator[Item]:
    """Servers on one node, and then as many clients on the other."""
    for at in range(count):
        app, node = ("server", "node-1") if at < count / 2 else ("client", "node-0")
        labels = make_labels(
            [
                ("kind", "pod"),
                ("kubernetes.cluster", EAST),
                ("kubernetes.namespace", NAMESPACE),
                ("kubernetes.label.app", app),
            ]
        )
        name, addresses = f"pod-{at}", (v4(FIRST_POD + at),)
        key = item_key(EAST, "pod", name)
        yield Item(key, ItemKind.POD, EAST, NAMESPACE, name, addresses, labels, node)


def held(written: dict[str, Any]) -> Item:
    """A policy as the inventory has it."""
    name = written["metadata"]["name"]
    says = PolicyManifest(
        written["apiVersion"], written["kind"], Metadata(name, NAMESPACE), written["spec"]
    )
    key = item_key(EAST, "kubernetes-policy", name)
    kind = ItemKind.KUBERNETES_POLICY
    return Item(key, kind, EAST, NAMESPACE, name, (), {}, manifest=str(says))


if __name__ == "__main__":
    main()
