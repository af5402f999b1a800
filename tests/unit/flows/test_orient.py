"""Orientation: who opened, by which evidence, and what was counted."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ringfence.flows.orient import Listening, Orientations, conversations
from ringfence.flows.owners import NOBODY, Owners
from ringfence.flows.record import FLOW_DTYPE, Hook, Nat, tuple_id
from ringfence.model.address import format_address, parse_address
from ringfence.model.flow import Mode
from ringfence.model.protocol import ICMP, TCP, UDP

SECOND = 10**9
POD, NODE = 7, 2
CLIENT, SERVER, VIP, OUTSIDE = "10.1.0.5", "10.1.1.6", "10.96.0.9", "192.0.2.1"


def record(src: str, dst: str, hook: Hook = Hook.INGRESS, **fields: Any) -> dict[str, Any]:
    """`src` and `dst` are address:port."""
    ends = {}
    for name, end in (("src", src), ("dst", dst)):
        address, _, port = end.rpartition(":")
        ends[name] = address
        ends[name[0] + "port"] = port
    return {"hook": hook, **ends, **fields}


def pack(*records: dict[str, Any]) -> NDArray[np.void]:
    packed = np.zeros(len(records), dtype=FLOW_DTYPE)
    for row, given in zip(packed, records, strict=True):
        values = {
            "ifindex": POD, "protocol": TCP, "packets": 1, "bytes": 60, "first_ns": SECOND,
            "last_ns": SECOND,
        } | given  # fmt: skip
        for name, value in values.items():
            text = isinstance(value, str) and "." in value
            row[name] = np.frombuffer(parse_address(value), "u1") if text else int(value)
    return packed


def listen(*sockets: tuple[int, str, int]) -> Listening:
    return Listening(
        np.array([protocol for protocol, _, _ in sockets], dtype=np.uint8),
        np.array([list(parse_address(at)) for _, at, _ in sockets], dtype=np.uint8).reshape(-1, 16),
        np.array([port for _, _, port in sockets], dtype=np.uint16),
    )


def run(
    *records: dict[str, Any],
    listening: Listening | None = None,
    services: frozenset[tuple[int, int]] = frozenset(),
    state: Orientations | None = None,
    mode: Mode = Mode.CONVERSATION,
    owners: Owners = NOBODY,
) -> list[dict[str, Any]]:
    columns = conversations(
        pack(*records),
        np.array([POD], dtype=np.uint32),
        listening or listen(),
        services,
        state if state is not None else Orientations(),
        mode,
        owners,
    ).columns()
    rows = []
    for at in range(len(columns["protocol"])):
        row = {name: values[at] for name, values in columns.items()}
        row = {
            name: value.as_py() if hasattr(value, "as_py") else value for name, value in row.items()
        }
        for name in ("consumer", "provider", "original_consumer", "original_provider"):
            row[name] = format_address(row[name].tobytes())
        rows.append(row)
    return rows


def handshake(port: int, at: int = SECOND) -> tuple[dict[str, Any], dict[str, Any]]:
    times: dict[str, Any] = {"first_ns": at, "last_ns": at}
    return (
        record(f"{CLIENT}:{port}", f"{SERVER}:80", syn=1, packets=5, tcp_flags=0x1B, **times),
        record(
            f"{SERVER}:80", f"{CLIENT}:{port}", Hook.EGRESS, synack=1, packets=4, tcp_flags=0x12,
            **times,
        ),
    )  # fmt: skip


def test_connections_fold_into_one_conversation() -> None:
    (row,) = run(*handshake(40000), *handshake(40001, at=3 * SECOND))
    assert (row["consumer"], row["provider"], row["provider_port"]) == (CLIENT, SERVER, 80)
    assert (row["forward_packets"], row["reverse_packets"]) == (10, 8)
    assert (row["forward_flags"], row["reverse_flags"]) == (0x1B, 0x12)
    assert (row["opened"], row["answered"], row["refused"]) == (2, 2, 0)
    assert (row["first_ns"], row["last_ns"], row["observer"]) == (SECOND, 3 * SECOND, 1)
    assert (row["method"], row["consumer_port"]) == ("syn", 0)
    assert row["original_provider"] == "::"


def test_in_detail_each_port_of_the_consumer_has_a_row_and_the_sums_are_the_same() -> None:
    ping = record(f"{CLIENT}:0", f"{SERVER}:0", protocol=ICMP, sport=8, packets=3)
    window = (*handshake(40000), *handshake(40001), ping)
    folded, detailed = run(*window), run(*window, mode=Mode.DETAILED)
    assert [row["consumer_port"] for row in folded] == [0, 0]
    assert sorted(row["consumer_port"] for row in detailed) == [0, 40000, 40001]
    assert {row["provider_port"] for row in detailed} == {80, 8 * 256}
    for name in ("forward_packets", "reverse_packets", "forward_bytes", "opened", "answered"):
        assert sum(row[name] for row in folded) == sum(row[name] for row in detailed) > 0


def test_a_connection_that_outlives_a_change_of_mode_is_opened_once() -> None:
    state = Orientations()
    to, back = handshake(40000)
    (before,) = run(to, back, state=state)
    later = {"syn": 0, "synack": 0, "first_ns": 2 * SECOND, "last_ns": 2 * SECOND}
    (detailed,) = run(to | later, back | later, state=state, mode=Mode.DETAILED)
    (after,) = run(to | later, back | later, state=state)
    assert [row["opened"] for row in (before, detailed, after)] == [1, 0, 0]
    assert [row["consumer_port"] for row in (before, detailed, after)] == [0, 40000, 0]
    assert {row["method"] for row in (before, detailed, after)} == {"syn"}


def test_what_tcp_showed_folds_by_direction_and_the_least_rtt_skips_the_unmeasured() -> None:
    records = [*handshake(40000), *handshake(40001), *handshake(40002)]
    measured = [(2, 90, 40), (1, 30, 30), (0, 0, 0)]
    for there, back, (samples, sum_ns, min_ns) in zip(
        records[::2], records[1::2], measured, strict=True
    ):
        there.update(syn_packets=2, fin=1, retransmitted=3)
        back.update(syn_packets=1, rst=1)
        back.update(rtt_samples=samples, rtt_sum_ns=sum_ns, rtt_min_ns=min_ns)
    (row,) = run(*records)
    assert {
        name: (row[f"forward_{name}"], row[f"reverse_{name}"])
        for name in ("syn", "fin", "rst", "retransmitted")
    } == {"syn": (6, 3), "fin": (3, 0), "rst": (0, 3), "retransmitted": (9, 0)}
    assert (row["rtt_samples"], row["rtt_sum_ns"], row["rtt_min_ns"]) == (3, 120, 30)


def test_no_handshake_measured_is_no_rtt() -> None:
    (row,) = run(*handshake(40000))
    assert (row["rtt_samples"], row["rtt_sum_ns"], row["rtt_min_ns"]) == (0, 0, 0)


TO = record(f"{CLIENT}:40000", f"{SERVER}:8080")
BACK = record(f"{SERVER}:8080", f"{CLIENT}:40000", Hook.EGRESS)


@pytest.mark.parametrize(
    ("records", "options", "method"),
    [
        ((TO | {"syn": 1}, BACK), {}, "syn"),
        ((BACK | {"synack": 1},), {}, "syn"),
        ((TO, BACK), {"listening": listen((TCP, SERVER, 8080))}, "socket"),
        ((TO, BACK), {"services": frozenset({(TCP, 8080)})}, "service"),
        ((TO, BACK | {"protocol": TCP}), {}, "degree"),
        ((TO | {"syn": 1},), {"listening": listen((TCP, CLIENT, 40000))}, "syn"),
        ((TO, BACK), {"listening": listen((UDP, CLIENT, 40000))}, "degree"),
    ],
)
def test_surest_evidence_decides(records: Any, options: Any, method: str) -> None:
    (row,) = run(*records, **options)
    assert (row["consumer"], row["provider"], row["provider_port"]) == (CLIENT, SERVER, 8080)
    assert row["method"] == method


def test_many_peers_outweigh_a_low_port() -> None:
    rows = run(*(record(f"10.1.0.{peer}:53", f"{SERVER}:9000") for peer in range(1, 5)))
    assert {row["provider_port"] for row in rows} == {9000}


@pytest.mark.parametrize("port", [514, 32767, 50000])
def test_a_datagram_without_answer_comes_from_the_consumer(port: int) -> None:
    (row,) = run(record(f"{CLIENT}:40000", f"{SERVER}:{port}", protocol=UDP))
    assert (row["consumer"], row["opened"], row["answered"]) == (CLIENT, 1, 0)


def test_a_datagram_to_a_port_that_a_kernel_picked_is_an_answer() -> None:
    (row,) = run(record(f"{SERVER}:53", f"{CLIENT}:40000", protocol=UDP))
    assert (row["consumer"], row["provider_port"]) == (CLIENT, 53)


def test_direction_and_counts_outlive_the_window() -> None:
    state = Orientations()
    run(record(f"{CLIENT}:9", f"{SERVER}:40000", syn=1), state=state)
    (again,) = run(record(f"{CLIENT}:9", f"{SERVER}:40000", syn=1), state=state)
    assert (again["opened"], again["answered"]) == (0, 0), "a repeated SYN opens nothing"
    (late,) = run(record(f"{SERVER}:40000", f"{CLIENT}:9", Hook.EGRESS, synack=1), state=state)
    assert (late["consumer"], late["opened"], late["answered"]) == (CLIENT, 0, 1)
    (middle,) = run(
        record(f"{SERVER}:40000", f"{CLIENT}:9", Hook.EGRESS, rst=1),
        listening=listen((TCP, CLIENT, 9)),
        state=state,
    )
    assert (middle["consumer"], middle["method"], middle["refused"]) == (CLIENT, "syn", 0)
    (reused,) = run(record(f"{CLIENT}:9", f"{SERVER}:40000", syn=1), state=state)
    assert reused["opened"] == 1, "the tuple was answered, so a new SYN is a new connection"


def test_a_syn_of_an_earlier_window_that_comes_again_measures_nothing() -> None:
    state = Orientations()
    to, back = handshake(9)
    back.update(rtt_samples=1, rtt_sum_ns=50, rtt_min_ns=50)
    names = ("opened", "answered", "forward_retransmitted", "rtt_samples", "rtt_sum_ns")
    (first,) = run(to, state=state)
    (again,) = run(to, back, state=state)
    assert [first[name] for name in names] == [1, 0, 0, 0, 0]
    assert [again[name] for name in names] == [0, 1, 1, 0, 0]
    (reused,) = run(to, back, state=state)
    assert [reused[name] for name in names] == [1, 1, 0, 1, 50]


def test_a_port_that_is_used_again_within_a_window_is_another_connection() -> None:
    state = Orientations()
    (both,) = run(TO | {"syn": 2}, BACK | {"synack": 1}, state=state)
    assert (both["opened"], both["answered"]) == (2, 1)
    (late,) = run(BACK | {"synack": 1}, state=state)
    assert (late["opened"], late["answered"]) == (0, 1)
    (reset,) = run(TO | {"syn": 2}, BACK | {"synack": 1, "rst": 1}, state=state)
    assert (reset["opened"], reset["answered"], reset["refused"]) == (2, 1, 1)


def test_refusal_is_counted_once() -> None:
    state = Orientations()
    refused = (TO | {"syn": 1}, BACK | {"rst": 1})
    assert [run(*refused, state=state)[0]["refused"] for _ in range(1)] == [1]
    assert run(BACK | {"rst": 1}, state=state)[0]["refused"] == 0


def test_datagrams_open_once_until_idle() -> None:
    state = Orientations()
    pair = [TO | {"protocol": UDP}, BACK | {"protocol": UDP}]
    counts = []
    for at in (1, 20, 200):
        times = {"first_ns": at * SECOND, "last_ns": at * SECOND}
        (row,) = run(*(way | times for way in pair), state=state)
        counts.append((row["opened"], row["answered"]))
    assert counts == [(1, 1), (0, 0), (1, 1)]


def test_the_state_is_bounded_and_forgets_the_oldest() -> None:
    state = Orientations(capacity=2)
    for at in (1, 2, 3):
        run(record(f"{CLIENT}:{at}", f"{SERVER}:80", syn=1, last_ns=at * SECOND), state=state)
    assert len(state) == 2
    (kept,) = run(record(f"{SERVER}:80", f"{CLIENT}:3", Hook.EGRESS), state=state)
    (lost,) = run(record(f"{SERVER}:80", f"{CLIENT}:1", Hook.EGRESS), state=state)
    assert (kept["method"], lost["method"]) == ("syn", "degree")


def test_echo_request_and_reply_are_one_conversation() -> None:
    rows = run(
        record(f"{CLIENT}:8", f"{SERVER}:0", protocol=ICMP, packets=3),
        record(f"{SERVER}:0", f"{CLIENT}:0", Hook.EGRESS, protocol=ICMP, packets=3),
    )
    assert [(row["consumer"], row["provider_port"], row["answered"]) for row in rows] == [
        (CLIENT, 8 * 256, 1)
    ]


ORIGINAL = {
    "nat": Nat.TRANSLATED, "original_src": CLIENT, "original_dst": VIP,
    "original_sport": 40000, "original_dport": 80,
}  # fmt: skip


@pytest.mark.parametrize("known_to", ["forward", "reverse", "both"])
def test_the_tuple_before_nat_is_kept_whichever_way_knows_it(known_to: str) -> None:
    there = TO | {"syn": 1} | (ORIGINAL if known_to != "reverse" else {})
    back = BACK | {"synack": 1} | (ORIGINAL | {"reply": 1} if known_to != "forward" else {})
    (row,) = run(there, back)
    assert (row["original_consumer"], row["original_provider"]) == (CLIENT, VIP)
    assert row["original_provider_port"] == 80


def test_conntrack_that_met_the_connection_backwards_is_turned() -> None:
    backwards = {
        "nat": Nat.TRANSLATED, "reply": 1, "original_src": SERVER, "original_dst": OUTSIDE,
        "original_sport": 8080, "original_dport": 40000,
    }  # fmt: skip
    (row,) = run(TO | {"syn": 1} | backwards, BACK)
    assert (row["original_consumer"], row["original_provider"]) == (OUTSIDE, SERVER)
    assert row["original_provider_port"] == 8080


def test_an_original_tuple_that_does_not_differ_is_none() -> None:
    same = ORIGINAL | {"original_dst": SERVER, "original_dport": 8080}
    (row,) = run(TO | {"syn": 1} | same, BACK)
    assert (row["original_consumer"], row["original_provider_port"]) == ("::", 0)


NEAR, FAR = "192.0.2.11", "192.0.2.12"


def inside(outer: dict[str, Any]) -> dict[str, Any]:
    """What the record of a packet inside a tunnel has."""
    return {"ifindex": NODE, "inner": 1, "tunnel": tuple_id(pack(outer))[0]}


def told_tunnel(row: dict[str, Any]) -> tuple[Any, ...]:
    ends = (format_address(row[f"tunnel_{end}"].tobytes()) for end in ("consumer", "provider"))
    return row["tunnel_protocol"], *ends, row["tunnel_port"]


ON_NODE: dict[str, Any] = {"ifindex": NODE, "protocol": UDP}
AWAY = record(f"{NEAR}:50001", f"{FAR}:4789", Hook.EGRESS, **ON_NODE)
HOME = record(f"{FAR}:50002", f"{NEAR}:4789", **ON_NODE)


def test_a_conversation_names_the_tunnel_that_carries_it() -> None:
    there, back = handshake(40000)
    rows = run(there | inside(AWAY), back | inside(HOME), AWAY, HOME, there, back)
    told = {(row["consumer"], row["interface"]): told_tunnel(row) for row in rows}
    none = (0, "::", "::", 0)
    assert told == {
        (CLIENT, NODE): (UDP, NEAR, FAR, 4789),
        (NEAR, NODE): none,
        (FAR, NODE): none,
        (CLIENT, POD): none,
    }
    carries = {(row["consumer"], row["interface"]): row["carries"] for row in rows}
    assert carries == {(CLIENT, NODE): 0, (NEAR, NODE): 1, (FAR, NODE): 1, (CLIENT, POD): 0}


def test_what_a_pod_puts_into_a_tunnels_packet_is_nobodys_conversation() -> None:
    there, back = handshake(40000)
    forged = there | inside(AWAY) | {"ifindex": POD, "packets": 500}
    invented = record("10.0.0.9:1", "10.0.0.2:53", protocol=UDP) | inside(AWAY) | {"ifindex": POD}
    (row,) = run(there, back, forged, invented)
    assert (row["consumer"], row["forward_packets"]) == (CLIENT, 5)
    assert told_tunnel(row)[0] == 0


def test_a_tunnel_carries_conversations_and_not_their_ports() -> None:
    others = [way | inside(AWAY) for port in (40000, 40001) for way in handshake(port)]
    dns = record("10.0.0.9:5353", "10.0.0.2:53", protocol=UDP) | inside(AWAY)
    rows = run(*others, dns, AWAY)
    assert {row["consumer"]: row["carries"] for row in rows}[NEAR] == 2


def test_a_tunnel_without_ports_is_named_as_its_own_row_is_oriented() -> None:
    there, back = handshake(40000)
    gre: dict[str, Any] = {"ifindex": NODE, "protocol": 47}
    away = record(f"{NEAR}:0", f"{FAR}:0", **gre, first_ns=2 * SECOND)
    home = record(f"{FAR}:0", f"{NEAR}:0", **gre, first_ns=SECOND)
    rows = run(there | inside(away), back | inside(home), away, home)
    by_consumer = {row["consumer"]: row for row in rows}
    assert set(by_consumer) == {CLIENT, FAR}
    assert told_tunnel(by_consumer[CLIENT]) == (47, FAR, NEAR, 0)


def test_a_packet_that_comes_plain_and_leaves_in_a_tunnel_is_one_packet() -> None:
    there, back = handshake(40000)
    on_node = {"ifindex": NODE}
    rows = run(there | on_node, there | inside(AWAY), back | on_node, AWAY)
    (row,) = (row for row in rows if row["consumer"] == CLIENT)
    assert (row["forward_packets"], row["reverse_packets"]) == (5, 4)
    assert told_tunnel(row) == (UDP, NEAR, FAR, 4789)


def test_interfaces_are_observers_of_their_own() -> None:
    rows = run(*handshake(40000), *(way | {"ifindex": NODE} for way in handshake(40000)))
    assert sorted((row["interface"], row["observer"]) for row in rows) == [(NODE, 2), (POD, 1)]


def test_no_records_make_no_conversations() -> None:
    assert run() == []
