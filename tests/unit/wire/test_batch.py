"""Batches that no agent of ours would send."""

from typing import Any

import pyarrow as pa
import pytest

from ringfence.control.claims import own_times, short_names
from ringfence.control.services import Window
from ringfence.model.errors import InputError
from ringfence.wire import batch

WINDOW = Window(1_900_000_000 * 10**9, 1_900_000_015 * 10**9)


KEPT_NS = 400 * 86_400 * 10**9


def flows(*last_ns: int | None, first_ns: int = WINDOW.start_ns) -> pa.Table:
    """Rows that differ in their time alone, None for one without."""
    blanks = {pa.binary(16): b"\0" * 16, pa.string(): ""}
    row: dict[str, Any] = {field.name: blanks.get(field.type, 0) for field in batch.FLOWS}
    rows = [row | {"first_ns": first_ns, "last_ns": last} for last in last_ns]
    return pa.Table.from_pylist(rows, schema=batch.FLOWS)


def test_a_value_that_is_missing_is_refused() -> None:
    stream = pa.BufferOutputStream()
    with pa.ipc.new_stream(stream, batch.FLOWS) as writer:
        writer.write_table(flows(1, None))
    with pytest.raises(batch.BatchError, match="rows without last_ns"):
        batch.decode(batch.FLOWS, bytes(stream.getvalue()))


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
    def named(*names: str) -> pa.Table:
        field = batch.FLOWS.field(column)
        at = batch.FLOWS.get_field_index(column)
        return flows(*range(len(names))).set_column(at, field, pa.array(names, field.type))

    short_names(named())
    short_names(named("a", longest))
    with pytest.raises(InputError, match=f"{column} of more than {len(longest)} bytes"):
        short_names(named("a", longest + "a"))
    if "container" in column:
        with pytest.raises(InputError, match="slash"):
            short_names(named("a", "web/sh"))
