"""From one-way records to conversations: who opened the connection, and what became of it.

The kernel counts packets one way at a time and knows no roles. Here the two ways that an
interface saw are paired, the consumer is found by the surest evidence there is, and the
consumer's port, which tells nothing, is folded unless each is asked for.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ringfence.flows.keys import Bytes, group, join, octets, spots
from ringfence.flows.orientations import METHODS, UNDECIDED, Orientations
from ringfence.flows.owners import NOBODY, Owners
from ringfence.flows.pairs import (
    REQUESTS,
    Pairs,
    address_of,
    end_octets,
    pair_up,
    port_of,
)
from ringfence.flows.record import Nat, tuple_id
from ringfence.model.flow import Mode, Observer
from ringfence.model.protocol import ICMP, ICMPV6, TCP, UDP

__all__ = ["Listening", "Orientations", "conversations"]

_SYN, _SOCKET, _SERVICE, _DEGREE = range(4)

_IDLE_NS = 120 * 10**9
"""Silence after which a tuple is a new connection: the kernel's nf_conntrack_udp_timeout_stream."""

_EPHEMERAL = 32768
"""The first port that Linux gives to sockets by itself (net.ipv4.ip_local_port_range)."""

_TUNNEL = np.dtype(
    [("protocol", "u1"), ("consumer", "u1", 16), ("provider", "u1", 16), ("port", "u2")]
)


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
) -> dict[str, NDArray[np.generic]]:
    """One window's records (FLOW_DTYPE) as the columns of `wire.columns.FLOWS`, without names.

    There is at most one record for each interface, hook and tuple. `pod_interfaces` are the
    host sides of pods' veths: what a tunnel's packet carries there is only a pod's word, and left
    out. `service_ports` are (protocol, port) pairs that Services or container specifications
    declare. Updates `orientations`. In detailed mode a row stands for one port of the consumer,
    else for all of them. `owners` are the processes of this node.
    """
    claimed = (records["inner"] == 1) & np.isin(records["ifindex"], pod_interfaces)
    pairs = pair_up(records[~claimed] if claimed.any() else records)
    known = orientations.lookup(pairs.keys)
    consumer, method = _orient(pairs, known, listening, service_ports)
    forward, reverse = pairs.ways(consumer)
    counts = _count(pairs, known, forward, reverse)
    orientations.remember(pairs.keys, _learn(known, consumer, method, counts, pairs.last_ns))
    port = pairs.ports(consumer) if mode is Mode.DETAILED else np.zeros(len(pairs), np.uint16)
    return _fold(pairs, consumer, port, method, counts, pod_interfaces, owners)


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
    prefix = octets(pairs.keys, pairs.keys.dtype.str)[:, :5]
    ends = np.concatenate([join(prefix, end_octets(end)) for end in pairs.ends])
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


@dataclass(frozen=True)
class _Counts:
    """Connections counted in this window, per pair: a consumer may use a port again."""

    opened: NDArray[np.int64]
    answered: NDArray[np.int64]
    refused: NDArray[np.int64]
    waiting: NDArray[np.int64]
    """Those opened, now or earlier, that got no answer yet."""
    repeated: NDArray[np.bool_]
    """A SYN of an earlier window was sent again."""


def _count(
    pairs: Pairs,
    known: NDArray[np.void],
    forward: NDArray[np.int64],
    reverse: NDArray[np.int64],
) -> _Counts:
    """Count each opening and each answer once, in the window where it was first seen.

    A SYN before the answer repeats the opening; one after the answer is a new connection.
    """
    tcp = pairs.either("protocol") == TCP
    idle = pairs.last_ns - known["last_ns"] > _IDLE_NS
    open_before = known["opened"] & ~(idle & ~tcp)
    unanswered = open_before & ~known["answered"]
    syns = pairs.field(forward, "syn").astype(np.int64)
    repeated = unanswered & ~idle & (syns > 0)
    opened = np.where(tcp, syns - repeated, ~open_before & (forward >= 0))
    pending = opened + unanswered
    replies = np.where(tcp, pairs.field(reverse, "synack"), reverse >= 0)
    answered = np.minimum(pending, replies)
    resets = np.where(tcp, pairs.field(reverse, "rst"), 0)
    refused = np.minimum(pending - answered, resets)
    return _Counts(opened, answered, refused, pending - answered - refused, repeated)


