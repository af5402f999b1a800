"""Attaching a capture to a node's pods, and finding the records of what they sent."""

from typing import Any

import numpy as np

from ringfence.flows.record import Hook
from ringfence.kernel.capture import FlowCapture
from tests.kernel.frames import packed
from tests.kernel.netns import Node, Pod

Flows = np.ndarray[Any, Any]
Fields = dict[str, int | str]
TCP, UDP, ICMP = 6, 17, 1
COUNTERS = ("rx_packets", "rx_bytes", "tx_packets", "tx_bytes", "tx_dropped")


def attach(capture: FlowCapture, node: Node) -> None:
    for pod in node.pods:
        node.call(lambda ifindex=pod.host_ifindex: capture.attach(ifindex))  # type: ignore[misc]


def counters(node: Node, pod: Pod) -> dict[str, int]:
    return {name: node.counter(pod.host_device, name) for name in COUNTERS}


def attach_quiet(capture: FlowCapture, node: Node) -> list[dict[str, int]]:
    """Attach at a moment without packets; the interfaces' counters at that moment."""
    while True:
        before = [counters(node, pod) for pod in node.pods]
        attach(capture, node)
        after = [counters(node, pod) for pod in node.pods]
        if before == after:
            return after
        for pod in node.pods:
            capture.detach(pod.host_ifindex)
        capture.drain(), capture.audit()


def read_quiet(capture: FlowCapture, node: Node) -> tuple[list[dict[str, int]], Flows, Flows]:
    """The interfaces' counters, the audit and all flows so far, at a moment without packets."""
    flows = []
    while True:
        before = [counters(node, pod) for pod in node.pods]
        audit = capture.audit()
        flows.append(capture.drain())
        if before == [counters(node, pod) for pod in node.pods]:
            return before, audit, np.concatenate(flows)


def pick(flows: Flows, pod: Pod, hook: Hook, **fields: int | str) -> Flows:
    """The records of one side of a pod's interface whose fields are as given."""
    chosen = (flows["ifindex"] == pod.host_ifindex) & (flows["hook"] == hook)
    for name, value in fields.items():
        if isinstance(value, str):
            chosen &= (flows[name] == np.frombuffer(packed(value), np.uint8)).all(axis=1)
        else:
            chosen &= flows[name] == value
    found: Flows = flows[chosen]
    return found


def only(flows: Flows, pod: Pod, hook: Hook, **fields: int | str) -> Any:
    found = pick(flows, pod, hook, **fields)
    assert len(found) == 1, found
    return found[0]
