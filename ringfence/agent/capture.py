"""What passed this node's interfaces and what was dropped on it, one interval at a time."""

from collections.abc import Iterable

import numpy as np
import structlog
from numpy.typing import NDArray

from ringfence.agent.pods import NODE_NETNS, Pod
from ringfence.flows.orient import Listening, Orientations, conversations
from ringfence.kernel import sockets
from ringfence.kernel.bpf import object_path
from ringfence.kernel.capture import FlowCapture
from ringfence.kernel.drops import DropCapture
from ringfence.kernel.errors import BpfError, NamespaceError, NetlinkError
from ringfence.kernel.tunnel import DecodeAs
from ringfence.model.address import V4_MAPPED, Address, is_v4
from ringfence.wire import batch
from ringfence.wire.generated.agent_pb2 import Audit

_ANY = frozenset({Address(bytes(16)), Address(V4_MAPPED + bytes(4))})
_LOSSES = {
    "truncated": "truncated",
    "bad header": "bad_header",
    "bad length": "bad_length",
    "flow map full": "full_skbs",
}

log = structlog.get_logger()


class Capture:
    """Attaches to interfaces and drains what was counted. Its methods block: call them in turn."""

    def __init__(self) -> None:
        self._attached: frozenset[int] = frozenset()
        self._failing: frozenset[int] = frozenset()
        self._failures = 0
        self._tunnels = frozenset[DecodeAs]()
        self._orientations = Orientations()
        self._departed = dict.fromkeys(("skbs", "non_ip", *_LOSSES.values()), 0)

    def open(self) -> None:
        """Load the programs; raises BpfError."""
        self._flows = FlowCapture(object_path("flow"))
        self._drops = DropCapture(object_path("drop"))
        self._flows.open()
        try:
            self._drops.open()
        except BpfError:
            self._flows.close()
            raise

    def close(self) -> None:
        """Detach and unload."""
        self._drops.close()
        self._flows.close()

    def watch(self, interfaces: frozenset[int], tunnels: frozenset[DecodeAs]) -> None:
        """Count what passes these interfaces (ifindex) and no others, and look into the tunnels.

        Interfaces that cannot be attached to are tried again at each call.
        """
        if tunnels != self._tunnels:
            self._flows.decode_as(sorted(tunnels))
            self._tunnels = tunnels
        attached = set(self._attached & interfaces)
        for ifindex in self._attached - interfaces:
            self._flows.detach(ifindex)
        for ifindex in interfaces - self._attached:
            try:
                self._flows.attach(ifindex)
            except BpfError as error:  # most often it is gone again
                self._failures += 1
                if ifindex not in self._failing:
                    log.warning("interface not captured", ifindex=ifindex, problem=str(error))
            else:
                attached.add(ifindex)
        self._attached = frozenset(attached)
        self._failing = interfaces - self._attached

    def flows(
        self,
        pods: Iterable[Pod],
        node_addresses: Iterable[Address],
        declared_ports: frozenset[tuple[int, int]],
    ) -> bytes:
        """The conversations since the last call, as an Arrow stream of `batch.FLOWS`.

        `declared_ports` are the (protocol, port) pairs on which somebody is said to answer.
        """
        pods = tuple(pods)
        at_pods = sorted({ifindex for pod in pods for ifindex in pod.interfaces})
        columns = conversations(
            self._flows.drain(),
            np.array(at_pods, dtype=np.uint32),
            _listening(pods, node_addresses),
            declared_ports,
            self._orientations,
        )
        return batch.encode(batch.FLOWS, columns)

    def drops(self) -> NDArray[np.void]:
        """What anybody's rules dropped since the last call, on the whole machine (DROP_DTYPE)."""
        return self._drops.drain()

    def audit(self) -> Audit:
        """Totals since the start, interfaces that are gone included."""
        rows = self._flows.audit()
        staying = np.array([0, *self._attached], dtype=np.uint32)
        leaving = rows[~np.isin(rows["ifindex"], staying)]
        totals = {name: int(rows[name].sum()) + gone for name, gone in self._departed.items()}
        for name in self._departed:
            self._departed[name] += int(leaving[name].sum())
        unrecorded = totals["non_ip"] + sum(totals[name] for name in _LOSSES.values())
        drops = self._drops.losses()
        return Audit(
            skbs=totals["skbs"],
            recorded=totals["skbs"] - unrecorded,
            losses={
                **{cause: totals[name] for cause, name in _LOSSES.items()},
                "drop map full": drops.full,
                "drop not parsed": drops.unparsed,
                "interface not attached": self._failures,
            },
        )


def _listening(pods: Iterable[Pod], node_addresses: Iterable[Address]) -> Listening:
    """Who listens where on this node, a wildcard written as each address of its namespace."""
    places = [(NODE_NETNS, tuple(node_addresses))]
    places += [(pod.place.netns, pod.addresses) for pod in pods]
    found: set[sockets.Listener] = set()
    for netns, addresses in places:
        try:
            found.update(expand(sockets.listening(netns), addresses))
        except (NamespaceError, NetlinkError) as error:
            log.info("listening sockets not read", netns=str(netns), problem=str(error))
    listeners = sorted(found)
    octets = b"".join(listener.address for listener in listeners)
    return Listening(
        protocol=np.array([listener.protocol for listener in listeners], dtype=np.uint8),
        address=np.frombuffer(octets, dtype=np.uint8).reshape(-1, 16),
        port=np.array([listener.port for listener in listeners], dtype=np.uint16),
    )


def expand(
    listeners: Iterable[sockets.Listener], addresses: Iterable[Address]
) -> set[sockets.Listener]:
    """Each wildcard replaced by the namespace's addresses of its family."""
    addresses = tuple(addresses)
    return {
        listener._replace(address=address)
        for listener in listeners
        for address in (addresses if listener.address in _ANY else (listener.address,))
        if is_v4(address) == is_v4(listener.address)
    }