def _learn(
    known: NDArray[np.void],
    consumer: NDArray[np.int8],
    method: NDArray[np.uint8],
    counts: _Counts,
    last_ns: NDArray[np.int64],
) -> NDArray[np.void]:
    learnt = known.copy()
    learnt["consumer"], learnt["method"], learnt["last_ns"] = consumer, method, last_ns
    learnt["opened"] |= counts.opened > 0
    learnt["answered"] = counts.waiting == 0
    return learnt


def _before(
    pairs: Pairs, forward: NDArray[np.int64], reverse: NDArray[np.int64], own: Bytes
) -> Bytes:
    """Consumers' and providers' ends before NAT, those of `own` where there was none.

    Either way's record may know them, and tells them in conntrack's direction, which is not the
    conversation's where conntrack picked a connection up from its middle.
    """
    there = pairs.field(forward, "nat") == Nat.TRANSLATED
    back = pairs.field(reverse, "nat") == Nat.TRANSLATED
    rows = np.where(there, forward, np.where(back, reverse, -1))
    against = pairs.field(rows, "reply") == there
    icmp = np.isin(pairs.either("protocol"), (ICMP, ICMPV6))
    source, target = (
        join(
            pairs.field(rows, f"original_{address}"),
            octets(np.where(icmp, port_of(own[1]), pairs.field(rows, f"original_{port}")), ">u2"),
        )
        for address, port in (("src", "sport"), ("dst", "dport"))
    )
    ends = np.stack([np.where(against, target, source), np.where(against, source, target)])
    return np.where(rows >= 0, ends, own)


def _told(ends: Bytes) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint16]]:
    """Consumer, provider and provider's port, as a row tells them."""
    return address_of(ends[0]), address_of(ends[1]), port_of(ends[1]).astype(np.uint16)


def _carriers(pairs: Pairs) -> NDArray[np.int64]:
    """The pair outside that carried each record of `rows`, shape (2, n), -1 where none did."""
    carriers = np.full(pairs.rows.shape, -1, dtype=np.int64)
    wanted = pairs.field(pairs.rows, "tunnel")
    inside = np.nonzero(wanted)
    if not len(inside[0]):
        return carriers
    ids = tuple_id(pairs.records[pairs.rows.ravel()])
    ids[pairs.rows.ravel() < 0] = 0
    order = np.argsort(ids)
    spot = np.minimum(np.searchsorted(ids, wanted[inside], sorter=order), len(ids) - 1)
    outside = order[spot]
    carriers[inside] = np.where(ids[outside] == wanted[inside], outside % len(pairs), -1)
    return carriers


def _tunnels(
    pairs: Pairs, carriers: NDArray[np.int64], consumer: NDArray[np.int8]
) -> NDArray[np.void]:
    """For each pair the conversation outside that carried it (_TUNNEL), zero where none did.

    That of the forward way, else of the reverse way, oriented as it is where it stands itself.
    """
    if (carriers < 0).all():
        return np.broadcast_to(np.zeros(1, dtype=_TUNNEL), len(pairs))
    tunnels = np.zeros(len(pairs), dtype=_TUNNEL)
    each = np.arange(len(pairs))
    forward, reverse = carriers[consumer, each], carriers[1 - consumer, each]
    outside = np.where(forward >= 0, forward, reverse)
    inside = np.nonzero(outside >= 0)[0]
    outside = outside[inside]
    opener = consumer[outside]
    answerer = pairs.ends[1 - opener, outside]
    tunnels["protocol"][inside] = pairs.either("protocol")[outside]
    tunnels["consumer"][inside] = address_of(pairs.ends[opener, outside])
    tunnels["provider"][inside] = address_of(answerer)
    tunnels["port"][inside] = port_of(answerer)
    return tunnels


