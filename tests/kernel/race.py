"""Senders at full speed while the flow maps swap under them, and every count there is of it.

Two of them send the very same tuples into a node's interface, so that both processors make and
count the same records; the third sends out of it.
"""

import contextlib
import threading
import time
from dataclasses import dataclass

import numpy as np

from ringfence.flows.record import Hook
from ringfence.kernel.capture import FlowCapture
from ringfence.model.protocol import UDP
from tests.kernel.frames import ethernet, ipv4, udp
from tests.kernel.netns import Namespace, node_with_pods
from tests.kernel.observe import attach_quiet, read_quiet
from tests.kernel.txring import TxRing

FLOWS = 1024
IP_BYTES = 46
FRAMES = [ethernet(0x0800, ipv4(UDP, udp(1 + i, 9, bytes(IP_BYTES - 28)))) for i in range(FLOWS)]


@dataclass(frozen=True)
class Way:
    """One side of the interface."""

    sent: int
    dropped: int
    """By the sending device, before the hook, for want of room."""
    recorded: int
    recorded_bytes: int
    full: int
    """Packets that found the flow map full."""
    of_others: int
    """Neighbours looking for each other."""
    audited: int
    """Skbs that the program saw."""
    by_interface: int
    """Packets by the interface's own counter."""


@dataclass(frozen=True)
class Outcome:
    ways: dict[Hook, Way]
    drains: int
    largest: int
    """Records in one drain."""
    seconds: float


def race(capture: FlowCapture, packets: int, pause: float) -> Outcome:
    """Send at least so many packets, draining with `pause` seconds between."""
    with node_with_pods(1) as node, contextlib.ExitStack() as stack:
        (pod,) = node.pods
        devices: list[tuple[Namespace, str]] = [(pod, "eth0"), (pod, "eth0")]
        devices += [(node, pod.host_device)]
        rings = [TxRing(*device, FRAMES) for device in devices]
        for ring in rings:
            stack.callback(ring.close)
        rounds = -(-packets // (len(rings) * FLOWS))
        (before,) = attach_quiet(capture, node)
        lost = pod.counter("eth0", "tx_dropped")

        def send(ring: TxRing) -> None:
            for _ in range(rounds):
                ring.send()

        threads = [threading.Thread(target=send, args=(ring,)) for ring in rings]
        began = time.monotonic()
        for thread in threads:
            thread.start()
        drained = []
        while any(thread.is_alive() for thread in threads):
            drained.append(capture.drain())
            time.sleep(pause)
        seconds = time.monotonic() - began
        (after,), audit, rest = read_quiet(capture, node)
        lost = pod.counter("eth0", "tx_dropped") - lost
    drained.append(rest)
    flows = np.concatenate(drained)
    ours = (flows["protocol"] == UDP) & (flows["dport"] == 9)
    moved = {name: after[name] - before[name] for name in before}
    passed = {
        Hook.INGRESS: moved["rx_packets"],
        Hook.EGRESS: moved["tx_packets"] + moved["tx_dropped"],
    }
    ways = {}
    for hook, senders in ((Hook.INGRESS, 2), (Hook.EGRESS, 1)):
        records = flows[ours & (flows["hook"] == hook)]
        others = flows[~ours & (flows["hook"] == hook)]
        seen = audit[audit["hook"] == hook]
        ways[hook] = Way(
            sent=senders * rounds * FLOWS,
            dropped=lost if hook is Hook.INGRESS else 0,
            recorded=int(records["packets"].sum()),
            recorded_bytes=int(records["bytes"].sum()),
            full=int(seen["full_packets"].sum()),
            of_others=int(others["packets"].sum() + seen["non_ip"].sum()),
            audited=int(seen["skbs"].sum()),
            by_interface=passed[hook],
        )
    return Outcome(ways, len(drained), max(map(len, drained)), seconds)
