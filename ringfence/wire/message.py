"""What an Arrow record batch says of itself, read before memory is taken for it.

PyArrow reads and unpacks in one go, and a few bytes may unpack to any number of rows. So the two
fields in question are read from the message's metadata, a FlatBuffers table (Arrow's Message.fbs;
https://flatbuffers.dev/internals/), which PyArrow has verified when it gives a message.
"""

import struct

import pyarrow as pa

_MESSAGE_HEADER = 2
_ROWS, _COMPRESSION = 0, 3
"""Fields by their place in the tables Message and RecordBatch."""


def announced(message: pa.ipc.Message) -> tuple[int, bool]:
    """How many rows a record batch has, and whether it is compressed."""
    data = message.metadata.to_pybytes()
    (root,) = struct.unpack_from("<I", data)
    header = _field(data, root, _MESSAGE_HEADER)
    batch = header + struct.unpack_from("<I", data, header)[0]
    at = _field(data, batch, _ROWS)
    rows: int = struct.unpack_from("<q", data, at)[0] if at else 0
    return rows, bool(_field(data, batch, _COMPRESSION))


def _field(data: bytes, table: int, number: int) -> int:
    """Where a table's field is, 0 where it has none."""
    vtable = table - struct.unpack_from("<i", data, table)[0]
    (size,) = struct.unpack_from("<H", data, vtable)
    entry = 4 + 2 * number
    offset: int = struct.unpack_from("<H", data, vtable + entry)[0] if entry < size else 0
    return table + offset if offset else 0
