"""What was seen of each item: who it talks to, through what, on which port, by which process."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ringfence.flows.connections import Records
from ringfence.inventory.snapshot import NOWHERE, Snapshot
from ringfence.model.address import Address
from ringfence.model.ids import ClusterId
from ringfence.model.protocol import WITH_PORTS
from ringfence.model.workload import Item, ItemKind

SLOT_NS = 300 * 10**9
"""Five minutes: what was seen in how many slots of time tells more than how often."""
COLUMNS = (
    *("first_consumer", "first_consumer_revision", "provider", "provider_revision"),
    *("consumer_process", "provider_port", "provider_process", "dialled", "dialled_port"),
    *("protocol", "kubernetes_cluster"),
    *("opened", "first_ns", "last_ns", "intervals"),
)
"""What is looked at of connections."""
_ROOM = 2**62
_OF_ANYBODY = (53, 123)
"""DNS and NTP."""
DIRECT = -1
"""The front of what was dialled at the provider's own address."""

Numbers = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Behaviour:
    """n distinct edges between peers, arrays of shape (n,).

    A peer is numbered by its position in the snapshot where it is an item, else from
    `len(snapshot.items)` on, one number an address. `front` numbers what was dialled, an address
    and port, where that was translated, a Service's perhaps. `process` numbers the names of what
    served, `dialler` of what dialled, 0 where it is not known.
    """

    consumer: Numbers
    provider: Numbers
    front: Numbers
    protocol: Numbers
    port: Numbers
    dialler: Numbers
    process: Numbers
    slots: Numbers
    """In how many slots of time the edge was seen, or is likely to have been, where a record is of
    a longer time."""
    first_ns: Numbers
    last_ns: Numbers
    processes: tuple[str, ...]

    def __len__(self) -> int:
        """The number of edges."""
        return len(self.consumer)

    def only(self, edges: Mask) -> "Behaviour":
        """Some of the edges."""
        columns = (field.name for field in fields(self) if field.name != "processes")
        return replace(self, **{name: getattr(self, name)[edges] for name in columns})


