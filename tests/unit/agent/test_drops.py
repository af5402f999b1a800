"""Drop reports: what was added since the last reading, and where it was dropped."""

from pathlib import Path
from typing import Any

import numpy as np

from ringfence.agent.drops import DropLedger
from ringfence.agent.pods import Place
from ringfence.kernel.drops import DROP_DTYPE
from ringfence.kernel.rules import Drops
from ringfence.model.address import Address, parse_address
from ringfence.model.flow import DropSource, Observer
from ringfence.model.policy import Direction
from ringfence.model.protocol import TCP
from ringfence.policy.backends.interface import Denial
from ringfence.wire import batch

POD = Place("uid1", Path("/run/netns/pod"), 41)
NODE = Place("", Path("/proc/self/ns/net"), 42)
CATCH_ALL, P1 = 7, 8
DENIALS = {
    CATCH_ALL: Denial("w/catch-all", Direction.INBOUND),
    P1: Denial("w/p1", Direction.OUTBOUND),
}
A, B = parse_address("10.0.0.1"), parse_address("10.0.0.2")


def _drops(
    *rows: tuple[int, Address, Address, int, int],
    expires: int = 600,
    overflow: dict[int, int] | None = None,
) -> Drops:
    columns = zip(*rows, strict=True) if rows else [()] * 5
    marks, sources, destinations, ports, packets = columns
    return Drops(
        mark=np.array(marks, dtype=np.uint32),
        protocol=np.full(len(rows), TCP, dtype=np.uint8),
        source=np.frombuffer(b"".join(sources), np.uint8).reshape(-1, 16),
        destination=np.frombuffer(b"".join(destinations), np.uint8).reshape(-1, 16),
        port=np.array(ports, dtype=np.uint16),
        packets=np.array(packets, dtype=np.uint64),
        expires=np.full(len(rows), expires, dtype=np.uint32),
        overflow=overflow or {},
    )


def _taken(ledger: DropLedger) -> list[dict[str, Any]]:
    (part,) = ledger.take()
    drops, more = part
    assert not more
    rows: list[dict[str, Any]] = batch.decode(batch.DROPS, drops).to_pylist()
    return rows


def _seen(ledger: DropLedger) -> list[tuple[str, str, int, int, int]]:
    rows = _taken(ledger)
    return [
        (r["rule"], r["direction"], r["provider_port"], r["packets"], r["overflow"]) for r in rows
    ]


def test_a_reading_reports_what_was_added_since_the_one_before() -> None:
    ledger = DropLedger()
    first = (CATCH_ALL, A, B, 80, 3)
    ledger.read(POD, DENIALS, _drops(first))
    ledger.read(POD, DENIALS, _drops((CATCH_ALL, A, B, 80, 5)))
    assert _seen(ledger) == [
        ("w/catch-all", "inbound", 80, 3, 0),
        ("w/catch-all", "inbound", 80, 2, 0),
    ]
    other = (P1, A, B, 0, 1)
    ledger.read(POD, DENIALS, _drops((CATCH_ALL, A, B, 80, 5), other))
    assert _seen(ledger) == [("w/p1", "outbound", 0, 1, 0)]
    # The tuple timed out and came back: its counter began anew.
    ledger.read(POD, DENIALS, _drops((CATCH_ALL, A, B, 80, 1)))
    assert _seen(ledger) == [("w/catch-all", "inbound", 80, 1, 0)]
    # Another rule denies the same tuple now.
    ledger.read(POD, DENIALS, _drops((P1, A, B, 80, 1)))
    assert _seen(ledger) == [("w/p1", "outbound", 80, 1, 0)]
    ledger.read(POD, DENIALS, _drops((99, A, B, 80, 1)))  # a mark that nobody of us sets
    assert not _seen(ledger)
    ledger.forget(POD)
    ledger.read(POD, DENIALS, _drops((CATCH_ALL, A, B, 80, 1)))
    assert _seen(ledger) == [("w/catch-all", "inbound", 80, 1, 0)]


def test_what_recurs_as_soon_as_it_is_forgotten_is_counted_each_time() -> None:
    """Three SYNs every ten minutes and a bit, of which the counter tells three each time."""
    times = iter([0, 15, 30, 45])
    ledger = DropLedger(lambda: next(times))
    three, four = ((CATCH_ALL, A, B, 80, count) for count in (3, 4))
    told = []
    for drops in (
        _drops(three, expires=595),
        _drops(three, expires=10),  # it is held all the time
        _drops(three, expires=590),  # its ten seconds were over when it came again
        _drops(four, expires=600),
    ):
        ledger.read(POD, DENIALS, drops)
        told.append([row[3] for row in _seen(ledger)])
    assert told == [[3], [], [3], [1]]


def test_overflow_is_counted_once() -> None:
    ledger = DropLedger()
    ledger.read(POD, DENIALS, _drops(overflow={P1: 7, 99: 1}))
    ledger.read(POD, DENIALS, _drops(overflow={P1: 9}))
    assert [(row[0], row[4]) for row in _seen(ledger)] == [("w/p1", 7), ("w/p1", 2)]


def test_drops_of_others_are_placed() -> None:
    ledger = DropLedger()
    records = np.zeros(3, DROP_DTYPE)
    for row, (inode, source, destination, port) in zip(
        records,
        [(41, A, B, 81), (42, B, A, 80), (99, A, B, 80)],
        strict=True,
    ):
        row["netns"], row["protocol"], row["dport"], row["packets"] = inode, TCP, port, 2
        row["src"], row["dst"] = (np.frombuffer(end, np.uint8) for end in (source, destination))
    ledger.read_others(records, {POD: (B,), NODE: (B,)})
    rows = _taken(ledger)
    assert [
        (r["source"], r["observer"], r["pod"], r["direction"], r["provider_port"], r["reason"])
        for r in rows
    ] == [
        (DropSource.OTHER, Observer.POD, "uid1", "inbound", 81, "NETFILTER_DROP"),
        (DropSource.OTHER, Observer.NODE, "", "outbound", 80, "NETFILTER_DROP"),
    ]
