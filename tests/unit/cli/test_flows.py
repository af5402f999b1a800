"""What the tables of flows and drops say in words."""

import csv
from pathlib import Path

import pytest

from ringfence.cli.flows.columns import FLOW_COLUMNS, with_related
from ringfence.cli.flows.export import ExportFormat, _form
from ringfence.cli.flows.groups import _value, _with_protocol
from ringfence.cli.flows.listing import DENIED_COLUMNS
from ringfence.cli.output import Format, emit
from ringfence.model.errors import InputError

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


def test_csv_tells_a_hop_from_its_connection(capsys: pytest.CaptureFixture[str]) -> None:
    carts = {"name": "carts-1", "namespace": "sock-shop", "address": "10.0.0.1"}
    outside = {"name": "", "namespace": "", "address": "192.0.2.1"}
    hop = {"consumer": outside, "provider": carts, "carries": 0}
    service = {"name": "carts", "namespace": "sock-shop"}
    row = {"consumer": carts, "provider": carts, "service": service, "related": [hop]}
    rows = with_related([row, row | {"related": [hop | {"carries": 2}]}])
    ends = FLOW_COLUMNS[:2]
    emit(rows, ends, Format.CSV)
    headings, connection, under, _, tunnel = csv.reader(capsys.readouterr().out.splitlines())
    assert headings == [
        "LEVEL", "CONSUMER", "CONSUMER NAMESPACE", "CONSUMER ADDRESS",
        "PROVIDER", "PROVIDER NAMESPACE", "PROVIDER ADDRESS", "SERVICE",
    ]  # fmt: skip
    told = ["carts-1", "sock-shop", "10.0.0.1"]
    assert connection == ["connection", *told, *told, "carts"]
    assert under == ["hop", "", "", "192.0.2.1", *told, ""]
    assert tunnel[0] == "tunnel"
    assert [ends[0].text(one) for one in rows] == [
        "carts-1 (10.0.0.1)", "  └ 192.0.2.1", "carts-1 (10.0.0.1)", "  └ in 192.0.2.1"
    ]  # fmt: skip


def test_a_drop_says_where_and_by_which_policy() -> None:
    said = {
        one.heading: one.text(ROW) for one in DENIED_COLUMNS if one.heading in ("DROPPED", "POLICY")
    }
    assert said == {"DROPPED": "outbound at pod sock-shop/carts-1", "POLICY": "shop/p@p1"}


def test_a_files_name_tells_its_form() -> None:
    assert _form(None, Path("flows.parquet")) is ExportFormat.PARQUET
    assert _form(None, Path("flows.txt")) is ExportFormat.JSONL
    assert _form(ExportFormat.CSV, None) is ExportFormat.CSV
    with pytest.raises(InputError, match="is called parquet, and -o says csv"):
        _form(ExportFormat.CSV, Path("flows.parquet"))