def behaviour(
    records: Records, item_of: Callable[[int], Item | None], snapshot: Snapshot
) -> Behaviour:
    """The distinct edges among connections, those that were answered: failures make no role.

    Positions are those of `snapshot`: of an item that it does not hold, as of an address that
    nobody held, the address stands.
    """
    numbers = PeerNumbers(snapshot, item_of)
    consumer = numbers.peers(records, "first_consumer")
    provider = numbers.peers(records, "provider")
    dialled = _joined(records.column("dialled"), records.column("dialled_port"))
    _, front = np.unique(dialled, return_inverse=True)
    direct = (records.column("dialled") == records.column("provider")).all(1)
    direct &= records.column("dialled_port") == records.column("provider_port")
    processes, (dialler, process) = _processes(records)
    front[direct] = DIRECT
    protocol = records.column("protocol").astype(np.int64)
    port = records.column("provider_port").astype(np.int64)
    row, which = distinct(consumer, provider, front, protocol, port)
    count = len(row)
    of_slot, slot = each_slot(slots_of(records))
    seen = which[of_slot]
    slots = np.bincount(seen[distinct(seen, slot)[0]], minlength=count)
    first_ns, last_ns = (records.column(at).astype(np.int64) for at in ("first_ns", "last_ns"))
    first = np.full(count, np.iinfo(np.int64).max)
    last = np.zeros(count, dtype=np.int64)
    dialled_by, served_by = np.zeros((2, count), dtype=np.int64)
    np.minimum.at(first, which, first_ns)
    np.maximum.at(last, which, last_ns)
    np.maximum.at(dialled_by, which, dialler)
    np.maximum.at(served_by, which, process)
    long = last_ns - first_ns > SLOT_NS
    opened = np.bincount(which[long], records.column("opened")[long], minlength=count)
    likely = np.minimum(opened.astype(np.int64), (last - first) // SLOT_NS + 1)
    return Behaviour(
        consumer[row],
        provider[row],
        front[row],
        protocol[row],
        port[row],
        dialler=dialled_by,
        process=served_by,
        slots=np.maximum(slots, likely),
        first_ns=first,
        last_ns=last,
        processes=processes,
    )


def characteristic(snapshot: Snapshot, seen: Behaviour) -> Mask:
    """Which edges say what a workload is: not those to nodes, nor what anything asks for."""
    to_nodes = np.isin(seen.provider, np.array(snapshot.nodes, dtype=np.int64))
    common = ~np.isin(seen.protocol, list(WITH_PORTS)) | np.isin(seen.port, _OF_ANYBODY)
    return np.asarray(~to_nodes & ~common)


def distinct(*columns: Numbers) -> tuple[Numbers, Numbers]:
    """A row of each distinct tuple, sorted by the tuples, and for each row which of these it is."""
    code, room = np.zeros(len(columns[0]), dtype=np.int64), 1
    for column in columns:
        low, high = int(column.min(initial=0)), int(column.max(initial=0))
        span, number = high - low + 1, column - low
        if room * span > _ROOM:
            code, number = (np.unique(one, return_inverse=True)[1] for one in (code, number))
            room, span = (int(one.max(initial=0)) + 1 for one in (code, number))
        code, room = code * span + number, room * span
    _, row, which = np.unique(code, return_index=True, return_inverse=True)
    return row, which


def slots_of(records: Records) -> pa.ListArray:
    """The slots of time in which each record was seen: of many where it adds up others."""
    if "intervals" in records.table.column_names:
        return records.table["intervals"].combine_chunks()
    slots = records.column("first_ns").astype(np.int64) // SLOT_NS
    return pa.ListArray.from_arrays(np.arange(len(slots) + 1, dtype=np.int32), pa.array(slots))


def each_slot(slots: pa.ListArray) -> tuple[Numbers, Numbers]:
    """Each slot of lists of them: the list's number, and the slot."""
    return np.asarray(slots.value_parent_indices()), np.asarray(slots.flatten())


class PeerNumbers:
    """Numbers of peers: positions, and beyond them addresses."""

    def __init__(self, snapshot: Snapshot, item_of: Callable[[int], Item | None]) -> None:
        self._snapshot = snapshot
        self._item_of = item_of
        self._positions: dict[int, int] = {}
        self._addresses: dict[bytes, int] = {}

    @property
    def addresses(self) -> list[bytes]:
        """The addresses that were numbered, in the order of their numbers."""
        return list(self._addresses)

    def peers(self, records: Records, end: str) -> Numbers:
        """The peer at one end of each record."""
        revisions, of_row = np.unique(records.column(f"{end}_revision"), return_inverse=True)
        positions = np.array([self._position(one) for one in revisions.tolist()], dtype=np.int64)
        found = positions[of_row] if len(of_row) else np.zeros(0, dtype=np.int64)
        unheld = np.flatnonzero(found == NOWHERE)
        addresses, seen_from = records.column(end)[unheld], records.seen_from.take(unheld)
        places, which = seen_from.distinct(addresses)
        asked = zip(addresses[places], seen_from.which[places].tolist(), strict=True)
        numbers = [self._number(one.tobytes(), seen_from.clusters[at]) for one, at in asked]
        found[unheld] = np.array(numbers, dtype=np.int64)[which]
        return found

    def _position(self, revision: int) -> int:
        if revision not in self._positions:
            item = self._item_of(revision)
            self._positions[revision] = (
                self._snapshot.position(item.key)
                if item is not None and item.kind is not ItemKind.NETWORK
                else NOWHERE
            )
        return self._positions[revision]

    def _number(self, address: bytes, home: ClusterId) -> int:
        # Nodes seldom change addresses, but their agents may tell of them after the first flows.
        holder = self._snapshot.at(Address(address), home)
        if holder != NOWHERE and self._snapshot.items[holder].kind is ItemKind.NODE:
            return holder
        return len(self._snapshot.items) + self._addresses.setdefault(address, len(self._addresses))


def _joined(addresses: NDArray[np.uint8], ports: NDArray[np.uint16]) -> NDArray[np.void]:
    octets = ports.astype(">u2").view(np.uint8).reshape(-1, 2)
    return np.ascontiguousarray(np.concatenate([addresses, octets], axis=1)).view("V18").ravel()


def _processes(records: Records) -> tuple[tuple[str, ...], Numbers]:
    """The names of processes, the empty one first, and each record's at either end as a number."""
    told = [
        records.table[end].combine_chunks().cast(pa.string())
        if end in records.table.column_names
        else pa.nulls(len(records), pa.string())
        for end in ("consumer_process", "provider_process")
    ]
    coded = pa.concat_arrays(told).fill_null("").dictionary_encode()
    names = sorted({"", *coded.dictionary.to_pylist()})
    number = {name: at for at, name in enumerate(names)}
    numbers = np.array([number[name] for name in coded.dictionary.to_pylist()], dtype=np.int64)
    return tuple(names), numbers[coded.indices.to_numpy()].reshape(2, -1)
