"""Records of both ways of what may be one conversation, side by side."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ringfence.flows.keys import Bytes, group, join, octets
from ringfence.model.protocol import ICMP, ICMPV6

# For each message type, itself or the type that it answers (RFC 792, RFC 950, RFC 4443).
_ICMP_REQUEST = np.arange(256, dtype=np.uint16)
_ICMP_REQUEST[[0, 14, 16, 18]] = [8, 13, 15, 17]
_ICMPV6_REQUEST = np.arange(256, dtype=np.uint16)
_ICMPV6_REQUEST[129] = 128
REQUESTS = ((ICMP, _ICMP_REQUEST), (ICMPV6, _ICMPV6_REQUEST))


@dataclass(frozen=True)
class Pairs:
    """n pairs of one-way records, each of two ends `low` < `high`.

    `ends` is their (address, port) keys, shape (2, n); `rows` the record that runs away from
    that end, shape (2, n), -1 where none does.
    """

    records: NDArray[np.void]
    ends: Bytes
    rows: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows[0])

    def take(self, pairs: NDArray[np.int64]) -> "Pairs":
        """Some of them, with a copy of their own records."""
        rows = self.rows[:, pairs]
        there = rows >= 0
        places = np.full(rows.shape, -1, dtype=np.int64)
        places[there] = np.arange(np.count_nonzero(there))
        # Not by index: of structured arrays numpy copies field by field then.
        return Pairs(self.records.take(rows[there]), self.ends[:, pairs], places)

    def field(self, rows: NDArray[np.int64], name: str) -> NDArray[Any]:
        """A field of the records in `rows`, zero where there is none."""
        values: NDArray[Any] = self._column(name)[rows]
        values[rows < 0] = 0
        return values

    def either(self, name: str) -> NDArray[Any]:
        """A field that both records of a pair share."""
        values: NDArray[Any] = self._column(name)[np.maximum(*self.rows)]
        return values

    def _column(self, name: str) -> NDArray[Any]:
        """A field of all records, side by side in memory: rows come from all over it."""
        return np.ascontiguousarray(self.records[name])

    def ways(self, consumer: NDArray[np.int8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The rows of the forward and of the reverse records."""
        each = np.arange(len(self))
        return self.rows[consumer, each], self.rows[1 - consumer, each]

    def ports(self, side: NDArray[np.int8]) -> NDArray[np.uint16]:
        """The ports of these ends, zero where the protocol has none."""
        found = port_of(self.ends[side, np.arange(len(self))]).astype(np.uint16)
        found[np.isin(self.either("protocol"), (ICMP, ICMPV6))] = 0
        return found

    @property
    def last_ns(self) -> NDArray[np.int64]:
        """When either way's last packet was seen."""
        low, high = (self.field(rows, "last_ns") for rows in self.rows)
        return np.asarray(np.maximum(low, high))


def pair_up(records: NDArray[np.void]) -> tuple[Pairs, Bytes]:
    """Records (FLOW_DTYPE) by interface, protocol, both ends and, of ICMP, which of them began.

    Those together are the key of each pair.
    """
    ports = ports_of(records)
    ends = [
        join(records[address], octets(port, ">u2"))
        for address, port in zip(("src", "dst"), ports, strict=True)
    ]
    backward = ends[0] > ends[1]
    ends = [np.where(backward, *ends[::-1]), np.where(backward, *ends)]
    keys = join(
        octets(records["ifindex"], ">u4"), records["protocol"], *(end_octets(end) for end in ends),
        _asked_by_high(records, backward),
    )  # fmt: skip
    groups = group(keys)
    one = groups.one
    rows = _rows(records, backward, groups.which, len(one))
    return Pairs(records, np.stack([end[one] for end in ends]), rows), keys[one]


def _rows(
    records: NDArray[np.void], backward: NDArray[np.bool_], pair: NDArray[np.int64], count: int
) -> NDArray[np.int64]:
    """The record that runs away from each end of each pair, shape (2, count).

    A packet that an interface takes in and sends out again is one packet: the fuller of the two
    hooks' records counts, and of equal ones the one inside a tunnel.
    """
    rows = np.full(2 * count, -1, dtype=np.int64)
    place = backward * count + pair
    rows[place] = np.arange(len(records))
    several = np.nonzero(np.bincount(place)[place] > 1)[0]
    rivals = records[several]
    order = several[np.lexsort((rivals["inner"], rivals["packets"]))]
    rows[place[order]] = order  # the last of equal indices wins
    return rows.reshape(2, count)


def ports_of(records: NDArray[np.void]) -> NDArray[np.uint16]:
    """Source and destination ports, shape (2, n); for ICMP both are type * 256 + code.

    The type of an answer is written as that of its request, so that the two make a pair.
    """
    ports = np.stack([records["sport"], records["dport"]])
    for protocol, request in REQUESTS:
        at = records["protocol"] == protocol
        ports[:, at] = request[ports[0, at] & 0xFF] * 256 + ports[1, at]
    return ports


def _asked_by_high(records: NDArray[np.void], backward: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Of ICMP, whether the higher end sent what is no answer; else False.

    Without ports, only this tells the exchange that one end began from the other end's.
    """
    asked = np.zeros(len(records), dtype=np.bool_)
    for protocol, request in REQUESTS:
        at = records["protocol"] == protocol
        kind = records["sport"][at] & 0xFF
        asked[at] = backward[at] == (request[kind] == kind)
    return asked


def address_of(ends: Bytes) -> NDArray[np.uint8]:
    """The address in an (address, port) key, shape (n, 16)."""
    return end_octets(ends)[:, :16]


def port_of(ends: Bytes) -> NDArray[np.int64]:
    """The port in an (address, port) key."""
    return end_octets(ends)[:, 16:].copy().view(">u2").reshape(len(ends)).astype(np.int64)


def end_octets(ends: Bytes) -> NDArray[np.uint8]:
    """Address and port of (address, port) keys, shape (n, 18)."""
    return octets(ends, ends.dtype.str)[:, :18]
