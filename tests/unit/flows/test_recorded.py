"""Flows in files: every form and type, what is left out, and what is refused."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from ringfence.discovery.observed import answered as seen_to_answer
from ringfence.flows import recorded
from ringfence.flows.connections import Records
from ringfence.flows.formats import FORMATS
from ringfence.flows.recorded import MOST_ROWS, OPTIONAL, REQUIRED, dispositions, read_flows
from ringfence.inventory.recorded import read_inventory
from ringfence.inventory.timeline import Timeline
from ringfence.model.address import parse_address
from ringfence.model.errors import InputError
from ringfence.model.flow import Disposition
from ringfence.model.ids import RevisionId

DOCS = Path(__file__).parents[3] / "docs" / "flow-export.md"
NOON = 1_893_499_200 * 10**9  # 2030-01-01T12:00:00Z
A_TIME = "a time from 1970 to 2262 with its zone, such as 2030-01-31T12:00:00Z, or epoch ns"
INVENTORY = """
- {kind: pod, kubernetes_cluster: lab, namespace: shop, name: old, addresses: [10.0.0.1],
   node: node1, to: 2030-01-01T12:00:00Z}
- {kind: pod, kubernetes_cluster: lab, namespace: shop, name: new, addresses: [10.0.0.1],
   node: node1, from: 2030-01-01T12:00:00Z}
