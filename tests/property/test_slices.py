"""Laws of slices: cut anywhere, a window has the same rows, and the same ones are exported."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ringfence.control.exports import told_here
from ringfence.control.labelling import Report, label
from ringfence.flows.fold import Conversations
from ringfence.flows.orient import Listening, Orientations, conversations
from ringfence.flows.owners import Owners, Process, socket_keys
from ringfence.flows.record import FLOW_DTYPE, Nat, tuple_id
from ringfence.inventory.timeline import Timeline
from ringfence.model.flow import Mode
from ringfence.model.protocol import TCP, UDP
from ringfence.store.flows.store import BatchKey
from ringfence.wire import batch

NODE, PODS = 3, np.array([1, 2], np.uint32)
TUNNELS = (50, 51)
"""The ports from which the node's tunnels send."""
PORTS, CLIENTS, SERVERS = st.integers(1, 4), st.integers(1, 3), st.integers(11, 13)
CONNECTIONS = st.lists(
    st.tuples(
        st.tuples(st.sampled_from([TCP, UDP]), CLIENTS, PORTS, SERVERS, PORTS),
        st.sampled_from([(1,), (1, 2), (1, NODE), (NODE,)]),
        st.booleans(),
        st.sampled_from([None, 40, 41]),
        st.sampled_from([None, *TUNNELS]),
    ),
    max_size=60,
    unique_by=lambda drawn: drawn[0],
)
"""Tuple; the interfaces that see it; whether its SYN was seen; the address that was dialled, which
the second interface knows; the port of the tunnel at the node's interface."""


def _record(ifindex: int, of: tuple[int, ...], packets: int) -> NDArray[np.void]:
    row = np.zeros(1, FLOW_DTYPE)
    row["ifindex"], row["packets"], row["first_ns"], row["last_ns"] = ifindex, packets, 1, packets
    row["protocol"], row["src"][0, 15], row["sport"], row["dst"][0, 15], row["dport"] = of
    return row


def _window(drawn: Sequence[Any]) -> NDArray[np.void]:
    outside = [_record(NODE, (UDP, 101, port, 102, 4789), 99) for port in TUNNELS]
    carriers = dict(zip(TUNNELS, map(tuple_id, outside), strict=True))
    rows = [*outside]
    for number, (ends, seen, syn, dialled, tunnel) in enumerate(drawn, 1):
        protocol, client, cport, server, port = ends
        ways = ends, (protocol, server, port, client, cport)
        for ifindex, back in itertools.product(seen, (False, True)):
            row = _record(ifindex, ways[back], number)
            row["syn"] = syn and protocol == TCP and not back
            if dialled is not None and ifindex != 1:
                row["nat"], row["reply"] = Nat.TRANSLATED, back
                row["original_src"][0, 15], row["original_sport"] = client, cport
                row["original_dst"][0, 15], row["original_dport"] = dialled, 80
            if tunnel is not None and ifindex == NODE:
                row["inner"], row["tunnel"] = 1, carriers[tunnel]
            rows.append(row)
    return np.concatenate(rows)


def _judged(records: NDArray[np.void], mode: Mode) -> Conversations:
    """Each server's ports have somebody who listens there."""
    sockets = np.array(list(itertools.product(range(11, 14), range(1, 5))))
    address, nowhere = np.zeros((2, len(sockets), 16), np.uint8)
    address[:, 15] = sockets[:, 0]
    keys = socket_keys(
        np.full(len(sockets), TCP, np.uint8),
        (address, sockets[:, 1].astype(np.uint16)),
        (nowhere, np.zeros(len(sockets), np.uint16)),
    )
    owners = Owners(keys, [Process(1 + at, "server", "") for at in range(len(sockets))])
    silent = Listening(np.empty(0, np.uint8), np.empty((0, 16), np.uint8), np.empty(0, np.uint16))
    return conversations(records, PODS, silent, frozenset(), Orientations(), mode, owners)


def _told(columns: dict[str, Any]) -> list[dict[str, Any]]:
    return list(batch.table(batch.FLOWS, columns).to_pylist())


def _exported(parts: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each part comes as a report of its own."""
    told: list[dict[str, Any]] = []
    for number, part in enumerate(parts):
        key = BatchKey("default", "lab", "node1", str(number), 0, 100)
        table = batch.table(batch.FLOWS, part)
        rows, _ = label([Report(key, table, batch.DROPS.empty_table())], Timeline())
        told += rows.take(pa.array(told_here(rows, {"node1"}))).to_pylist()
    return told


@given(
    CONNECTIONS,
    st.integers(1, 60),
    st.sampled_from(Mode),
    st.randoms(use_true_random=False),
)
def test_a_window_is_the_same_however_it_is_cut(
    drawn: list[Any], most: int, mode: Mode, random: Any
) -> None:
    records = _window(drawn)
    whole = _judged(records, mode)
    shuffled = list(range(len(records)))
    random.shuffle(shuffled)
    found = _judged(records[shuffled], mode)
    parts = [found.columns(rows) for rows in found.cut(most)]
    rows = [row for part in parts for row in _told(part)]
    assert rows == _told(whole.columns())
    by_hop = sorted(_exported(parts), key=repr)
    assert by_hop == sorted(_exported([whole.columns()]), key=repr)


@given(CONNECTIONS, st.integers(1, 60))
def test_slices_are_bounded_and_whole(drawn: list[Any], most: int) -> None:
    found = _judged(_window(drawn), Mode.DETAILED)
    cut = found.cut(most)
    assert [0, *(rows.stop for rows in cut)] == [*(rows.start for rows in cut), len(found)]
    # Of a detailed hop an interface has one pair.
    assert all(0 < rows.stop - rows.start < most + len({1, 2, NODE}) for rows in cut)


def test_a_window_without_rows_is_one_slice() -> None:
    found = _judged(np.empty(0, FLOW_DTYPE), Mode.CONVERSATION)
    assert [_told(found.columns(rows)) for rows in found.cut()] == [[]]
