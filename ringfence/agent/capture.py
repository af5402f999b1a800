"""What passed this node's interfaces and what was dropped on it, one interval at a time."""

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import structlog
from numpy.typing import NDArray

from ringfence.agent.audit import Reading, SelfAudit
from ringfence.agent.owners import SocketOwners
from ringfence.agent.pods import Pod, at_pods, node, places
from ringfence.agent.resolved import Resolved
from ringfence.flows.orient import Orientations, conversations
from ringfence.kernel import counters
from ringfence.kernel.bpf import object_path
from ringfence.kernel.capture import FlowCapture
from ringfence.kernel.drops import DropCapture
from ringfence.kernel.errors import BpfError, NetlinkError
from ringfence.kernel.interfaces import Interface, list_interfaces
from ringfence.kernel.pins import Pins, on_bpf_file_system
from ringfence.kernel.tunnel import DecodeAs
from ringfence.model.address import Address
from ringfence.model.flow import Loss, Mode
from ringfence.wire import columns
from ringfence.wire.generated.agent_pb2 import Audit, DnsAnswer

_UNRECORDED = {
    Loss.TRUNCATED: "truncated",
    Loss.BAD_HEADER: "bad_header",
    Loss.BAD_LENGTH: "bad_length",
    Loss.FLOW_MAP_FULL: "full_skbs",
}
_MISPLACED = {
    Loss.UNPLACED: "unplaced",
    Loss.INNER_TRUNCATED: "inner_truncated",
    Loss.INNER_BAD_HEADER: "inner_bad_header",
    Loss.INNER_BAD_LENGTH: "inner_bad_length",
    Loss.INNER_FULL: "inner_full",
    Loss.DNS_FULL: "dns_full",
    Loss.DNS_OVERLONG: "dns_overlong",
    Loss.DNS_UNASKED: "dns_unasked",
}
"""In a record, which lacks their ports, or what they carry or answer."""
_LOSSES = _UNRECORDED | _MISPLACED

_UNDER_WAY_SECONDS = 0.002
"""Ample for a packet to get from the kernel's counter to the program, or from it to the counter."""
_MOST_ANSWERS = 2_000
"""Of DNS servers that are read at a time; more wait in the kernel, which has a second's worth."""
_CROWDED = 0.5
"""What is left of the flow map has to do until the agent looks again, a second later."""

log = structlog.get_logger()


