"""The reports of agents as Arrow tables (columns.py has what the columns mean)."""

from collections.abc import Mapping
from itertools import islice

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ringfence.model.errors import RingfenceError
from ringfence.wire import columns
from ringfence.wire.limits import LONGEST_TEXT, MOST_ROWS
from ringfence.wire.message import announced

_ADDRESS = pa.binary(16)
_ARROW = {columns.ADDRESS: _ADDRESS, columns.TEXT: pa.string()}


def _schema(kinds: columns.Columns) -> pa.Schema:
    named = {name: _ARROW.get(kind) or pa.type_for_alias(kind) for name, kind in kinds.items()}
    return pa.schema(named)


FLOWS, DROPS = _schema(columns.FLOWS), _schema(columns.DROPS)


class BatchError(RingfenceError):
    """Bytes that are not a record batch of the schema asked for."""


def table(schema: pa.Schema, columns: Mapping[str, NDArray[np.generic] | pa.Array]) -> pa.Table:
    """Columns of equal length as a table; addresses are (n, 16) uint8 arrays."""
    arrays = [_column(columns[field.name], field.type) for field in schema]
    return pa.Table.from_arrays(arrays, schema=schema)


def decode(schema: pa.Schema, data: bytes) -> pa.Table:
    """Read what `columns.encode` wrote; raises BatchError.

    That is one record batch, not compressed, of MOST_ROWS and texts of LONGEST_TEXT at most: no
    memory is taken for more, and the flow store has room for as much.
    """
    try:
        table = _read(schema, data)
        table.validate(full=True)
    except (pa.ArrowException, ValueError, KeyError, OSError) as error:
        raise BatchError(f"not an Arrow stream: {error}") from error
    for name in schema.names:
        if table[name].null_count:
            raise BatchError(f"a batch has rows without {name}")
        if table[name].type == pa.string() and _longest(table[name]) > LONGEST_TEXT:
            raise BatchError(f"a batch has a {name} of more than {LONGEST_TEXT} bytes")
    return table


def _read(schema: pa.Schema, data: bytes) -> pa.Table:
    """The table in a stream, of which nothing is copied."""
    stream = pa.ipc.open_stream(data)
    if not stream.schema.equals(schema):
        raise BatchError(_unlike(stream.schema, schema))
    messages = islice(pa.ipc.MessageReader.open_stream(pa.py_buffer(data)), 1, 3)
    for number, message in enumerate(messages):
        if number or message.type != "record batch":
            raise BatchError("a batch has something else than its rows in one part")
        rows, compressed = announced(message)
        if compressed:
            raise BatchError("a batch is compressed")
        if rows > MOST_ROWS:
            raise BatchError(f"a batch has {rows} rows: {MOST_ROWS} is the most")
    return stream.read_all()


def _longest(texts: pa.ChunkedArray) -> int:
    """The most bytes of a text."""
    return pc.max(pc.binary_length(texts)).as_py() or 0


def _unlike(found: pa.Schema, expected: pa.Schema) -> str:
    """How a schema of anybody's making differs, in bounded length: it becomes a gRPC status."""
    lacking = ", ".join(name for name in expected.names if name not in found.names)
    differ = ", ".join(
        field.name
        for field in expected
        if found.names.count(field.name) == 1 and found.field(field.name).type != field.type
    )
    return (
        f"a batch has other columns than it should ({len(found)} instead of {len(expected)};"
        f" lacking: {lacking or 'none'}; of another type: {differ or 'none'});"
        " install the same release of Ringfence on both sides"
    )


def addresses(column: pa.Array | pa.ChunkedArray) -> NDArray[np.uint8]:
    """A column of addresses as an array of shape (n, 16)."""
    joined = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    data = np.frombuffer(joined.buffers()[1], dtype=np.uint8)
    start = joined.offset * 16
    return data[start : start + len(joined) * 16].reshape(len(joined), 16)


def _column(values: NDArray[np.generic] | pa.Array, kind: pa.DataType) -> pa.Array:
    if isinstance(values, np.ndarray) and kind == _ADDRESS:
        packed = np.ascontiguousarray(values, dtype=np.uint8)
        return pa.Array.from_buffers(_ADDRESS, len(packed), [None, pa.py_buffer(packed)])
    return pa.array(values, type=kind)
