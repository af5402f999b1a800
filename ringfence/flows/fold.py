"""Pairs of records become rows: the consumers' ports that are not told apart are summed away.

What links records of one window (the tunnel that carried them, the address that they were turned
to) is found among all of them. Rows are written out in slices, for a flow map that is full holds
more than an agent has memory for as rows. A slice ends where a hop's rows end: of the interfaces
that saw a hop one is chosen to tell it, so they have to be told together.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ringfence.flows.counting import Counts
from ringfence.flows.keys import Bytes, group, join, octets
from ringfence.flows.orientations import METHODS
from ringfence.flows.owners import Owners, turned
from ringfence.flows.pairs import Pairs, address_of, port_of
from ringfence.flows.record import Nat, tuple_id
from ringfence.model.flow import Observer
from ringfence.model.protocol import ICMP, ICMPV6

SLICE = 16_384
"""Pairs; some 60 MB while they become rows, each of them another."""

_TUNNEL = np.dtype(
    [("protocol", "u1"), ("consumer", "u1", 16), ("provider", "u1", 16), ("port", "u2")]
)


@dataclass(frozen=True)
class Judged:
    """n pairs, and what was found out about each."""

    pairs: Pairs
    consumer: NDArray[np.int8]
    """Which end: 0 the low one, 1 the high one."""
    consumer_port: NDArray[np.uint16]
    """Zero where it is not told apart."""
    method: NDArray[np.uint8]
    """Index into METHODS."""
    counts: Counts

    def take(self, pairs: NDArray[np.int64]) -> "Judged":
        """Some of them."""
        return Judged(
            self.pairs.take(pairs),
            self.consumer[pairs],
            self.consumer_port[pairs],
            self.method[pairs],
            self.counts.take(pairs),
        )

    def ends(self) -> tuple[Bytes, Bytes]:
        """Consumers' and providers' ends, shape (2, n), and those before NAT, if they differ."""
        each = np.arange(len(self.pairs))
        own = self.pairs.ends[np.stack([self.consumer, 1 - self.consumer]), each]
        return own, _before(self.pairs, *self.pairs.ways(self.consumer), own)


class Conversations:
    """A window's conversations at each interface: rows, those of one hop side by side."""

    def __init__(self, judged: Judged, pod_interfaces: NDArray[np.uint32], owners: Owners) -> None:
        """`pod_interfaces` are the host sides of pods' veths."""
        self._judged, self._pod_interfaces, self._owners = judged, pod_interfaces, owners
        pairs = judged.pairs
        hops, self._turned = _hops(judged)
        carriers = _carriers(pairs)
        self._tunnel, self._tunnels = _tunnels(pairs, carriers, judged.consumer)
        columns = (hops, pairs.either("ifindex"), self._tunnel)
        self._order = np.lexsort(columns[::-1])
        ordered = [column[self._order] for column in columns]
        begins = _begins(*ordered)
        self._hops = np.flatnonzero(_begins(ordered[0]))
        # Of n rows n + 1: row i is the pairs from the i-th to the next, in `_order`.
        self._bounds = np.append(np.flatnonzero(begins), len(pairs))
        row = np.empty(len(pairs), dtype=np.int64)
        row[self._order] = np.cumsum(begins) - 1
        self._carries = _carried(carriers, row, len(self))

    def __len__(self) -> int:
        return len(self._bounds) - 1

    def cut(self, most: int = SLICE) -> list[slice]:
        """Rows in slices of about `most` pairs, at least one, each at the end of a hop."""
        count = len(self._order)
        ends = np.append(self._hops[1:], count)
        cuts = np.unique(ends[np.searchsorted(ends, np.arange(most, count, most))])
        rows = np.searchsorted(self._bounds, [0, *cuts[cuts < count], count])
        return [slice(*one) for one in np.stack([rows[:-1], rows[1:]], axis=1).tolist()]

    def columns(self, rows: slice | None = None) -> dict[str, NDArray[np.generic]]:
        """Rows, all of them by default, as `wire.columns.FLOWS`, without names."""
        if rows is None:
            rows = slice(0, len(self))
        bounds = self._bounds[rows.start : rows.stop + 1]
        mine = self._order[bounds[0] : bounds[-1]]
        part = self._judged.take(mine)
        one = bounds[:-1] - bounds[0]
        tunnels = self._tunnels[self._tunnel[mine[one]]]
        ends = part.ends()
        held = self._owners.of(part.pairs.either("protocol"), *ends, self._turned[mine])
        interface = part.pairs.either("ifindex")[one]
        at_pod = np.isin(interface, self._pod_interfaces)
        own, before = _told(ends[0][:, one]), _told(_original(*ends)[:, one])
        return {
            "observer": np.where(at_pod, Observer.POD, Observer.NODE).astype(np.uint8),
            "interface": interface,
            "protocol": part.pairs.either("protocol")[one],
            "consumer": own[0],
            "provider": own[1],
            "consumer_port": part.consumer_port[one],
            "provider_port": own[2],
            "original_consumer": before[0],
            "original_provider": before[1],
            "original_provider_port": before[2],
            **{f"tunnel_{name}": tunnels[name] for name in _TUNNEL.names or ()},
            "carries": self._carries[rows],
            "provider_dns_name": np.full(len(one), "", dtype=object),
            **_totals(part, one),
            **self._owners.columns("consumer", np.minimum.reduceat(held[0], one)),
            **self._owners.columns("provider", np.minimum.reduceat(held[1], one)),
        }


