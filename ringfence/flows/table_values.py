"""Columns of other people's tables as ours: of any width, any unit, encoded or not."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ringfence.flows.faults import shortened
from ringfence.model.address import parse_address
from ringfence.model.errors import InputError

_TIME = pa.timestamp("ns", "UTC")
_A_TIME = "a time from 1970 to 2262 with its zone, such as 2030-01-31T12:00:00Z, or epoch ns"


class TableValues:
    """A table's columns by name; raises InputError with file, column and row of what is wrong.

    Rows count from 1, without a header, and after those of the file that came `before`.
    """

    def __init__(self, table: pa.Table, file_name: str, before: int = 0) -> None:
        self._table, self._file, self.before = table, file_name, before

    def __len__(self) -> int:
        """The number of rows."""
        return len(self._table)

    def __contains__(self, name: str) -> bool:
        """Whether there is such a column."""
        return name in self._table.schema.names

    def texts(self, name: str) -> pa.StringArray:
        """A column of texts, null where there is none."""
        column = self._plain(name)
        if pa.types.is_null(column.type):
            return pa.nulls(len(self), pa.string())
        if not (_is_text(column.type) or pa.types.is_integer(column.type)):
            raise self._wrong(name, "a text", column)
        return column.cast(pa.string())

    def numbers(
        self, name: str, most: int, *, required: bool = False
    ) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
        """A column of whole numbers from 0 to `most`, and which of them are known."""
        expected = f"a whole number from 0 to {most}"
        column = self._plain(name)
        if pa.types.is_null(column.type):
            column = column.cast(pa.uint64())
        elif pa.types.is_floating(column.type):  # what pandas makes of numbers and gaps
            column = pc.if_else(pc.is_nan(column), None, column)
        elif _is_text(column.type):  # of CSV, where one row is none
            odd = pc.invert(pc.match_substring_regex(column, r"^-?[0-9]+(\.[0-9]*)?$"))
            self.refuse(name, np.asarray(odd.fill_null(False)), expected)
            raise self._wrong(name, expected, column)
        elif not pa.types.is_integer(column.type):
            raise self._wrong(name, expected, column)
        known = np.asarray(column.is_valid())
        values = np.asarray(column.cast(pa.float64(), safe=False).fill_null(0))
        bad = ~np.isfinite(values) | (values < 0) | (values > most) | (values != np.floor(values))
        self.refuse(name, bad & known, expected)
        self.refuse(name, np.full(len(self), required) & ~known, expected)
        if pa.types.is_floating(column.type):
            return values.astype(np.uint64), known
        return np.asarray(column.fill_null(0).cast(pa.uint64())), known

    def times(self, name: str) -> NDArray[np.int64]:
        """A column of times as epoch ns: timestamps of any unit, RFC 3339, or epoch ns."""
        column = self._plain(name)
        if not (
            pa.types.is_timestamp(column.type)
            or pa.types.is_integer(column.type)
            or _is_text(column.type)
        ):
            raise self._wrong(name, _A_TIME, column)
        self.refuse(name, np.asarray(column.is_null()), _A_TIME)
        try:
            told = _epoch_ns(column)
        except pa.ArrowException:
            self.refuse(name, np.arange(len(column)) == _first_that_fails(column), _A_TIME)
            raise  # never reached: one of them fails
        self.refuse(name, told < 0, _A_TIME)
        return told

    def addresses(self, name: str) -> pa.FixedSizeBinaryArray:
        """A column of addresses."""
        packed, which = self.coded(name, parse_address, "an IP address")
        return pa.array(packed, pa.binary(16)).take(pa.array(which))

    def coded(
        self, name: str, read: Callable[[str], Any], expected: str
    ) -> tuple[list[Any], NDArray[np.int64]]:
        """What each distinct text of a column is read as, and which of them each row has."""
        column = self.texts(name)
        self.refuse(name, np.asarray(column.is_null()), expected)
        encoded = column.dictionary_encode()
        which = np.asarray(encoded.indices).astype(np.int64)
        values = []
        for code, text in enumerate(encoded.dictionary.to_pylist()):
            try:
                values.append(read(text))
            except InputError as error:
                row = self.before + int(np.argmax(which == code)) + 1
                raise InputError(f"{self._file}: row {row}: {name}: {error}") from error
        return values, which

    def refuse(self, name: str, bad: NDArray[np.bool_], expected: str) -> None:
        """Raise InputError for the first row whose value is bad."""
        if bad.any():
            row = int(np.argmax(bad))
            found = _shown(self._table[name][row])
            where = f"{self._file}: row {self.before + row + 1}: {name}"
            raise InputError(f"{where}: expected {expected}, found {found}")

    def _plain(self, name: str) -> pa.Array:
        """A column in one piece, decoded; InputError where there is none of the name."""
        if name not in self:
            told = ", ".join(self._table.schema.names[:50]) or "none"
            raise InputError(f"{self._file}: there is no column {name}; it has {told}")
        column = self._table[name].combine_chunks()
        if isinstance(column, pa.ChunkedArray):  # of text, more than fits one array
            column = column.cast(pa.large_string()).combine_chunks()
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        return column

    def _wrong(self, name: str, expected: str, column: pa.Array) -> InputError:
        """The error of a column of another type, by its first value."""
        row = int(np.argmax(np.asarray(column.is_valid())))
        where = f"{self._file}: row {self.before + row + 1}: {name}"
        found = f"{_shown(column[row])} ({column.type})"
        return InputError(f"{where}: expected {expected}, found {found}")


def _shown(value: pa.Scalar) -> str:
    """A value as an error shows it; times may be outside of what Python knows."""
    if pa.types.is_timestamp(value.type) and value.is_valid:
        return str(pc.cast(value, pa.string()).as_py())
    return shortened(value.as_py())


def _epoch_ns(column: pa.Array) -> NDArray[np.int64]:
    """Times as epoch ns; raises ArrowException."""
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("ns", column.type.tz)).cast(pa.int64())
    elif _is_text(column.type):
        column = _read_times(column.cast(pa.string()))
    return np.asarray(column.cast(pa.int64()))


def _first_that_fails(column: pa.Array) -> int:
    """The place of the first time that cannot be read; there is one."""
    start, end = 0, len(column)
    while end - start > 1:
        middle = (start + end) // 2
        try:
            _epoch_ns(column[start:middle])
            start = middle
        except pa.ArrowException:
            end = middle
    return start


def _read_times(texts: pa.StringArray) -> pa.Int64Array:
    """RFC 3339, or epoch ns in digits: of CSV all times are texts."""
    numbered = pc.match_substring_regex(texts, "^[0-9]+$")
    if not pc.any(numbered).as_py():
        return texts.cast(_TIME).cast(pa.int64())
    told = pc.if_else(numbered, pa.scalar(None, pa.string()), texts).cast(_TIME).cast(pa.int64())
    return pc.coalesce(told, pc.if_else(numbered, texts, None).cast(pa.int64()))


def _is_text(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )
