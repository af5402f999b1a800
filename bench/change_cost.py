"""What one change costs the control plane: from the news of an item to the nodes' policies.

The company is that of `compile_cost`. Pods are relabelled one at a time, replaced by others with
another address on another node (their Service follows, in the same batch), and Services lose and
gain a backend. Each time is of one batch of news.
"""

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from bench.company import EAST, nodes, v4
from bench.compile_cost import (
    APPS,
    NAMESPACES,
    NODES,
    PODS,
    POLICIES,
    pods,
    scopes,
    services,
    workspaces,
)
from ringfence.control.compilation import Compilation, Standing
from ringfence.control.judged import JudgedBy
from ringfence.inventory.living import News
from ringfence.model.ids import ItemKey, RevisionId, item_key
from ringfence.model.labels import make_labels
from ringfence.model.scope import ScopeTree
from ringfence.model.workload import Backend, Item
from ringfence.policy.moment import Moment
from ringfence.policy.nodes import Surroundings

CHANGES = 200
FRESH_POD = 10 << 24 | 64 << 16
Change = Callable[["Cluster", int], News]


class Cluster:
    """The company's items as they change."""

    def __init__(self) -> None:
        self.chance = random.Random(2)
        self.revision = 0
        self.pods = list(pods())
        self.services = list(services())
        first = [*nodes(NODES), *self.pods, *self.services]
        self.first: News = dict(self.now(one) for one in first)

    def now(self, one: Item) -> tuple[ItemKey, tuple[RevisionId, Item]]:
        """The item as news."""
        self.revision += 1
        return one.key, (RevisionId(self.revision), one)


def relabelled(cluster: Cluster, _: int) -> News:
    """A pod is of another application."""
    at = cluster.chance.randrange(PODS)
    one = cluster.pods[at]
    app = f"app-{cluster.chance.randrange(APPS)}"
    labels = {**one.labels, **make_labels([("kubernetes.label.app", app)])}
    cluster.pods[at] = replace(one, labels=labels)
    return dict([cluster.now(cluster.pods[at])])


def replaced(cluster: Cluster, number: int) -> News:
    """A pod gives way to another elsewhere, in its Service too if it was in one."""
    at = cluster.chance.randrange(PODS)
    one, held = cluster.pods[at], (v4(FRESH_POD + number),)
    name, node = f"fresh-{number}", f"node-{cluster.chance.randrange(NODES)}"
    labels = {**one.labels, "name": (name,)}
    key = item_key(EAST, "pod", name)
    cluster.pods[at] = replace(one, key=key, name=name, addresses=held, node=node, labels=labels)
    news: dict[ItemKey, tuple[RevisionId, Item] | None] = {one.key: None}
    news |= [cluster.now(cluster.pods[at])]
    space = int(one.namespace.removeprefix("ns-"))
    service = cluster.services[space].service
    assert service is not None
    if any(backend.address in one.addresses for backend in service.backends):
        kept = [backend for backend in service.backends if backend.address not in one.addresses]
        news |= [cluster.now(served(cluster, space, [*kept, serving(cluster.pods[at])]))]
    return news


def rebacked(cluster: Cluster, _: int) -> News:
    """A Service loses its first backend, or gains a pod of its namespace."""
    space = cluster.chance.randrange(NAMESPACES)
    service = cluster.services[space].service
    assert service is not None
    held = list(service.backends)
    if len(held) > 1:
        del held[0]
    else:
        held.append(serving(cluster.pods[space + NAMESPACES]))
    return dict([cluster.now(served(cluster, space, held))])


def serving(pod: Item) -> Backend:
    """The pod as a backend."""
    return Backend("http", 6, pod.addresses[0], 8080, True, pod.key)


def served(cluster: Cluster, space: int, backends: list[Backend]) -> Item:
    """The Service of a namespace with these backends."""
    one = cluster.services[space]
    assert one.service is not None
    spec = replace(one.service, backends=tuple(backends))
    cluster.services[space] = replace(one, service=spec)
    return cluster.services[space]


def main() -> None:
    """Print what each kind of change costs."""
    tree, enforced = ScopeTree(scopes()), tuple(workspaces(random.Random(1)))
    measure(JudgedBy(tree, enforced))


def measure(judged_by: JudgedBy) -> None:
    """As `main`, of a company that is there already."""
    cluster, standing = Cluster(), Standing(Surroundings())
    before = standing.compile(judged_by, cluster.first, Moment())
    print(
        f"one change among {PODS:,} pods, {NAMESPACES:,} namespaces, {POLICIES:,} policies"
        " (target for the whole way into kernels: p50 100 ms, p99 500 ms)"
    )
    for kind, change in CHANGED.items():
        waited, busy, told, sent = [], [], [], []
        for number in range(CHANGES):
            news = change(cluster, number)
            begun, clock = time.process_time(), time.monotonic()
            after = standing.compile(judged_by, news, Moment())
            waited.append(1000 * (time.monotonic() - clock))
            busy.append(1000 * (time.process_time() - begun))
            fresh = list(differing(before, after))
            told.append(float(len(fresh)))
            sent.append(sum(map(len, fresh)) / 1000)
            before = after
        print(f"  {kind}: {percentiles(waited, 'ms')}; of the processor {percentiles(busy, 'ms')}")
        print(f"    nodes with another policy {percentiles(told)}; {percentiles(sent, 'kB')}")


def percentiles(of: list[float], unit: str = "") -> str:
    """The median and the worst but one in a hundred."""
    ordered = sorted(of)
    middle, worst = ordered[len(ordered) // 2], ordered[len(ordered) * 99 // 100]
    return f"p50 {middle:.1f}, p99 {worst:.1f} {unit}".strip()


def differing(before: Compilation, after: Compilation) -> Iterator[bytes]:
    """The policies that are sent."""
    for node, policy in after.nodes.items():
        if before.nodes.get(node) != policy:
            yield policy


CHANGED: dict[str, Change] = {
    "pod relabelled": relabelled,
    "pod replaced": replaced,
    "backend of a Service": rebacked,
}


if __name__ == "__main__":
    main()
