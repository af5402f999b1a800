"""What is seen but no application needs: kept out of a proposal, and told apart by its reason."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from ringfence.flows.connections import Records
from ringfence.model.address import Address, format_address
from ringfence.model.protocol import TCP, format_port, format_protocol

SCAN_TARGETS = 8
"""One consumer that fails at so many (provider, port) pairs, more than it succeeds at, scans."""


class Reason(StrEnum):
    """Why connections are noise; the first that holds."""

    SCAN = "scan: the consumer tried many ends and most did not answer"
    DROPPED = "dropped: no packet was answered, and drops were reported"
    REFUSED = "refused: the provider answered none"
    UNANSWERED = "unanswered: no reply was seen"


@dataclass(frozen=True, slots=True)
class Noise:
    """Connections left out for one reason, with one of them as an example."""

    reason: Reason
    count: int
    example: str


def sift(records: Records) -> tuple[Records, list[Noise]]:
    """The connections that an application may need, and the noise among the rest."""
    replies = records.column("reverse_packets") > 0
    tcp = records.column("protocol") == TCP
    refused = records.column("refused") > 0
    answered = np.where(tcp, (records.column("answered") > 0) | (replies & ~refused), replies)
    scans = _scans(records, ~answered)
    reasons = {
        Reason.SCAN: scans,
        Reason.DROPPED: ~scans & ~answered & (records.dropped > 0),
        Reason.REFUSED: ~scans & ~answered & (records.dropped == 0) & refused,
        Reason.UNANSWERED: ~scans & ~answered & (records.dropped == 0) & ~refused,
    }
    noise = [
        Noise(reason, int(mask.sum()), _example(records, int(np.argmax(mask))))
        for reason, mask in reasons.items()
        if mask.any()
    ]
    return records.take(answered & ~scans), noise


def _scans(records: Records, fruitless: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The connections of consumers that scan. A record is one (consumer, provider, port)."""
    consumers = np.ascontiguousarray(records.column("first_consumer")).view("S16").ravel()
    _, which = np.unique(consumers, return_inverse=True)
    tried = np.bincount(which)
    failed = np.bincount(which, weights=fruitless)
    scanners = (failed >= SCAN_TARGETS) & (failed * 2 > tried)
    return np.asarray(scanners[which] if len(which) else np.zeros(0, dtype=np.bool_))


def _example(records: Records, row: int) -> str:
    consumer, dialled = (
        format_address(Address(records.column(end)[row].tobytes()))
        for end in ("first_consumer", "dialled")
    )
    protocol = int(records.column("protocol")[row])
    port = format_port(protocol, int(records.column("dialled_port")[row]))
    return f"{consumer} → {dialled} {format_protocol(protocol)} {port}"