def _totals(part: Judged, starts: NDArray[np.int64]) -> dict[str, NDArray[np.generic]]:
    """What is summed up, or chosen, of each row's pairs, which begin at `starts`."""
    pairs, counts = part.pairs, part.counts
    forward, reverse = pairs.ways(part.consumer)

    def total(values: NDArray[np.generic], how: np.ufunc = np.add) -> NDArray[np.generic]:
        return how.reduceat(values, starts)

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
    return {
        "method": np.array(METHODS)[total(part.method, np.minimum)],
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
        "first_ns": total(np.minimum(*firsts), np.minimum),
        "last_ns": total(pairs.last_ns, np.maximum),
    }


def _begins(*columns: NDArray[np.generic]) -> NDArray[np.bool_]:
    """Whether another value begins in any of these ordered columns."""
    begins = np.zeros(len(columns[0]), dtype=np.bool_)
    begins[:1] = True
    for column in columns:
        begins[1:] |= column[1:] != column[:-1]
    return begins


def _hops(judged: Judged) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """A number for each pair's hop, the tuples that interfaces see alike, and `turned`."""
    protocol = judged.pairs.either("protocol")
    own, before = judged.ends()
    ends = (_told(own), _told(_original(own, before)))
    told = (part for one in ends for part in (one[0], one[1], octets(one[2], ">u2")))
    key = join(protocol, octets(judged.consumer_port, ">u2"), *told)
    return group(key).which, turned(protocol, own, before)


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
    if (rows < 0).all():
        return own
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


def _original(own: Bytes, before: Bytes) -> Bytes:
    """Ends before NAT as a row tells them: empty where they are the same."""
    same = (address_of(own[0]) == address_of(before[0])).all(1) & (own[1] == before[1])
    return np.where(same, b"", before)


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
    ids = np.where(pairs.rows >= 0, tuple_id(pairs.records)[pairs.rows], 0).ravel()
    order = np.argsort(ids)
    spot = np.minimum(np.searchsorted(ids, wanted[inside], sorter=order), len(ids) - 1)
    outside = order[spot]
    carriers[inside] = np.where(ids[outside] == wanted[inside], outside % len(pairs), -1)
    return carriers


def _tunnels(
    pairs: Pairs, carriers: NDArray[np.int64], consumer: NDArray[np.int8]
) -> tuple[NDArray[np.int64], NDArray[np.void]]:
    """For each pair the tunnel that carried it, as its place among the tunnels (_TUNNEL).

    It is that of the forward way, else of the reverse way, oriented as it is where it stands
    itself. The first of the tunnels is none, and all zero.
    """
    which, tunnels = np.zeros(len(pairs), dtype=np.int64), np.zeros(1, dtype=_TUNNEL)
    each = np.arange(len(pairs))
    forward, reverse = carriers[consumer, each], carriers[1 - consumer, each]
    outside = np.where(forward >= 0, forward, reverse)
    inside = np.flatnonzero(outside >= 0)
    if not len(inside):
        return which, tunnels
    carrying, carrier = np.unique(outside[inside], return_inverse=True)
    opener = consumer[carrying]
    protocol = pairs.either("protocol")[carrying]
    told = _told(pairs.ends[np.stack([opener, 1 - opener]), carrying])
    groups = group(join(protocol, told[0], told[1], octets(told[2], ">u2")))
    which[inside] = groups.which[carrier] + 1
    found = np.zeros(len(groups.starts), dtype=_TUNNEL)
    columns = (protocol, *told)
    for name, column in zip(_TUNNEL.names or (), columns, strict=True):
        found[name] = column[groups.one]
    return which, np.concatenate([tunnels, found])


def _carried(carriers: NDArray[np.int64], row: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """How many of `count` conversations each carried; `row` is the one that a pair is part of."""
    way, inside = np.nonzero(carriers >= 0)
    both = np.unique(row[carriers[way, inside]] * count + row[inside])
    return np.bincount(both // max(count, 1), minlength=count)


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
