"""The names under which hosts outside were found, as far as policies may mean them."""

from collections.abc import Collection

import numpy as np
import pyarrow as pa

from ringfence.discovery.behaviour import distinct
from ringfence.flows.connections import Records
from ringfence.inventory.holders import distinct_rows
from ringfence.model.fqdn import host_name

_NAME = "provider_dns_name"


def with_host_names(seen: Records, known: Collection[str] | None = None) -> Records:
    """The conversations, each with the name of its host in lower case and without the last dot.

    If any are given only `known` names stay: what no resolver of a cluster answered is the word of
    the one who asked, and no policy can mean it. What was dialled without a name went to the host
    that the same consumer found at the address, where that is one: another may have names of its
    own for it.
    """
    if _NAME not in seen.table.column_names:
        return seen
    told = seen.table[_NAME].combine_chunks().dictionary_encode()
    meant = [_meant(name or "", known) for name in told.dictionary.to_pylist()]
    names = sorted({"", *meant})
    number = {name: at for at, name in enumerate(names)}
    numbers = np.array([*(number[name] for name in meant), 0], dtype=np.int64)
    which = numbers[told.indices.fill_null(len(meant)).to_numpy(zero_copy_only=False)]
    if not which.any():
        return _with(seen, names, which)
    ends = [seen.column(end) for end in ("first_consumer", "provider")]
    _, pair = distinct_rows(np.concatenate(ends, axis=1))
    first, _ = distinct(pair, which)
    first = first[which[first] > 0]
    only = np.zeros(int(pair.max()) + 1, dtype=np.int64)
    only[pair[first]] = which[first]
    only[np.bincount(pair[first], minlength=len(only)) > 1] = 0
    return _with(seen, names, np.where(which > 0, which, only[pair]))


def _meant(told: str, known: Collection[str] | None) -> str:
    name = host_name(told)
    return (name or told) if known is None else name if name in known else ""


def _with(seen: Records, names: list[str], which: np.ndarray) -> Records:
    at = seen.table.schema.get_field_index(_NAME)
    values = pa.array(names, pa.string()).take(pa.array(which))
    return Records(seen.table.set_column(at, _NAME, values), seen.dropped, seen.translated)
