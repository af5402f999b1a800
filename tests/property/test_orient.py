"""Laws of orientation, on random connections seen from random sides."""

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ringfence.flows.orient import Listening, Orientations, conversations
from ringfence.flows.record import FLOW_DTYPE, Hook
from ringfence.model.protocol import ICMP, ICMPV6, TCP

NOTHING_LISTENS = Listening(
    np.empty(0, np.uint8), np.empty((0, 16), np.uint8), np.empty(0, np.uint16)
)

CONNECTIONS = st.lists(
    st.tuples(
        st.integers(1, 4),  # interface
        st.integers(1, 3),  # client
        st.integers(1, 65535),
        st.integers(4, 6),  # server
        st.sampled_from([80, 443, 50000]),
        st.integers(1, 1000),  # packets each way
    ),
    min_size=1,
    max_size=40,
    unique_by=lambda drawn: drawn[:5],
)


PINGS = st.lists(
    st.tuples(
        st.integers(1, 2),  # interface
        st.integers(1, 3),  # who asks
        st.integers(1, 3),  # who answers
        st.integers(1, 1000),  # requests
        st.integers(0, 1000),  # answers
    ).filter(lambda drawn: drawn[1] != drawn[2]),
    min_size=1,
    unique_by=lambda drawn: drawn[:3],
)


def ways(drawn: list[tuple[int, ...]]) -> NDArray[np.void]:
    records = np.zeros((len(drawn), 2), dtype=FLOW_DTYPE)
    for (there, back), (interface, client, port, server, service, packets) in zip(
        records, drawn, strict=True
    ):
        for way, hook, source, target in (
            (there, Hook.INGRESS, (client, port), (server, service)),
            (back, Hook.EGRESS, (server, service), (client, port)),
        ):
            way["ifindex"], way["hook"], way["protocol"] = interface, hook, TCP
            way["src"][15], way["sport"] = source
            way["dst"][15], way["dport"] = target
            way["packets"], way["bytes"] = packets, packets * 60
            way["first_ns"] = way["last_ns"] = 10**9
        there["syn"], back["synack"] = 1, 1
    return records.reshape(-1)


def told(records: NDArray[np.void], state: Orientations) -> set[tuple[Any, ...]]:
    at_pods = np.array([1], np.uint32)
    columns = conversations(records, at_pods, NOTHING_LISTENS, frozenset(), state).columns()
    names = ("interface", "provider_port", "forward_packets", "reverse_packets", "opened")
    ends = [columns[name][:, 15].tolist() for name in ("consumer", "provider")]
    return set(zip(*ends, *(columns[name].tolist() for name in names), strict=True))


@given(CONNECTIONS, st.randoms(use_true_random=False))
def test_order_means_nothing_and_sums_are_kept(drawn: list[tuple[int, ...]], random: Any) -> None:
    records = ways(drawn)
    order = list(range(len(records)))
    random.shuffle(order)
    rows = told(records, Orientations())
    assert told(records[order], Orientations()) == rows
    assert all(consumer < 4 <= provider for consumer, provider, *_ in rows)
    total = sum(packets for *_, packets in drawn)
    assert [sum(row[at] for row in rows) for at in (4, 5, 6)] == [total, total, len(drawn)]


@given(PINGS, st.sampled_from([(ICMP, 8, 0), (ICMP, 13, 14), (ICMPV6, 128, 129)]))
def test_each_end_may_ask_the_other(
    drawn: list[tuple[int, ...]], message: tuple[int, int, int]
) -> None:
    protocol, request, answer = message
    records = np.zeros((len(drawn), 2), dtype=FLOW_DTYPE)
    for pair, (interface, asks, answers, *packets) in zip(records, drawn, strict=True):
        pair["ifindex"], pair["protocol"], pair["packets"] = interface, protocol, packets
        pair["hook"], pair["sport"] = (Hook.INGRESS, Hook.EGRESS), (request, answer)
        pair["src"][:, 15], pair["dst"][:, 15] = (asks, answers), (answers, asks)
    seen = records[records["packets"] > 0]
    assert told(seen, Orientations()) == {
        (asks, answers, interface, request * 256, requests, replies, 1)
        for interface, asks, answers, requests, replies in drawn
    }


@given(CONNECTIONS)
def test_a_later_window_without_syn_keeps_the_direction(drawn: list[tuple[int, ...]]) -> None:
    records, state = ways(drawn), Orientations()
    first = told(records, state)
    records["syn"], records["synack"] = 0, 0
    later = told(records, state)
    assert {row[:4] for row in later} == {row[:4] for row in first}
    assert {row[6] for row in later} == {0}, "nothing opens twice"