- {kind: node, kubernetes_cluster: lab, name: node1, addresses: [192.0.2.1]}
"""
ROW: dict[str, Any] = {
    "first": "2030-01-01T12:00:00Z",
    "last": "2030-01-01T12:00:01.000000001Z",
    "consumer_address": "192.0.2.1",
    "provider_address": "10.0.0.1",
    "protocol": "TCP",
    "port": 80,
    "dialled_address": "10.96.0.1",
    "dialled_port": 8080,
}


def timeline() -> Timeline:
    return read_inventory(INVENTORY, "inventory.yaml").timeline


def read(table: pa.Table, lives: Timeline | None = None) -> Records:
    sink = io.BytesIO()
    pa.parquet.write_table(table, sink)
    sink.seek(0)
    return read_flows(sink, "flows.parquet", lives or timeline())


def rows(*differing: dict[str, Any]) -> pa.Table:
    every = dict.fromkeys(name for one in differing for name in one)
    return pa.Table.from_pylist([every | ROW | one for one in differing or ({},)])


def names(seen: Records, end: str, history: Timeline) -> list[str]:
    return [
        history.revision(RevisionId(revision))[0].name if revision else ""
        for revision in seen.column(f"{end}_revision").tolist()
    ]


def test_ends_are_those_of_the_rows_own_time() -> None:
    early = {"first": "2030-01-01T11:59:58Z", "last": "2030-01-01T11:59:59Z"}
    across = {"first": "2030-01-01T11:00:00Z", "last": "2030-01-01T12:10:00Z"}
    seen = read(rows({}, early, across))
    assert names(seen, "provider", timeline()) == ["new", "old", "old"]
    assert names(seen, "first_consumer", timeline()) == ["node1"] * 3
    assert names(seen, "dialled", timeline()) == [""] * 3
    assert seen.column("kubernetes_cluster").tolist() == ["lab"] * 3
    assert seen.column("provider_node").tolist() == seen.column("consumer_node").tolist()
    assert seen.column("first_ns")[0] == NOON
    assert seen.column("last_ns")[0] == NOON + 10**9 + 1
    assert seen.translated.all()
    assert seen.column("dialled")[0].tobytes() == parse_address("10.96.0.1")


def test_where_nobody_held_an_address_in_the_midst_of_a_row_who_did_at_an_end_counts() -> None:
    later = INVENTORY.replace("from: 2030-01-01T12:00", "from: 2030-01-01T12:50")
    lives = read_inventory(later, "inventory.yaml").timeline
    until = {"first": "2030-01-01T11:50:00Z", "last": "2030-01-01T13:00:00Z"}
    seen = read(rows(until), lives)
    assert names(seen, "provider", lives) == ["new"]


TYPES = {
    "first": [pa.timestamp("s"), pa.timestamp("ms", "UTC"), pa.timestamp("us", "Europe/Paris")],
    "port": [
        pa.int8(),
        pa.uint16(),
        pa.int64(),
        pa.float64(),
        pa.dictionary(pa.int8(), pa.int64()),
    ],
    "consumer_address": [pa.large_string(), pa.dictionary(pa.int16(), pa.string())],
    "protocol": [pa.dictionary(pa.uint8(), pa.large_string()), pa.string_view()],
}


@pytest.mark.parametrize(("name", "kind"), [(name, one) for name in TYPES for one in TYPES[name]])
def test_columns_may_be_of_many_types(name: str, kind: pa.DataType) -> None:
    table = rows({}, {"port": 81})
    plain = table[name]
    if pa.types.is_timestamp(kind):
        plain = plain.cast(pa.timestamp("ns", "UTC"))
    if pa.types.is_dictionary(kind):
        cast = plain.cast(kind.value_type).dictionary_encode().cast(kind)
    else:
        cast = plain.cast(kind)
    seen = read(table.set_column(table.schema.get_field_index(name), name, cast))
    expected = read(table)
    for column in expected.table.schema.names:
        assert seen.table[column].to_pylist() == expected.table[column].to_pylist(), column


def test_epoch_nanoseconds_are_times() -> None:
    table = rows({"first": NOON, "last": NOON})
    assert read(table).column("first_ns").tolist() == [NOON]


@pytest.mark.parametrize("form", FORMATS)
def test_every_form_that_is_exported_is_read(form: str) -> None:
    table = rows(
        {"provider_dns_name": "-x.example", "opened": 3, "answered": 2, "disposition": "passed"},
        {"protocol": "132", "connection": "0" * 15 + "1", "consumer_pid": 7},
    )
    for name in ("first", "last"):
        at = table.schema.get_field_index(name)
        table = table.set_column(at, name, table[name].cast(pa.timestamp("ns", "UTC")))
    writer = FORMATS[form](table.schema)
    text = b"".join(writer.write(batch) for batch in table.to_batches()) + writer.close()
    seen = read_flows(io.BytesIO(text), f"flows.{form}", timeline())
    expected = read(table)
    assert seen.table.to_pylist() == expected.table.to_pylist()
    assert seen.column("provider_dns_name").tolist() == ["-x.example", ""]
    assert seen.column("connection_id").tolist() == ["", "0" * 15 + "1"]


@pytest.mark.parametrize(
    ("told", "opened", "answered", "replies", "dropped", "disposition"),
    [
        ({}, 1, 1, 1, 0, Disposition.PASSED),
        ({"protocol": "UDP"}, 1, 0, 1, 0, Disposition.PASSED),
        ({"disposition": "passed"}, 1, 1, 1, 0, Disposition.PASSED),
        ({"disposition": "dropped"}, 1, 0, 0, 1, Disposition.DROPPED),
        ({"disposition": "unanswered"}, 1, 0, 0, 0, Disposition.UNANSWERED),
        ({"disposition": "pending"}, 1, 0, 0, 0, Disposition.PENDING),
        ({"reverse_packets": 0, "opened": 4}, 4, 0, 0, 0, Disposition.UNANSWERED),
        ({"reverse_packets": 5, "opened": 0}, 0, 0, 5, 0, Disposition.PASSED),
        ({"reverse_bytes": 90}, 1, 1, 1, 0, Disposition.PASSED),
        ({"answered": 3}, 3, 3, 1, 0, Disposition.PASSED),
        ({"answered": 0, "refused": 2}, 2, 0, 1, 0, Disposition.PASSED),
        ({"dropped": 2}, 1, 0, 0, 2, Disposition.DROPPED),
        ({"dropped": 2, "answered": 1, "disposition": "dropped"}, 1, 1, 1, 2, Disposition.DROPPED),
    ],
)
def test_what_is_not_told_is_not_held_against_a_conversation(
    told: dict[str, Any],
    opened: int,
    answered: int,
    replies: int,
    dropped: int,
    disposition: Disposition,
) -> None:
    seen = read(rows(told))
    counts = [seen.column(name).tolist() for name in ("opened", "answered", "reverse_packets")]
    assert counts == [[opened], [answered], [replies]]
    assert seen.dropped.tolist() == [dropped]
    assert dispositions(seen).first().tolist() == [disposition]


def test_null_is_as_good_as_absent() -> None:
    every = dict.fromkeys(OPTIONAL)
    told = read(rows(every)).table.to_pylist()
    assert told == read(rows()).table.to_pylist()


def test_icmp_errors_are_left_out() -> None:
    seen = read(rows({"protocol": "ICMP", "port": 3 * 256 + 1}, {"protocol": "ICMP", "port": 2048}))
    assert seen.column("provider_port").tolist() == [2048]


@pytest.mark.parametrize("name", REQUIRED)
def test_a_column_that_is_needed_is_missed(name: str) -> None:
    with pytest.raises(InputError, match=rf"^flows\.parquet: there is no column {name};"):
        read(rows().drop_columns([name]))
    with pytest.raises(InputError, match=rf"^flows\.parquet: .*row 2: {name}: expected .*nothing"):
        read(rows({}, {name: None}))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"port": 65536}, "row 2: port: expected a whole number from 0 to 65535, found 65536"),
        ({"port": -1}, "row 2: port: expected a whole number"),
        ({"opened": 0.5}, "row 2: opened: expected a whole number"),
        ({"consumer_address": "10.0.0"}, "row 2: consumer_address: '10.0.0' is not an IP address"),
        ({"protocol": "TPC"}, "row 2: protocol: 'TPC' is not a protocol"),
        ({"first": "2030-01-01T12:00:02Z"}, "row 2: last: expected a time after `first`"),
        ({"last": "tomorrow"}, f"row 2: last: expected {A_TIME}, found 'tomorrow'"),
        ({"last": "2030-01-01T12:00:09"}, f"row 2: last: expected {A_TIME}, found '2030-01-01T12:"),
        ({"last": "2999-01-01T12:00:00Z"}, f"row 2: last: expected {A_TIME}, found '2999-01-01T12"),
        ({"rtt_mean_ns": 2**53, "rtt_samples": 2**53}, "row 2: rtt_mean_ns: expected less than"),
        ({"disposition": "lost"}, "row 2: disposition: expected one of passed, dropped"),
    ],
)
def test_a_value_that_is_wrong_is_told_with_its_row(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as refused:
        read(rows({}, wrong))
    assert str(refused.value).startswith(f"flows.parquet: {said}")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"port": "http"}', "row 3: port: expected a number as in row 1, found 'http'"),
        ('{"port": [1]}', "row 3: port: expected a number as in row 1, found [1]"),
        ('{"port": ', "row 3: not JSON: "),
        ("5", "row 3: expected an object, found 5"),
    ],
)
def test_a_line_that_is_wrong_is_told_with_its_row(line: str, said: str) -> None:
    good = '{"port": 80, "first": "2030-01-01T12:00:00Z"}\n'
    with pytest.raises(InputError) as refused:
        read_flows(io.BytesIO(f"{good}\n{good}{line}\n".encode()), "f.jsonl", timeline())
    assert str(refused.value).startswith(f"f.jsonl: {said}")


def test_a_cell_that_is_wrong_is_told_with_its_row() -> None:
    good = written_csv(rows({}, {})).getvalue()
    for row, said in (
        (good.splitlines()[1].replace(b",80", b",http"), "row 3: port: expected a whole number"),
        (b"1,2", "row 3: Expected 8 columns, got 2: 1,2"),
    ):
        with pytest.raises(InputError) as refused:
            read_flows(io.BytesIO(good + row + b"\n"), "f.csv", timeline())
        assert str(refused.value).startswith(f"f.csv: {said}")


@pytest.mark.parametrize("name", ["port", "first", "consumer_address", "method"])
def test_a_column_of_another_kind_is_refused(name: str) -> None:
    table = rows({"method": "syn"})
    at = table.schema.get_field_index(name)
    with pytest.raises(
        InputError, match=rf"^flows\.parquet: row 1: {name}: expected .* found \[1\] \(list<"
    ):
        read(table.set_column(at, name, pa.array([[1]])))


def written_csv(table: pa.Table) -> io.BytesIO:
    sink = io.BytesIO()
    pa.csv.write_csv(table, sink)
    sink.seek(0)
    return sink


def test_times_are_epoch_ns_in_every_form() -> None:
    numbered = rows({"first": str(NOON), "last": str(NOON + 1)}, {})
    for seen in (
        read(numbered),
        read_flows(written_csv(numbered), "flows.csv", timeline()),
    ):
        assert seen.column("first_ns").tolist() == [NOON] * 2
        assert seen.column("last_ns").tolist() == [NOON + 1, NOON + 10**9 + 1]
    every = rows({"first": str(NOON), "last": str(NOON + 1)})
    assert read_flows(written_csv(every), "f", timeline()).column("last_ns").tolist() == [NOON + 1]
    with pytest.raises(InputError, match=r"^flows\.parquet: row 1: last: expected a time"):
        read(rows({"last": "9" * 19}))


@pytest.mark.parametrize("name", ["first", "port", "method", "consumer_pid"])
def test_a_column_that_stands_twice_is_refused(name: str) -> None:
    table = rows({"method": "syn", "consumer_pid": 7})
    twice = table.append_column(name, table[name])
    said = rf"^f: there are 2 columns {name}; leave one$"
    with pytest.raises(InputError, match=said):
        read_flows(written_csv(twice), "f", timeline())
    sink = io.BytesIO()
    pa.parquet.write_table(twice, sink)
    with pytest.raises(InputError, match=said):
        read_flows(io.BytesIO(sink.getvalue()), "f", timeline())


def test_a_small_file_of_a_great_many_rows_is_refused_unread() -> None:
    same = rows().take(pa.array(np.zeros(MOST_ROWS + 1, np.int32)))
    sink = io.BytesIO()
    pa.parquet.write_table(same, sink)
    before = pa.total_allocated_bytes()
    with pytest.raises(InputError, match=r"^f: 4,000,001 rows, over 4,000,000: export a shorter"):
        read_flows(io.BytesIO(sink.getvalue()), "f", timeline())
    assert pa.total_allocated_bytes() - before < 1 << 20


@pytest.mark.parametrize("encoded", [False, True])
def test_a_small_file_of_long_texts_is_refused_on_the_way(
    encoded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorded, "MOST_BYTES", 8 << 20)
    table = rows(*[{"method": "x" * (1 << 20)}] * 9)
    if encoded:
        at = table.schema.get_field_index("method")
        table = table.set_column(at, "method", table["method"].dictionary_encode())
    with pytest.raises(InputError, match=r"^flows.parquet: over 8 MiB of values: export a shorter"):
        read(table)
    assert len(read(table.slice(0, 7))) == 7


@pytest.mark.parametrize("cut", [0, 3, 4, 40, -1])
def test_a_file_that_is_not_whole_is_refused(cut: int) -> None:
    sink = io.BytesIO()
    pa.parquet.write_table(rows(), sink)
    with pytest.raises(InputError, match=r"^f.parquet: (neither Parquet|there is no column)"):
        read_flows(io.BytesIO(sink.getvalue()[:cut]), "f.parquet", timeline())


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_parts_of_a_file_are_all_of_it(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorded, "_BATCH", 2)
    monkeypatch.setattr(recorded, "_PART", 4)
    table = rows(*({"port": at} for at in range(10)))

    def written(some: pa.Table) -> io.BytesIO:
        sink = io.BytesIO()
        write = pa.parquet.write_table if form == "parquet" else pa.csv.write_csv
        write(some, sink)
        sink.seek(0)
        return sink

    parts = list(recorded.flow_parts(written(table), "f", timeline()))
    assert [len(one) for one in parts] == [4, 4, 2]
    seen = read_flows(written(table), "f", timeline())
    assert seen.column("provider_port").tolist() == list(range(10))
    assert seen.column("connection").tolist() == list(range(1, 11))
    bad = rows(*({"port": at if at != 8 else 70_000} for at in range(10)))
    with pytest.raises(InputError, match=r"^f: row 9: port: expected"):
        read_flows(written(bad), "f", timeline())


def test_json_lines_of_a_time_without_anything_are_empty() -> None:
    for nothing in (b"", b"\n", b"\r\n"):
        assert len(read_flows(io.BytesIO(nothing), "flows.jsonl", timeline())) == 0
    with pytest.raises(InputError, match="it is empty"):
        read_flows(io.BytesIO(), "flows.csv", timeline())


def test_no_rows_are_no_conversations() -> None:
    assert len(read(rows().slice(0, 0))) == 0
    assert not np.any(dispositions(read(rows().slice(0, 0))).passed)


def test_the_documentation_tells_which_columns_are_read() -> None:
    table = [line for line in DOCS.read_text().splitlines() if line.startswith("| ")]
    needed = "".join(line for line in table if line.rstrip().endswith("| needed |"))
    used = "".join(line for line in table if line.rstrip().endswith("| used |"))
    for name in REQUIRED:
        assert f"`{name}`" in needed
    for name in OPTIONAL:
        told = used.replace("…", "consumer") + used.replace("…", "provider")
        assert f"`{name}`" in told, name


def test_what_was_not_opened_nor_refused_nor_answered_is_not_known() -> None:
    """Without packets such a row is the midst of a conversation, unless some were dropped."""
    counts = {"opened": 0, "answered": 0, "refused": 0}
    seen = read(rows(counts, counts | {"opened": 1}, counts | {"dropped": 2}))
    assert seen_to_answer(seen).tolist() == [True, False, False]
    assert not seen_to_answer(read(rows(counts | {"reverse_packets": 0}))).any()
