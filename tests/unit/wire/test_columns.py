"""What an agent writes, read by the control plane."""

import numpy as np
import pytest

from ringfence.wire import batch, columns

TEXTS = np.array(["", "syn", "läuft ☃"], dtype=object)


def written(rows: int) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]]:
    """Every column at the highest values of its kind, in arrays that lie crosswise."""
    made: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]] = {}
    for name, kind in {**columns.FLOWS, **columns.DROPS}.items():
        if kind == columns.TEXT:
            made[name] = TEXTS[:rows]
        elif kind == columns.ADDRESS:
            made[name] = np.arange(16 * 3, dtype=np.uint8).reshape(16, 3).T[:rows]
        else:
            made[name] = np.array([0, 1, np.iinfo(kind).max], dtype=kind)[:rows]
    return made


@pytest.mark.parametrize("rows", [0, 3])
def test_a_report_is_read_as_it_was_written(rows: int) -> None:
    given = written(rows)
    for kinds, schema in ((columns.FLOWS, batch.FLOWS), (columns.DROPS, batch.DROPS)):
        table = batch.decode(schema, columns.encode(kinds, given))
        assert len(table) == rows
        for name, kind in kinds.items():
            if kind == columns.ADDRESS:
                assert (batch.addresses(table[name]) == given[name]).all()
            else:
                assert table[name].to_pylist() == given[name].tolist()
