"""From one-way records to conversations: who opened the connection, and what became of it.

The kernel counts packets one way at a time and knows no roles. Here the two ways that an
interface saw are paired, the consumer is found by the surest evidence there is, and the
consumer's port, which tells nothing, is folded unless each is asked for.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ringfence.flows.counting import Counts, count
from ringfence.flows.fold import Conversations, Judged
from ringfence.flows.keys import group, join, octets, spots
from ringfence.flows.orientations import UNDECIDED, Orientations
from ringfence.flows.owners import NOBODY, Owners
from ringfence.flows.pairs import (
    REQUESTS,
    Pairs,
    end_octets,
    pair_up,
    port_of,
)
from ringfence.model.flow import Mode
from ringfence.model.protocol import TCP, UDP

__all__ = ["Listening", "Orientations", "conversations"]

_SYN, _SOCKET, _SERVICE, _DEGREE = range(4)

_EPHEMERAL = 32768
"""The first port that Linux gives to sockets by itself (net.ipv4.ip_local_port_range)."""


@dataclass(frozen=True)
class Listening:
    """n listening sockets; the caller writes a wildcard as each address of its namespace."""

    protocol: NDArray[np.uint8]
    address: NDArray[np.uint8]
    """Shape (n, 16)."""
    port: NDArray[np.uint16]


def conversations(
    records: NDArray[np.void],
    pod_interfaces: NDArray[np.uint32],
    listening: Listening,
    service_ports: frozenset[tuple[int, int]],
    orientations: Orientations,
    mode: Mode = Mode.CONVERSATION,
    owners: Owners = NOBODY,
) -> Conversations:
    """The conversations among all of a window's records (FLOW_DTYPE).

    There is at most one record for each interface, hook and tuple. `pod_interfaces` are the
    host sides of pods' veths: what a tunnel's packet carries there is only a pod's word, and left
    out. `service_ports` are (protocol, port) pairs that Services or container specifications
    declare. Updates `orientations`. In detailed mode a row stands for one port of the consumer,
    else for all of them. `owners` are the processes of this node.
    """
    claimed = (records["inner"] == 1) & np.isin(records["ifindex"], pod_interfaces)
    if claimed.any():
        records = records[~claimed]
    judged = _judge(records, listening, service_ports, orientations, mode)
    return Conversations(judged, pod_interfaces, owners)


def _judge(
    records: NDArray[np.void],
    listening: Listening,
    service_ports: frozenset[tuple[int, int]],
    orientations: Orientations,
    mode: Mode,
) -> Judged:
    pairs, keys = pair_up(records)
    known = orientations.lookup(keys)
    consumer, method = _orient(pairs, known, listening, service_ports)
    forward, reverse = pairs.ways(consumer)
    counts = count(pairs, known, forward, reverse)
    orientations.remember(keys, _learn(known, consumer, method, counts, pairs.last_ns))
    port = pairs.ports(consumer) if mode is Mode.DETAILED else np.zeros(len(pairs), np.uint16)
    return Judged(pairs, consumer, port, method, counts)


def _orient(
    pairs: Pairs,
    known: NDArray[np.void],
    listening: Listening,
    service_ports: frozenset[tuple[int, int]],
) -> tuple[NDArray[np.int8], NDArray[np.uint8]]:
    """Which end (0 low, 1 high) is the consumer, and by which method (index into METHODS).

    Each step is evidence that an end is the consumer or the provider; the first that tells the
    two ends apart decides.
    """
    protocol = pairs.either("protocol")
    provides = [_provides(pairs, protocol, end, listening, service_ports) for end in (0, 1)]
    consumer = np.full(len(pairs), UNDECIDED, dtype=np.int8)
    method = np.full(len(pairs), _DEGREE, dtype=np.uint8)

    def settle(code: int, high_minus_low: NDArray[np.integer]) -> None:
        now = (consumer == UNDECIDED) & (high_minus_low != 0)
        consumer[now] = high_minus_low[now] > 0
        method[now] = code

    settle(_SYN, _opens(pairs, 1) - _opens(pairs, 0))
    settle(_SOCKET, provides[0][0] - provides[1][0])
    settle(_SERVICE, _asks_icmp(pairs, protocol, 1) - _asks_icmp(pairs, protocol, 0))
    settle(_SERVICE, provides[0][1] - provides[1][1])
    # The past is as sure as what follows.
    if ((consumer == UNDECIDED) & (known["method"] > _DEGREE)).any():
        settle(_DEGREE, _degree(pairs))
        settle(_DEGREE, _first_packet(pairs, protocol))
    consumer[consumer == UNDECIDED] = 1
    before = (known["method"] <= method) & (method != _SYN)
    consumer[before], method[before] = known["consumer"][before], known["method"][before]
    return consumer, method


def _opens(pairs: Pairs, end: int) -> NDArray[np.int64]:
    """Packets that show that this end opened: its SYNs, and the SYN-ACKs to it."""
    away, back = pairs.rows[end], pairs.rows[1 - end]
    return np.asarray(pairs.field(away, "syn") + pairs.field(back, "synack"), dtype=np.int64)


def _provides(
    pairs: Pairs,
    protocol: NDArray[np.generic],
    end: int,
    listening: Listening,
    service_ports: frozenset[tuple[int, int]],
) -> tuple[NDArray[np.int8], NDArray[np.int8]]:
    """Whether the end listens, and whether its port is a declared one."""
    sockets = join(listening.protocol, listening.address, octets(listening.port, ">u2"))
    listens = spots(join(protocol, end_octets(pairs.ends[end])), np.sort(sockets)) >= 0
    numbers = np.array([number << 16 | port for number, port in service_ports], dtype=np.int64)
    declared = np.isin(protocol.astype(np.int64) << 16 | port_of(pairs.ends[end]), numbers)
    return listens.astype(np.int8), declared.astype(np.int8)


def _asks_icmp(pairs: Pairs, protocol: NDArray[np.generic], end: int) -> NDArray[np.int8]:
    """1 where this end sent an ICMP request, -1 where it sent the answer to one, else 0."""
    kind = pairs.field(pairs.rows[end], "sport").astype(np.int64) & 0xFF
    asks = np.zeros(len(pairs), dtype=np.int8)
    for number, request in REQUESTS:
        answers = request[kind] != kind
        answered = np.isin(kind, request[request != np.arange(len(request))])
        sent = (pairs.rows[end] >= 0) & (protocol == number)
        asks[sent & answered], asks[sent & answers] = 1, -1
    return asks


def _degree(pairs: Pairs) -> NDArray[np.int64]:
    """How many more peers the low end has than the high one: many clients share one provider."""
    prefix = octets(pairs.either("ifindex"), ">u4"), pairs.either("protocol")
    ends = np.concatenate([join(*prefix, end_octets(end)) for end in pairs.ends])
    groups = group(ends)
    low, high = groups.sizes[groups.which].reshape(2, len(pairs))
    return np.asarray(low - high)


def _first_packet(pairs: Pairs, protocol: NDArray[np.generic]) -> NDArray[np.int64]:
    """Among equals: of TCP, the higher port opened; of UDP, the one that a kernel picked.

    Else who sent a packet that none preceded, which is wrong where a window begins with an answer.
    """
    never = np.iinfo(np.int64).max
    first = [
        np.where(rows >= 0, pairs.field(rows, "first_ns").astype(np.int64), never)
        for rows in pairs.rows
    ]
    by_time = np.sign((first[0] > first[1]).astype(np.int64) - (first[0] < first[1]))
    low, high = (port_of(end) for end in pairs.ends)
    picked = (high >= _EPHEMERAL).astype(np.int64) - (low >= _EPHEMERAL)
    by_port = np.select([protocol == TCP, protocol == UDP], [high - low, picked])
    return np.where(by_port != 0, by_port, by_time)


def _learn(
    known: NDArray[np.void],
    consumer: NDArray[np.int8],
    method: NDArray[np.uint8],
    counts: Counts,
    last_ns: NDArray[np.int64],
) -> NDArray[np.void]:
    learnt = known.copy()
    learnt["consumer"], learnt["method"], learnt["last_ns"] = consumer, method, last_ns
    learnt["opened"] |= counts.opened > 0
    learnt["answered"] = counts.waiting == 0
    return learnt
