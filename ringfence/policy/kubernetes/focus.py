"""What of a folder's connectivity is asked about: workloads, their peers, a direction, a port."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from ringfence.model.errors import InputError
from ringfence.model.policy import Direction
from ringfence.model.protocol import PortRange, parse_ports
from ringfence.policy.kubernetes.connectivity import INGRESS_CONTROLLER, Edge, Pair
from ringfence.policy.kubernetes.exposure import ExposureReport
from ringfence.policy.kubernetes.fields import PROTOCOLS
from ringfence.policy.kubernetes.topology import Workload

BetweenEnds = TypeVar("BetweenEnds", Edge, Pair)


class FocusDirection(StrEnum):
    """Connections to the workloads in focus, or from them."""

    INGRESS = "ingress"
    EGRESS = "egress"


@dataclass(frozen=True, slots=True)
class Focus:
    """Empty and None ask about everything; names are `name` or `namespace/name`."""

    workloads: tuple[str, ...] = ()
    peers: tuple[str, ...] = ()
    direction: FocusDirection | None = None

    def __post_init__(self) -> None:
        if (self.peers or self.direction) and not self.workloads:
            raise InputError("a peer or a direction of which workload? Name it with --focus")

    def select(
        self, edges: Iterable[BetweenEnds], workloads: Iterable[Workload]
    ) -> Iterator[BetweenEnds]:
        """The edges, or other pairs of ends, that are asked about."""
        if not self.workloads:
            yield from edges
            return
        known = list(workloads)
        wanted, peers = _displays(self.workloads, known), _displays(self.peers, known)
        for edge in edges:
            ends = [
                (FocusDirection.EGRESS, edge.source, edge.target),
                (FocusDirection.INGRESS, edge.target, edge.source),
            ]
            if any(
                own in wanted
                and (not self.peers or other in peers)
                and self.direction in (None, direction)
                for direction, own, other in ends
            ):
                yield edge

    def expose(self, report: ExposureReport, workloads: Iterable[Workload]) -> ExposureReport:
        """The exposures and open ends of the workloads that are asked about."""
        if not self.workloads:
            return report
        wanted = _displays(self.workloads, workloads)
        word = {
            Direction.INBOUND: FocusDirection.INGRESS,
            Direction.OUTBOUND: FocusDirection.EGRESS,
        }
        asked = [one for one in Direction if self.direction in (None, word[one])]
        return ExposureReport(
            {
                direction: [
                    one
                    for one in report.exposures[direction]
                    if one.workload in wanted and direction in asked
                ]
                for direction in Direction
            },
            [one for one in report.unprotected if one[0] in wanted and one[1] in asked],
        )

    def unknown(self, workloads: Iterable[Workload]) -> list[str]:
        """Names in the question that no workload has."""
        known = list(workloads)
        return [name for name in (*self.workloads, *self.peers) if not _displays([name], known)]


def parse_connection(text: str) -> tuple[int, PortRange]:
    """Read `tcp-80`; raises InputError."""
    protocol, _, port = text.partition("-")
    if protocol.upper() not in PROTOCOLS:
        raise InputError(f"{text!r} is not a connection: write tcp-80, udp-53 or sctp-9000")
    return PROTOCOLS[protocol.upper()], parse_ports(port)


def _displays(names: Iterable[str], workloads: Iterable[Workload]) -> set[str]:
    wanted = set(names)
    found = {one.display for one in workloads if wanted & {one.name, f"{one.namespace}/{one.name}"}}
    return found | {INGRESS_CONTROLLER} if INGRESS_CONTROLLER.strip("{}") in wanted else found