class Capture:
    """Attaches to interfaces and drains what was counted. Its methods block: call them in turn."""

    def __init__(self, pin_dir: Path, *, dns: bool = False) -> None:
        """`pin_dir`: where counts outlive this process, if it is in a BPF file system.

        `dns`: read the answers of DNS servers, to tell providers' names.
        """
        self.owners = SocketOwners()
        self._pin_dir = pin_dir
        self._pinned = False
        self._dns = dns
        self._resolved = Resolved()
        self._self_audit = SelfAudit()
        self._older: set[int] = set()
        self._failing: frozenset[int] = frozenset()
        self._failures = 0
        self._tunnels: set[DecodeAs] = set()
        self._orientations = Orientations()
        self._leading_away: frozenset[int] = frozenset()
        self._at_pods: frozenset[int] = frozenset()
        self._namespaces: set[int] = set()
        self._departed = dict.fromkeys(("skbs", "non_ip", *_LOSSES.values()), 0)

    def open(self) -> None:
        """Load the programs, and go on where an agent ended; raises BpfError, NetlinkError."""
        self._older.update(interface.ifindex for interface in list_interfaces())
        self._namespaces.add(node().inode)
        self._pinned = on_bpf_file_system(self._pin_dir)
        if not self._pinned:
            log.warning("counts end with the agent: no BPF file system", at=str(self._pin_dir))
        pins = Pins(self._pin_dir) if self._pinned else None
        self._flows = FlowCapture(object_path("flow"), pins=pins, dns=self._dns)
        self._drops = DropCapture(object_path("drop"))
        self._flows.open()
        try:
            self._drops.open()
        except BpfError:
            self._flows.close()
            raise
        if taken_over := len(self._flows.attached):
            log.info("goes on where an agent ended", interfaces=taken_over)

    def close(self) -> None:
        """Unload; where counts outlive this process, what passes goes on being counted."""
        self._drops.close()
        self._flows.close()

    def remove(self) -> None:
        """Leave nothing to a successor; then `close`."""
        self._flows.remove()

    def retire(self) -> None:
        """Before what is taken last: stop counting what no successor would find."""
        if not self._pinned:
            self.watch(())

    def know(self, pods: Iterable[Pod]) -> None:
        """Remember which interfaces lead to pods, until what passed there is reported.

        Of drops in others' network namespaces nothing is this node's loss.
        """
        self._lead_to_pods(_interfaces(pods))
        self._namespaces.update(pod.place.inode for pod in pods)

    def watch(self, interfaces: Collection[Interface]) -> None:
        """Count what passes these interfaces and no others, and look into what their tunnels send.

        Those that cannot be attached to are tried again at each call. Which of them may lead to
        pods is remembered as in `know`.
        """
        tunnels = {interface.tunnel for interface in interfaces if interface.tunnel}
        if tunnels != self._tunnels:
            self._flows.decode_as(sorted(tunnels))
            self._tunnels = tunnels
        self._leading_away = at_pods(interfaces)
        # Before it is attached to: a pod asks DNS servers as soon as it can.
        self._lead_to_pods(self._leading_away)
        wanted = frozenset(interface.ifindex for interface in interfaces)
        for ifindex in self._flows.attached - wanted:
            self._flows.detach(ifindex)
            self._self_audit.detached(ifindex)
            self._older.add(ifindex)  # should it come up again
        before = self._flows.attached
        attached = [each for each in interfaces if each.ifindex in before or self._attach(each)]
        self._failing = wanted - {each.ifindex for each in attached}
        if self._self_audit.attached(attached, self._older):
            self._hold()

    def _attach(self, interface: Interface) -> bool:
        try:
            self._flows.attach(interface.ifindex)
        except BpfError as error:  # most often it is gone again
            self._failures += 1
            if interface.ifindex not in self._failing:
                log.warning("interface not captured", interface=interface.name, problem=str(error))
            return False
        return True

    def _lead_to_pods(self, ifindexes: frozenset[int]) -> None:
        self._at_pods |= ifindexes
        self._flows.lead_to_pods(self._at_pods)

    def hear(self) -> None:
        """Take note of what DNS servers answered since the last call."""
        self._resolved.hear(self._flows.answers(_MOST_ANSWERS))

    def answers(self) -> list[DnsAnswer]:
        """What DNS servers answered that nobody has been told yet."""
        return self._resolved.news()

    def crowded(self) -> bool:
        """Whether there may soon be no room for more records."""
        return self._flows.fill() > _CROWDED

    def take(self) -> NDArray[np.void]:
        """The records (FLOW_DTYPE) since the last call, which the kernel keeps until `done`."""
        return self._flows.take()

    def left(self) -> NDArray[np.void]:
        """What was taken last, perhaps by an agent that was killed, without being `done`."""
        return self._flows.left()

    def done(self) -> None:
        """What was taken last is safe: the kernel may forget it."""
        self._flows.done()

    def flows(
        self,
        records: NDArray[np.void],
        pods: Collection[Pod],
        node_addresses: Sequence[Address],
        declared_ports: frozenset[tuple[int, int]],
        mode: Mode,
    ) -> Iterator[tuple[bytes, bool]]:
        """The conversations among a window's records, as Arrow streams of `columns.FLOWS`.

        There is at least one, and another for each slice of more rows than memory allows for; each
        comes with whether another follows. `pods` are those from when the window ended or before.
        `declared_ports` are the (protocol, port) pairs on which somebody is said to answer.
        """
        self.know(pods)
        pod_interfaces = np.array(sorted(self._at_pods), dtype=np.uint32)
        self._at_pods = _interfaces(pods) | self._leading_away
        listening, owners = self.owners.report(places(pods, node_addresses))
        self.hear()
        here = {address for pod in pods for address in pod.addresses}.union(node_addresses)
        found = conversations(
            records, pod_interfaces, listening, declared_ports, self._orientations, mode, owners
        )
        parts = found.cut()
        for part in parts:
            rows = found.columns(part)
            rows["provider_dns_name"] = self._resolved.names(rows, here)
            yield columns.encode(columns.FLOWS, rows), part is not parts[-1]

    def drops(self) -> NDArray[np.void]:
        """What anybody's rules dropped since the last call, on the whole machine (DROP_DTYPE)."""
        return self._drops.drain()

    def audit(self) -> Audit:
        """Totals since the start, interfaces that are gone included."""
        rows = self._hold()
        totals = {name: int(rows[name].sum()) + gone for name, gone in self._departed.items()}
        unrecorded = totals["non_ip"] + sum(totals[name] for name in _UNRECORDED.values())
        drops = self._drops.losses(self._namespaces)
        audit = Audit(
            skbs=totals["skbs"],
            recorded=totals["skbs"] - unrecorded,
            losses={
                **{cause: totals[name] for cause, name in _LOSSES.items()},
                **self._resolved.losses(),
                Loss.DROP_MAP_FULL: drops.full,
                Loss.DROP_NOT_PARSED: drops.unparsed,
                Loss.NOT_ATTACHED: self._failures,
                Loss.BEFORE_ATTACHED: self._self_audit.before,
            },
        )
        self._self_audit.tell(audit)
        return audit

    def _hold(self) -> NDArray[np.void]:
        """The counters of attached interfaces (AUDIT_DTYPE), held against the kernel's."""
        before, backlog = _read(counters.at_least), counters.backlog()
        time.sleep(_UNDER_WAY_SECONDS)
        rows = self._flows.audit()
        time.sleep(_UNDER_WAY_SECONDS)
        self._self_audit.hold(before, backlog, rows, _read(counters.at_most))
        departed = self._flows.departed()
        for name in self._departed:
            self._departed[name] += int(departed[name].sum())
        return rows


def _interfaces(pods: Iterable[Pod]) -> frozenset[int]:
    return frozenset(ifindex for pod in pods for ifindex in pod.interfaces)


def _read(counters_of_kernel: Callable[[], Reading]) -> Reading:
    """The kernel's counters; none where it does not tell them, which stops no capture."""
    try:
        return counters_of_kernel()
    except NetlinkError as error:
        log.warning("interface counters not read", problem=str(error))
        return {}
