"""Sums of conversations by what their ends were called at the time: labels, workloads, ports.

The store adds up by inventory revision; here revisions become label values, and rows whose
values are equal become one. Both are done on whole columns.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ringfence.flows.told import TOLD
from ringfence.inventory.outside import is_outside
from ringfence.model.address import Address, format_address
from ringfence.model.errors import InputError
from ringfence.model.flow import Sort
from ringfence.model.keys import check_keys, of_ends
from ringfence.model.labels import ADDRESS, ADDRESS_TYPE
from ringfence.model.protocol import format_protocol
from ringfence.model.workload import Item
from ringfence.wire import batch

ENDS = ("consumer", "provider")
SIDES = (*ENDS, "dialled")
"""What has labels: the ends, and what the consumer dialled, a Service perhaps."""
ATTRIBUTES = ("protocol", "port", "dialled_port", "method", *TOLD)
WORKLOAD = "workload"
"""A key of its own: `namespace/name` of the topmost owner, or of the item that has none."""

SUMS = (
    "forward_packets",
    "forward_bytes",
    "reverse_packets",
    "reverse_bytes",
    "opened",
    "answered",
    "refused",
    "dropped",
    "connections",
)
_TIMES = {"first_ns": "min", "last_ns": "max"}


_WEIGHTS = {
    Sort.BYTES: ("forward_bytes", "reverse_bytes"),
    Sort.PACKETS: ("forward_packets", "reverse_packets"),
    Sort.LAST: ("last_ns",),
}


@dataclass(frozen=True, slots=True)
class GroupKey:
    """What to group by: a label of one of SIDES, or an attribute of the flow, `end` empty."""

    end: str
    name: str

    def __str__(self) -> str:
        """As it is written: consumer.kubernetes.namespace, or port."""
        return f"{self.end}.{self.name}" if self.end else self.name


def parse_group_keys(text: str) -> tuple[GroupKey, ...]:
    """Read keys separated by commas; raises InputError."""
    names = list(dict.fromkeys(word.strip().lower() for word in text.split(",")))
    sides = [f"{side}." for side in SIDES]
    others = [side + WORKLOAD for side in sides] + [*of_ends(sides)]
    check_keys("by", names, sides, [*ATTRIBUTES, *others])
    split = [(name, *name.partition(".")) for name in names]
    return tuple(
        GroupKey("", name) if name in ATTRIBUTES else GroupKey(end, rest)
        for name, end, _, rest in split
    )


def parse_end_keys(text: str) -> tuple[str, ...]:
    """Read labels that both ends are grouped by; raises InputError."""
    names = tuple(dict.fromkeys(word.strip().lower() for word in text.split(",")))
    for name in names:
        side, _, own = name.partition(".")
        if side in SIDES:
            raise InputError(f"by: {name!r}: both ends are grouped alike here; write {own}")
    check_keys("by", names, ("",), (WORKLOAD, *of_ends([""])))
    return names


@dataclass(frozen=True)
class Needed:
    """What the store must tell apart for some keys: `store.flows.conversations.summed`."""

    columns: list[str]
    whole_addresses: set[str]


def needed(keys: Sequence[GroupKey], merge_outside: bool) -> Needed:
    """The columns behind keys; with `merge_outside` unknown addresses are not told apart.

    Nor are they where an end is grouped by their type.
    """
    columns, whole = [], set()
    for end in dict.fromkeys(key.end for key in keys if key.end):
        columns.append(f"{end}_revision")
        by_address = GroupKey(end, ADDRESS) in keys
        by_type = GroupKey(end, ADDRESS_TYPE) in keys
        if by_type:
            columns.append(f"{end}_type")
        if by_address or not (merge_outside or by_type):
            columns.append(f"{end}_address")
        if by_address:
            whole.add(f"{end}_address")
    columns += [TOLD.get(key.name, key.name) for key in keys if not key.end]
    return Needed(columns, whole)


def outside_column(end: str) -> str:
    """The column that says what is not in the inventory: an address, or "" for all of them."""
    return f"{end} outside"


def group(sums: pa.Table, keys: Sequence[GroupKey], items: Mapping[int, Item | None]) -> pa.Table:
    """Add up rows of `summed` by keys; a column each, and `outside_column` of each end named.

    `items` has every revision there. A label that an item lacks is null; of an end that nobody
    held all are but its type. A label's values are joined by commas. Where ends are grouped by
    type, uploaded networks are outside as well.
    """
    columns: dict[str, pa.Array] = {}
    for end in dict.fromkeys(key.end for key in keys if key.end):
        told = [key for key in keys if key.end == end]
        columns |= _end_columns(sums, end, told, items)
    for key in keys:
        if not key.end:
            columns[str(key)] = _attribute(sums, key.name)
    values = {name: sums[name] for name in (*SUMS, *_TIMES)}
    return add_up(pa.table({**columns, **values}), list(columns))


def add_up(table: pa.Table, columns: Sequence[str]) -> pa.Table:
    """One row for each distinct value of the columns, null being one: SUMS and times added up."""
    how = [*((name, "sum") for name in SUMS), *_TIMES.items()]
    added = table.group_by(list(columns), use_threads=False).aggregate(how)
    made = [*columns, *(f"{name}_{function}" for name, function in how)]
    return added.select(made).rename_columns([*columns, *SUMS, *_TIMES])


def weights(groups: pa.Table, sort: Sort) -> NDArray[np.float64]:
    """By what each row is ranked."""
    names = _WEIGHTS.get(sort, (sort.value,))
    columns = [np.asarray(groups[name].to_numpy()).astype(np.float64) for name in names]
    return np.asarray(np.sum(columns, axis=0))


def ranked(groups: pa.Table, sort: Sort, limit: int) -> pa.Table:
    """The greatest groups first, equal ones in the order of their names."""
    names = [name for name in groups.column_names if name not in (*SUMS, *_TIMES)]
    order = [("weight", "descending"), *((name, "ascending") for name in names)]
    placed = groups.append_column("weight", pa.array(weights(groups, sort)))
    return placed.sort_by(order).drop_columns(["weight"]).slice(0, limit)


def _end_columns(
    sums: pa.Table, end: str, keys: Sequence[GroupKey], items: Mapping[int, Item | None]
) -> dict[str, pa.Array]:
    """Each distinct (revision, address) is named once, and its names are taken to the rows."""
    revisions = np.asarray(sums[f"{end}_revision"].to_numpy())
    told = f"{end}_address" in sums.column_names
    addresses = (
        batch.addresses(sums[f"{end}_address"])
        if told and len(sums)
        else np.zeros((len(sums), 16), dtype=np.uint8)
    )
    first, which = _distinct(revisions, addresses)
    named = [
        (items[revision], format_address(Address(address.tobytes())) if told else "")
        for revision, address in zip(revisions[first].tolist(), addresses[first], strict=True)
    ]
    columns: dict[str, list[str | None]] = {
        str(key): [_label(item, address, key.name) for item, address in named]
        for key in keys
        if key.name != ADDRESS_TYPE
    }
    typed = GroupKey(end, ADDRESS_TYPE) in keys
    columns[outside_column(end)] = [
        address if item is None or (typed and is_outside(item)) else None for item, address in named
    ]
    taken = pa.array(which)
    made = {name: pa.array(values, pa.string()).take(taken) for name, values in columns.items()}
    if typed:
        types = sums[f"{end}_type"].combine_chunks()
        made[str(GroupKey(end, ADDRESS_TYPE))] = pc.if_else(pc.equal(types, ""), None, types)
    return made


def _distinct(
    revisions: NDArray[np.uint64], addresses: NDArray[np.uint8]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    packed = revisions.astype(">u8").view(np.uint8).reshape(-1, 8)
    keys = np.ascontiguousarray(np.concatenate([addresses, packed], axis=1)).view("S24").ravel()
    _, first, which = np.unique(keys, return_index=True, return_inverse=True)
    return first, which


def _label(item: Item | None, address: str, name: str) -> str | None:
    if name == ADDRESS:
        return address
    if item is None:
        return None
    if name == WORKLOAD:
        owner = item.workload_name or item.name
        return f"{item.namespace}/{owner}" if item.namespace else owner
    values = item.labels.get(name)
    return None if values is None else ",".join(values)


def _attribute(sums: pa.Table, name: str) -> Any:
    if name in TOLD:
        unknown = 0 if name.endswith(".pid") else ""
        told = sums[TOLD[name]]
        return pc.if_else(pc.equal(told, unknown), pa.scalar(None, told.type), told)
    if name != "protocol":
        return sums[name]
    numbers, which = np.unique(np.asarray(sums[name].to_numpy()), return_inverse=True)
    names = [format_protocol(number) for number in numbers.tolist()]
    return pa.array(names, pa.string()).take(pa.array(which))


def check_limit(sums: pa.Table, most: int) -> None:
    """Raise InputError where there are more rows than `most`: some would be missing."""
    if len(sums) > most:
        raise InputError(
            f"by: more than {most:,} groups before names are put to them; filter, take a shorter"
            " time, or merge what is outside the inventory"
        )
