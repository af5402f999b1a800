"""Exported files: what a reader gets back, and what a spreadsheet must not."""

import csv
import io
import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from ringfence.flows.formats import FORMATS, Writer
from ringfence.model.spreadsheet import spreadsheet_safe

SCHEMA = pa.schema(
    [
        ("name", pa.string()),
        ("labels", pa.map_(pa.string(), pa.list_(pa.string()))),
        ("at", pa.timestamp("ns", "UTC")),
        ("count", pa.uint64()),
    ]
)
LABELS = [("a", ["x", 'y"\n']), ("=b", [""])]
HOSTILE = [
    "=HYPERLINK(\"http://evil\")", "+1+cmd|'/C calc'!A0", "-2+3", "@SUM(1)", "\t=1", "\r=1", "\n=1",
    "\uff1d1", "\uff0b1", "\uff0d1", "\uff201", 'a","=1', "plain",
]  # fmt: skip


def written(form: str, *batches: pa.RecordBatch) -> bytes:
    writer: Writer = FORMATS[form](SCHEMA)
    return b"".join([*(writer.write(batch) for batch in batches), writer.close()])


def batch(*rows: tuple[Any, ...]) -> pa.RecordBatch:
    told = [dict(zip(SCHEMA.names, row, strict=True)) for row in rows]
    return pa.RecordBatch.from_pylist(told, schema=SCHEMA)


TWO = (
    batch(("one", LABELS, 1_900_000_000_123_456_789, 2**64 - 1), (None, None, 0, 1)),
    batch(("three", [], 5, 3)),
)


def test_json_lines() -> None:
    lines = [json.loads(line) for line in written("jsonl", *TWO).splitlines()]
    assert lines[0] == {
        "name": "one", "labels": dict(LABELS), "at": "2030-03-17T17:46:40.123456789Z",
        "count": 2**64 - 1,
    }  # fmt: skip
    assert [line["name"] for line in lines] == ["one", None, "three"]
    assert [line["labels"] for line in lines[1:]] == [None, {}]


def test_csv() -> None:
    header, *rows = csv.reader(io.StringIO(written("csv", *TWO).decode(), newline=""))
    assert header == SCHEMA.names
    assert [row[0] for row in rows] == ["one", "", "three"]
    assert json.loads(rows[0][1]) == dict(LABELS)
    assert rows[0][2:] == ["2030-03-17T17:46:40.123456789Z", str(2**64 - 1)]


def test_parquet() -> None:
    read = pa.parquet.read_table(io.BytesIO(written("parquet", *TWO)))
    assert read.schema.equals(SCHEMA)
    assert read.to_batches()[0].slice(0, 2).equals(TWO[0])
    assert read["name"].to_pylist() == ["one", None, "three"]


@pytest.mark.parametrize("form", FORMATS)
def test_no_rows_are_a_file_too(form: str) -> None:
    empty = written(form)
    if form == "parquet":
        assert pa.parquet.read_table(io.BytesIO(empty)).schema.equals(SCHEMA)
    else:
        assert empty == {"jsonl": b"", "csv": b'"name","labels","at","count"\n'}[form]


def test_no_cell_of_csv_is_a_formula() -> None:
    text = written("csv", batch(*((name, None, 0, 0) for name in HOSTILE))).decode()
    _, *rows = csv.reader(io.StringIO(text, newline=""))
    cells = [row[0] for row in rows]
    assert cells == [*(f"'{name}" for name in HOSTILE[:-2]), *HOSTILE[-2:]]
    assert [len(row) for row in rows] == [4] * len(HOSTILE)
    assert [spreadsheet_safe(name) for name in HOSTILE] == cells


@pytest.mark.parametrize("number", ["-5", "+1.5", "-1e3"])
def test_a_number_is_no_formula(number: str) -> None:
    assert spreadsheet_safe(number) == number
