"""Batches that no agent of ours would send."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ringfence.control.claims import own_times, short_names
from ringfence.control.times import Window
from ringfence.model.errors import InputError
from ringfence.wire import batch
from ringfence.wire.limits import MOST_ROWS

WINDOW = Window(1_900_000_000 * 10**9, 1_900_000_015 * 10**9)


KEPT_NS = 400 * 86_400 * 10**9


def flows(*last_ns: int | None, first_ns: int = WINDOW.start_ns) -> pa.Table:
    """Rows that differ in their time alone, None for one without."""
    blanks = {pa.binary(16): b"\0" * 16, pa.string(): ""}
    row: dict[str, Any] = {field.name: blanks.get(field.type, 0) for field in batch.FLOWS}
    rows = [row | {"first_ns": first_ns, "last_ns": last} for last in last_ns]
    return pa.Table.from_pylist(rows, schema=batch.FLOWS)


def stream(*parts: pa.Table, compression: str | None = None) -> bytes:
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_stream(sink, parts[0].schema, options=options) as writer:
        for part in parts:
            writer.write_table(part)
    return bytes(sink.getvalue())


def named(column: str, *names: str) -> pa.Table:
    """Rows that differ in one of their texts."""
    at = batch.FLOWS.get_field_index(column)
    values = pa.array(names, pa.string())
    return flows(*range(len(names))).set_column(at, batch.FLOWS.field(at), values)


def test_a_value_that_is_missing_is_refused() -> None:
    with pytest.raises(batch.BatchError, match="rows without last_ns"):
        batch.decode(batch.FLOWS, stream(flows(1, None)))


@pytest.mark.parametrize("compression", ["zstd", "lz4"])
def test_what_is_compressed_is_refused(compression: str) -> None:
    """30 KB would unpack to three million rows, and take gigabytes before anybody counts them."""
    assert len(batch.decode(batch.FLOWS, stream(flows(1, 2)))) == 2
    with pytest.raises(batch.BatchError, match="compressed"):
        batch.decode(batch.FLOWS, stream(flows(1, 2), compression=compression))


def test_more_than_the_store_takes_in_at_once_is_refused() -> None:
    most = flows(1).take(pa.array(np.zeros(MOST_ROWS, dtype=np.int64))).combine_chunks()
    assert len(batch.decode(batch.FLOWS, stream(most))) == MOST_ROWS
    one_more = pa.concat_tables([most, flows(1)]).combine_chunks()
    with pytest.raises(batch.BatchError, match=f"{MOST_ROWS + 1} rows"):
        batch.decode(batch.FLOWS, stream(one_more))
    with pytest.raises(batch.BatchError, match="rows in one part"):
        batch.decode(batch.FLOWS, stream(most, flows(1)))


def test_a_text_of_any_length_is_refused() -> None:
    batch.decode(batch.FLOWS, stream(named("method", "ö" * 127)))
    with pytest.raises(batch.BatchError, match="a method of more than 255 bytes"):
        batch.decode(batch.FLOWS, stream(named("method", "syn", "ö" * 128)))


def test_a_stream_with_any_byte_changed_is_read_or_refused() -> None:
    """PyArrow has many errors for it; any other than ours would have the agent send it for ever."""
    whole, refused = stream(flows(1)), 0
    for place in range(len(whole)):
        changed = whole[:place] + b"\xff" + whole[place + 1 :]
        try:
            batch.decode(batch.FLOWS, changed)
        except batch.BatchError:
            refused += 1
    assert refused


@pytest.mark.parametrize("aside", [-(2**63), -(2**62), -KEPT_NS - 1, 2 * 86_400 * 10**9])
def test_rows_far_away_from_their_windows_are_refused(aside: int) -> None:
    own_times(flows(WINDOW.start_ns, WINDOW.end_ns), WINDOW, KEPT_NS)
    own_times(flows(), WINDOW, KEPT_NS)
    no_agent_for_days = WINDOW.end_ns - 3 * 86_400 * 10**9
    own_times(flows(no_agent_for_days, first_ns=no_agent_for_days), WINDOW, KEPT_NS)
    with pytest.raises(InputError, match="far away from its window"):
        own_times(flows(WINDOW.end_ns, WINDOW.end_ns + aside), WINDOW, KEPT_NS)


@pytest.mark.parametrize("first_ns", [-(2**63), 0, WINDOW.end_ns - KEPT_NS - 1, 2**63 - 1])
def test_rows_that_began_before_anything_that_is_kept_are_refused(first_ns: int) -> None:
    own_times(flows(WINDOW.end_ns, first_ns=WINDOW.end_ns - KEPT_NS), WINDOW, KEPT_NS)
    with pytest.raises(InputError, match="far away from its window"):
        own_times(flows(WINDOW.end_ns, first_ns=first_ns), WINDOW, KEPT_NS)


@pytest.mark.parametrize(
    ("column", "longest"),
    [
        ("provider_dns_name", "a" * 253),
        ("consumer_process", "kworker/0:" + "x" * 54),
        ("provider_process", "x" * 64),
        ("consumer_container", "x" * 253),
        ("provider_container", "x" * 253),
    ],
)
def test_names_that_are_too_long_are_refused(column: str, longest: str) -> None:
    short_names(named(column))
    short_names(named(column, "a", longest))
    with pytest.raises(InputError, match=f"{column} of more than {len(longest)} bytes"):
        short_names(named(column, "a", longest + "a"))
    if "container" in column:
        with pytest.raises(InputError, match="slash"):
            short_names(named(column, "a", "web/sh"))
