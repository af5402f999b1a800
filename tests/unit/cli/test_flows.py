"""What the tables of flows and drops say in words."""

import csv

import pytest

from ringfence.cli.flows.columns import FLOW_COLUMNS
from ringfence.cli.flows.groups import _value, _with_protocol
from ringfence.cli.flows.listing import DENIED_COLUMNS
from ringfence.cli.output import Format, emit

ROW = {"direction": "outbound", "at": {"pod": "sock-shop/carts-1"}, "policy": "shop/p@p1"}


@pytest.mark.parametrize(
    ("protocol", "port", "said"),
    [("ICMP", 1281, "5/1"), ("ICMPv6", 32768, "128/0"), ("TCP", 80, "80"), ("47", 0, "0")],
)
def test_an_icmp_port_is_type_and_code(protocol: str, port: int, said: str) -> None:
    for columns in (FLOW_COLUMNS, DENIED_COLUMNS):
        (column,) = (one for one in columns if one.heading == "PORT")
        assert column.text({"protocol": protocol, "port": port}) == said


@pytest.mark.parametrize(
    ("by", "asked"),
    [
        ("consumer.workload,port", "consumer.workload,protocol,port"),
        ("Dialled_Port, protocol", "dialled_port,protocol"),
        ("consumer.workload", "consumer.workload"),
    ],
)
def test_groups_by_port_tell_the_protocol(by: str, asked: str) -> None:
    assert _with_protocol(by) == asked


@pytest.mark.parametrize("key", ["port", "dialled_port"])
def test_a_group_by_port_has_icmp_type_and_code(key: str) -> None:
    row = {"group": {"protocol": "ICMPv6", key: 34048}, "outside": {}}
    assert _value(key)(row) == "133/0"


def test_what_tcp_showed_stands_in_wide_columns() -> None:
    row = {
        "protocol": "TCP",
        "forward": {"retransmitted": 3},
        "reverse": {"retransmitted": 0},
        "rtt": {"samples": 2, "min_ns": 420_000, "mean_ns": 12_345_678},
    }
    wide = {one.heading: one for one in FLOW_COLUMNS if one.wide}
    assert wide["RETRANSMITTED"].text(row) == "3 / 0"
    assert wide["RTT MIN / MEAN"].text(row) == "0.42 ms / 12.35 ms"
    assert wide["RETRANSMITTED"].text(row | {"protocol": "UDP"}) == ""
    assert wide["RTT MIN / MEAN"].text(row | {"rtt": None}) == ""


def test_csv_has_one_plain_value_a_column(capsys: pytest.CaptureFixture[str]) -> None:
    way = {"bytes": 1536, "packets": 7, "retransmitted": 3}
    row = {"protocol": "TCP", "forward": way, "reverse": way, "rtt": None}
    told = {"BYTES", "PACKETS", "RETRANSMITTED", "RTT MIN / MEAN"}
    emit([row], [one for one in FLOW_COLUMNS if one.heading in told], Format.CSV)
    headings, values = csv.reader(capsys.readouterr().out.splitlines())
    assert dict(zip(headings, values, strict=True)) == {
        "FORWARD BYTES": "1536", "REVERSE BYTES": "1536",
        "FORWARD PACKETS": "7", "REVERSE PACKETS": "7",
        "FORWARD RETRANSMITTED": "3", "REVERSE RETRANSMITTED": "3",
        "RTT MIN NS": "", "RTT MEAN NS": "",
    }  # fmt: skip


def test_a_drop_says_where_and_by_which_policy() -> None:
    said = {
        one.heading: one.text(ROW) for one in DENIED_COLUMNS if one.heading in ("DROPPED", "POLICY")
    }
    assert said == {"DROPPED": "outbound at pod sock-shop/carts-1", "POLICY": "shop/p@p1"}