def _carried(carriers: NDArray[np.int64], row: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """How many of `count` conversations each carried; `row` is the one that a pair is part of."""
    way, inside = np.nonzero(carriers >= 0)
    both = np.unique(row[carriers[way, inside]] * count + row[inside])
    return np.bincount(both // max(count, 1), minlength=count)


def _fold(
    pairs: Pairs,
    consumer: NDArray[np.int8],
    consumer_port: NDArray[np.uint16],
    method: NDArray[np.uint8],
    counts: _Counts,
    pod_interfaces: NDArray[np.uint32],
    owners: Owners,
) -> dict[str, NDArray[np.generic]]:
    """Sum over the consumer's ports that `consumer_port` does not tell apart."""
    each = np.arange(len(pairs))
    forward, reverse = pairs.ways(consumer)
    ends = pairs.ends[np.stack([consumer, 1 - consumer]), each]
    ends_before = _before(pairs, forward, reverse, ends)
    own, before = _told(ends), _told(ends_before)
    same = (own[0] == before[0]).all(1) & (ends[1] == ends_before[1])
    held = owners.of(pairs.either("protocol"), ends, ends_before)
    for column in before:  # which may be parts of `ends_before`
        column[same] = 0
    carriers = _carriers(pairs)
    tunnels = _tunnels(pairs, carriers, consumer)
    interface, protocol = pairs.either("ifindex"), pairs.either("protocol")
    key = join(
        octets(interface, ">u4"), protocol, own[0], own[1], octets(own[2], ">u2"),
        before[0], before[1], octets(before[2], ">u2"), octets(consumer_port, ">u2"),
        *(tunnels[name] for name in ("protocol", "consumer", "provider")),
        octets(tunnels["port"], ">u2"),
    )  # fmt: skip
    groups = group(key)
    order, starts = groups
    one, row = groups.one, groups.which

    def total(values: NDArray[np.generic], how: np.ufunc = np.add) -> NDArray[np.generic]:
        return how.reduceat(values[order], starts) if len(pairs) else values

    def sides(name: str, how: np.ufunc, kind: str) -> Mapping[str, NDArray[np.generic]]:
        column = {"flags": "tcp_flags", "syn": "syn_packets"}.get(name, name)
        ways = (("forward", forward), ("reverse", reverse))
        return {
            f"{way}_{name}": total(pairs.field(rows, column).astype(kind), how)
            for way, rows in ways
        }

    firsts = [
        np.where(rows >= 0, pairs.field(rows, "first_ns"), np.iinfo(np.int64).max)
        for rows in (forward, reverse)
    ]
    observer = np.where(np.isin(interface[one], pod_interfaces), Observer.POD, Observer.NODE)
    surest = total(method, np.minimum)
    return {
        "observer": observer.astype(np.uint8),
        "interface": interface[one],
        "protocol": protocol[one],
        "consumer": own[0][one],
        "provider": own[1][one],
        "consumer_port": consumer_port[one],
        "provider_port": own[2][one],
        "original_consumer": before[0][one],
        "original_provider": before[1][one],
        "original_provider_port": before[2][one],
        **{f"tunnel_{name}": tunnels[name][one] for name in _TUNNEL.names or ()},
        "carries": _carried(carriers, row, len(one)),
        "method": np.array(METHODS)[surest],
        "provider_dns_name": np.full(len(one), "", dtype=object),
        **sides("packets", np.add, "u8"),
        **sides("bytes", np.add, "u8"),
        **sides("flags", np.bitwise_or, "u2"),
        **sides("syn", np.add, "u4"),
        **sides("fin", np.add, "u4"),
        **sides("rst", np.add, "u4"),
        "forward_retransmitted": total(
            pairs.field(forward, "retransmitted") + counts.repeated.astype(np.uint32)
        ),
        "reverse_retransmitted": total(pairs.field(reverse, "retransmitted")),
        "opened": total(counts.opened.astype(np.uint64)),
        "answered": total(counts.answered.astype(np.uint64)),
        "refused": total(counts.refused.astype(np.uint64)),
        **_handshakes(pairs, np.where(counts.repeated, -1, reverse), total),
        **owners.columns("consumer", total(held[0], np.minimum)),
        **owners.columns("provider", total(held[1], np.minimum)),
        "first_ns": total(np.minimum(*firsts), np.minimum),
        "last_ns": total(pairs.last_ns, np.maximum),
    }


def _handshakes(
    pairs: Pairs, reverse: NDArray[np.int64], total: Callable[..., NDArray[np.generic]]
) -> dict[str, NDArray[np.generic]]:
    """How long the SYN-ACKs in `reverse` took: number, sum and least, which is 0 for none."""
    samples = pairs.field(reverse, "rtt_samples")
    never = np.iinfo(np.uint64).max
    least = total(np.where(samples > 0, pairs.field(reverse, "rtt_min_ns"), never), np.minimum)
    return {
        "rtt_samples": total(samples),
        "rtt_sum_ns": total(pairs.field(reverse, "rtt_sum_ns")),
        "rtt_min_ns": np.where(least == never, 0, least),
    }
