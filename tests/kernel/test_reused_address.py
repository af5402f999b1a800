"""An address that two hundred pods have one after the other, under traffic, seen by the kernel."""

import contextlib
import errno
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ringfence.flows.label import Agents, label_flows
from ringfence.flows.orient import Listening, Orientations, conversations
from ringfence.inventory.timeline import Timeline
from ringfence.kernel.capture import FlowCapture
from ringfence.model.address import parse_address
from ringfence.model.ids import ClusterId, ItemKey, RevisionId, item_key
from ringfence.model.protocol import TCP
from ringfence.model.workload import Item, ItemKind
from ringfence.wire import batch
from tests.kernel.netns import (
    Namespace,
    Node,
    await_carrier,
    ip,
    namespace,
    node_with_pods,
)

LAB = ClusterId("lab")
PODS = 200
ADDRESS, GATEWAY = "10.99.200.2", "10.99.200.1"
FROM_POD, TO_POD, TO_NOBODY, SHARED = 10_000, 20_000, 30_000, 80
NEWS_NS = 30_000_000
"""How late the inventory hears of a pod's begin and of its end."""


@dataclass(frozen=True)
class Life:
    """When pod `number` had the address, epoch ns."""

    number: int
    begin_ns: int
    end_ns: int


def pod(number: int, address: str = ADDRESS, since_ns: int = 0) -> Item:
    name = f"pod-{number}"
    return Item(
        key=item_key(LAB, ItemKind.POD, name), kind=ItemKind.POD, cluster=LAB, namespace="shop",
        name=name, addresses=(parse_address(address),) if address else (), labels={},
        node="node", since_ns=since_ns,
    )  # fmt: skip


def refused(where: Namespace, address: str, port: int) -> None:
    """Try to connect to who is there and listens to nothing."""
    assert _connect(where, address, port, seconds=10) == errno.ECONNREFUSED


def unheard(where: Namespace, address: str, port: int) -> None:
    """Try to connect where nobody is."""
    unreachable = errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EAGAIN
    assert _connect(where, address, port, seconds=0.002) in unreachable


def _connect(where: Namespace, address: str, port: int, seconds: float) -> int:
    with where.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as opened:
        opened.settimeout(seconds)
        return opened.connect_ex((address, port))


@contextlib.contextmanager
def holder(node: Node, capture: FlowCapture) -> Iterator[Namespace]:
    """A pod that has the address."""
    with namespace("pod") as made:
        ip("-n", node.name, "link", "add", "reused", "type", "veth",
           "peer", "name", "eth0", "netns", made.name)  # fmt: skip
        ip("-n", made.name, "-batch", "-", stdin=(
            f"address add {ADDRESS}/24 dev eth0\nlink set eth0 up\n"
        ))  # fmt: skip
        ip("-n", node.name, "-batch", "-", stdin=(
            f"address add {GATEWAY}/24 dev reused\nlink set reused up\n"
        ))  # fmt: skip
        ip("-n", made.name, "route", "add", "default", "via", GATEWAY)
        await_carrier(node, "reused")
        await_carrier(made)
        index = node.ifindex("reused")
        node.call(lambda: capture.attach(index))
        try:
            yield made
        finally:
            capture.detach(index)
            ip("-n", node.name, "link", "delete", "reused")


def _within(row: dict[str, Any], life: Life) -> bool:
    return bool(life.begin_ns <= row["first_ns"] and row["last_ns"] <= life.end_ns + NEWS_NS)


def told(lives: list[Life], client: Item) -> Timeline:
    """What a connector would have said: of each begin and each end a little late."""
    events: list[tuple[int, Item | None, ItemKey]] = []
    for life in lives:
        key = pod(life.number).key
        late_ns = life.end_ns + NEWS_NS
        events += [
            (life.begin_ns - 1, pod(life.number, address=""), key),
            (life.begin_ns + NEWS_NS, pod(life.number, since_ns=life.begin_ns), key),
            (late_ns, pod(life.number, address=""), key),
            (late_ns + NEWS_NS, None, key),
        ]
    timeline = Timeline()
    timeline.observe(lives[0].begin_ns - 10**9, client)
    for at_ns, item, key in sorted(events, key=lambda event: event[0]):
        if item is None:
            timeline.gone(at_ns, key)
        else:
            timeline.observe(at_ns, item)
    return timeline


def test_no_flow_carries_the_name_of_another_pod(capture: FlowCapture) -> None:
    lives, windows = [], []
    nothing = Listening(np.empty(0, np.uint8), np.empty((0, 16), np.uint8), np.empty(0, np.uint16))
    orientations = Orientations()
    with node_with_pods(1) as node:
        (client,) = node.pods
        node.call(lambda: capture.attach(client.host_ifindex))
        for number in range(PODS):
            with holder(node, capture) as made:
                begin_ns = time.time_ns()
                for _ in range(3):
                    refused(made, client.address, FROM_POD + number)
                    refused(client, ADDRESS, TO_POD + number)
                    refused(client, ADDRESS, SHARED)
                lives.append(Life(number, begin_ns, time.time_ns()))
            unheard(client, ADDRESS, TO_NOBODY + number)
            unheard(client, ADDRESS, SHARED)
            if number % 20 == 19:
                records = capture.drain()
                at_pods = np.unique(records["ifindex"])
                found = conversations(records, at_pods, nothing, frozenset(), orientations)
                windows.append(found.columns())
        host = pod(PODS, client.address)
    timeline = told(lives, host)
    seen = dict.fromkeys((FROM_POD, TO_POD, TO_NOBODY), 0)
    for window in windows:
        table = batch.table(batch.FLOWS, window)
        agent = Agents([("default", LAB, "node")], np.zeros(len(table), dtype=np.intp))
        labelled = label_flows(table, timeline, agent)
        for row, consumer, provider in zip(
            table.to_pylist(),
            labelled["consumer_revision"].tolist(),
            labelled["provider_revision"].tolist(),
            strict=True,
        ):
            if row["protocol"] != TCP:
                continue  # what routers say of it
            of_pod = row["consumer"] == parse_address(ADDRESS)
            revision = consumer if of_pod else provider
            name = timeline.revision(RevisionId(revision))[0].name if revision else ""
            start, number = divmod(row["provider_port"], 10_000)
            match start * 10_000:
                case 10_000 | 20_000 as kind:
                    assert name == f"pod-{number}", (row, lives[number])
                    seen[kind] += 1
                case 30_000 as kind:
                    assert name in ("", f"pod-{number}"), (row, lives[number])
                    seen[kind] += 1
                case _:
                    within = {f"pod-{life.number}" for life in lives if _within(row, life)}
                    assert name in {"", *within}, row
    # Each was seen on the client's interface, and on the pod's own where there was one.
    assert seen == {FROM_POD: 2 * PODS, TO_POD: 2 * PODS, TO_NOBODY: PODS}
