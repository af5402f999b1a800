"""What Kubernetes' policies cost from the news of them to rules in the kernel; no network between.

Two nodes, each with as many pods as are asked for, all in one namespace, as in `live_netpol`; its
policies select all of them. The control plane compiles, its directive is read, and one node's agent
writes the rules of its pods in network namespaces of their own. First all at once, then one change
after another; and what 200 pods that 200 may call come to.

Run: `.venv/bin/python -m bench.kubernetes_change [policies] [pods] [changes]` (as root).
"""

import re
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from itertools import islice
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
from ringfence.kernel import nft
from ringfence.kernel.netns import inode
from ringfence.kernel.nft_watch import TableWatch
from ringfence.model.ids import ItemKey, NodeName, RevisionId, item_key
from ringfence.model.labels import make_labels
from ringfence.model.manifest import Metadata, PolicyManifest
from ringfence.model.scope import ScopeTree
from ringfence.model.workload import Item, ItemKind
from ringfence.policy.backends.nftables import Nftables
from ringfence.policy.moment import Moment
from ringfence.policy.nodes import Surroundings

SERVER = {"matchLabels": {"app": "server"}}
FIRST_POD = 10 << 24 | 244 << 16
NODE = EAST, NodeName("node-1")
JUDGED_BY = JudgedBy(ScopeTree(()), (), live=(EAST,))
STEPS = ("compiled", "read", "written", "proved")


def main() -> None:
    given = [int(one) for one in sys.argv[1:]]
    if given:
        policies, of_node, changes = given
        measure(policies, of_node, changes)
        return
    measure(640, 1, 20)
    measure(640, 100, 1)
    many_to_many()


def measure(policies: int, of_node: int, changes: int) -> None:
    """Print how long all the policies take, and then each of some changes."""
    at_first = [*nodes(2), space(), *pods(2 * of_node), *map(held, map(filler, range(policies)))]
    with ExitStack() as stack:
        places = list(made(stack, of_node))
        enforcer = stack.enter_context(closing(Enforcer(Nftables(), listen=TableWatch)))
        standing = Standing(Surroundings())
        print(f"{policies} policies of all pods, {of_node} pods of the node, {load()}")
        print(f"  all of them: {told([step(standing, enforcer, places, at_first)])}")
        port = [{"ports": [{"port": PORT}]}]
        for what, one in {
            "one that lets anybody to a port of a pod": policy("one", SERVER, port),
            "one that lets somebody to all pods": filler(10_000),
        }.items():
            both = ([held(one)], [held(one).key])
            taken = [step(standing, enforcer, places, now) for now in both * changes]
            print(f"  {what}, created and deleted: {told(taken)}")


def many_to_many() -> None:
    """Print the rules and sets of a pod where 200 may call 200 on one port, and they them."""
    two = [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "client"}}}]
    one = policy("one", SERVER, [{"from": two, "ports": [{"port": PORT}]}])
    items = [*nodes(2), space(), *pods(400), held(one)]
    with ExitStack() as stack:
        places = list(made(stack, 1))
        enforcer = stack.enter_context(closing(Enforcer(Nftables())))
        step(Standing(Surroundings()), enforcer, places, items)
        listed = nft.list_table(places[0].netns) or []
    rules = [found["rule"] for found in listed if "rule" in found]
    port = [rule for rule in rules if f"'right': {PORT}" in repr(rule)]
    asked = {name for rule in port for name in re.findall(r"@(rf_\w+)", repr(rule))}
    held_in = {
        one["set"]["name"]: len(one["set"].get("elem", ())) for one in listed if "set" in one
    }
    print(
        f"200 pods to 200 on one port, in the namespace of each of these: {len(port)} rules,"
        f" IPv4's and IPv6's, and their {len(asked)} sets, of"
        f" {' and '.join(str(held_in[name]) for name in sorted(asked))} elements"
    )


def made(stack: ExitStack, count: int) -> Iterator[Place]:
    """Network namespaces for the first pods."""
    for one in islice(pods(2 * count), count):
        path = stack.enter_context(namespace())
        yield Place(one.key.rpartition("/")[2], path, inode(path))


def step(
    standing: Standing, enforcer: Enforcer, places: list[Place], items: Iterable[Item | ItemKey]
) -> list[tuple[float, float]]:
    """Seconds from the news of items, of which keys are gone, to each step: clock, processor."""
    fresh = dict(map(news, items))
    begun, marks = (time.monotonic(), time.process_time()), []

    def mark() -> None:
        marks.append((time.monotonic() - begun[0], time.process_time() - begun[1]))

    compiled = standing.compile(JUDGED_BY, fresh, Moment())
    mark()
    order = Order(1, read_policy(compiled.nodes[NODE]))
    mark()
    steps = enforcer.steps(order, places)
    next(steps, None)
    mark()
    for _ in steps:
        pass
    assert not enforcer.outcome.problem, enforcer.outcome.problem
    mark()
    return marks


def told(taken: list[list[tuple[float, float]]]) -> str:
    """The medians."""
    clock, busy = [], []
    for name, column in zip(STEPS, zip(*taken, strict=True), strict=True):
        middle = [sorted(one)[len(one) // 2] * 1000 for one in zip(*column, strict=True)]
        clock.append(f"{name} {middle[0]:.0f}")
        busy.append(f"{middle[1]:.0f}")
    return f"{', '.join(clock)} ms; of the processor {', '.join(busy)} ms"


def news(one: Item | ItemKey) -> tuple[ItemKey, tuple[RevisionId, Item] | None]:
    """The item as news; that it is gone, for a key."""
    return (one.key, (RevisionId(1), one)) if isinstance(one, Item) else (one, None)


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
