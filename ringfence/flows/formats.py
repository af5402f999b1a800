"""Tables of flows as bytes, batch by batch: JSON lines, CSV, Parquet."""

import io
from collections.abc import Mapping
from typing import Any, Protocol

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from ringfence.model.spreadsheet import FORMULA


class Writer(Protocol):
    """Turns batches into the bytes of one document."""

    def write(self, batch: pa.RecordBatch) -> bytes:
        """The bytes that a batch adds."""

    def close(self) -> bytes:
        """The bytes that end the document."""


class JsonLines:
    """An object a line (https://jsonlines.org); times in RFC 3339, labels as objects."""

    media_type = "application/jsonl"

    def __init__(self, schema: pa.Schema) -> None:
        self._encoder = msgspec.json.Encoder()
        self._maps = [field.name for field in schema if pa.types.is_map(field.type)]
        self._times = [field.name for field in schema if pa.types.is_timestamp(field.type)]

    def write(self, batch: pa.RecordBatch) -> bytes:
        """A line for each row."""
        rows: list[dict[str, Any]] = _with_written_times(batch, self._times).to_pylist(
            maps_as_pydicts="strict"
        )
        return self._encoder.encode_lines(rows)

    def close(self) -> bytes:
        """Nothing ends it."""
        return b""


class Csv:
    """RFC 4180 with a header; labels as JSON; no cell that a spreadsheet takes for a formula."""

    media_type = "text/csv; charset=utf-8"

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self._begun = False

    def write(self, batch: pa.RecordBatch) -> bytes:
        """A line for each row, after the header in front of the first."""
        sink = io.BytesIO()
        options = pa.csv.WriteOptions(include_header=not self._begun, quoting_style="needed")
        pa.csv.write_csv(pa.table(self._cells(batch)), sink, options)
        self._begun = True
        return sink.getvalue()

    def close(self) -> bytes:
        """The header, where there was no row."""
        return b"" if self._begun else self.write(_no_rows(self._schema))

    def _cells(self, batch: pa.RecordBatch) -> Mapping[str, pa.Array]:
        times = [field.name for field in self._schema if pa.types.is_timestamp(field.type)]
        batch = _with_written_times(batch, times)
        return {
            field.name: _json(batch[field.name])
            if pa.types.is_map(field.type)
            else _safe(batch[field.name])
            if pa.types.is_string(field.type)
            else batch[field.name]
            for field in batch.schema
        }


class Parquet:
    """Apache Parquet, a row group for each batch."""

    media_type = "application/vnd.apache.parquet"

    def __init__(self, schema: pa.Schema) -> None:
        self._sink = _Drained()
        self._writer = pa.parquet.ParquetWriter(
            pa.PythonFile(self._sink, "w"), schema, compression="zstd"
        )

    def write(self, batch: pa.RecordBatch) -> bytes:
        """A row group."""
        self._writer.write_batch(batch, row_group_size=max(len(batch), 1))
        return self._sink.drain()

    def close(self) -> bytes:
        """The footer, without which it is no Parquet."""
        self._writer.close()
        return self._sink.drain()


FORMATS: dict[str, type[JsonLines | Csv | Parquet]] = {
    "jsonl": JsonLines,
    "csv": Csv,
    "parquet": Parquet,
}


class _Drained(io.RawIOBase):
    """A file that gives away what was written to it, and knows how much that was."""

    def __init__(self) -> None:
        self._written, self._kept = 0, bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._kept += data
        self._written += len(data)
        return len(data)

    def tell(self) -> int:
        return self._written

    def drain(self) -> bytes:
        kept = bytes(self._kept)
        self._kept.clear()
        return kept


def _no_rows(schema: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([], schema=schema)


def _with_written_times(batch: pa.RecordBatch, names: list[str]) -> pa.RecordBatch:
    for name in names:
        at = batch.schema.get_field_index(name)
        written = pc.strftime(batch[name], "%Y-%m-%dT%H:%M:%SZ")
        batch = batch.set_column(at, name, written)
    return batch


def _safe(cells: pa.Array) -> pa.Array:
    """Formulas behind an apostrophe."""
    formula = pc.match_substring_regex(cells, FORMULA)
    return pc.if_else(formula, pc.binary_join_element_wise("'", cells, ""), cells)


def _json(maps: pa.Array) -> pa.Array:
    encoder = msgspec.json.Encoder()
    rows = maps.to_pylist(maps_as_pydicts="strict")
    written = [None if labels is None else encoder.encode(labels).decode() for labels in rows]
    return pa.array(written, pa.string())
