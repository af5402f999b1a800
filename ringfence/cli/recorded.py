"""What commands read that ask no control plane: inventories, flows and policies in files."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ringfence.cli.documents import read_document, read_documents
from ringfence.cli.files import unreadable
from ringfence.cli.output import tell
from ringfence.control.analysis import History
from ringfence.discovery.behaviour import SLOT_NS
from ringfence.flows.connections import Records
from ringfence.flows.doubts import Doubts
from ringfence.flows.merged import Merging
from ringfence.flows.recorded import flow_parts, read_flows, told_apart
from ringfence.inventory.as_known import FOREVER
from ringfence.inventory.contents import Content, Contents, pack
from ringfence.inventory.holders import Octets, octets_of
from ringfence.inventory.recorded import Recorded, read_inventory
from ringfence.inventory.resolutions import Resolution, Resolutions
from ringfence.inventory.timeline import Timeline
from ringfence.model.address import Address, format_address
from ringfence.model.address_set import Written
from ringfence.model.errors import InputError, RingfenceError
from ringfence.model.instant import format_instant
from ringfence.model.ranges import of_families
from ringfence.model.words import counted
from ringfence.policy.document import Documents, parse_documents
from ringfence.policy.several import together


def recorded_inventory(path: Path) -> Recorded:
    """What `ringfence inventory export` wrote."""
    name, text = read_document(path)
    with of_files():
        return read_inventory(text, name)


def recorded_flows(path: Path, timeline: Timeline) -> Records:
    """What `ringfence flows export` wrote."""
    try:
        with path.open("rb") as source, of_files():
            return read_flows(source, str(path), timeline)
    except OSError as error:
        raise unreadable(path, error) from error


def told_flows(path: Path, held: Recorded) -> Records:
    """As `recorded_flows`; what is in doubt of them stderr tells."""
    seen, doubts = recorded_flows(path, held.timeline), Doubts(held)
    doubts.add(seen)
    _tell(path, doubts)
    return seen


def _tell(path: Path, doubts: Doubts) -> None:
    """Say of which rows of a file the inventory leaves in doubt who they are of."""
    for line in doubts.lines():
        tell(f"warning: {path}: {line}")


def distinct_flows(path: Path, held: Recorded, instants: Iterable[int]) -> Records:
    """As `recorded_flows`, slots of time put together that lie between the same instants.

    What is in doubt of them stderr tells.
    """
    between = np.array(sorted(instants), dtype=np.int64)

    def apart(seen: Records) -> Octets:
        epochs = np.searchsorted(between, seen.column("first_ns"), side="right")
        return octets_of(told_apart(seen), epochs)

    found, doubts = Merging(apart), Doubts(held)
    try:
        with path.open("rb") as source, of_files():
            for part in flow_parts(source, str(path), held.timeline):
                doubts.add(part)
                found.add(part)
    except OSError as error:
        raise unreadable(path, error) from error
    _tell(path, doubts)
    return found.all()


def documents_of(paths: list[Path]) -> Documents:
    """What files and folders say, with all that they name of one another.

    What stands in several files alike is one. A proposal holds workspaces of scopes above anew: of
    those that differ the last one given counts, which stderr tells.
    """
    texts = read_documents(paths)
    with of_files():
        return together(((name, parse_documents(text, name)) for name, text in texts), tell)


def recorded_history(documents: Documents, timeline: Timeline, seen: Records) -> History:
    """What held over the time of the flows, as far as files tell."""
    return History(timeline, _names(seen), _contents(documents))


def held_ends(seen: Records) -> NDArray[np.bool_]:
    """For each row whether it has an end that the inventory holds at its time."""
    ends = [seen.column(f"{end}_revision") for end in ("first_consumer", "provider")]
    return np.asarray(np.logical_or.reduce([end != 0 for end in ends]))


def strangers(seen: Records, scope: str, *, what: str = "row") -> str:
    """Why nothing of the flows is of a scope: of how many rows anybody is known at all."""
    if not len(seen):
        return "the file of flows tells of no conversation: export a longer time"
    known = held_ends(seen)
    row = seen.take(np.array([int(np.argmin(known))])).table.to_pylist()[0]
    such = " to ".join(format_address(Address(row[end])) for end in ("first_consumer", "provider"))
    return (
        f"of {counted(len(seen), what)} in the flows {int(known.sum())} have an end that the"
        f" inventory holds at their time, and 0 one in {scope}; one is {such}, at"
        f" {format_instant(int(row['first_ns']))}: see that both files are of the same clusters and"
        " the same time, and whom the scope holds"
    )


def in_long_rows(seen: Records) -> bool:
    """Whether most of what was opened again and again stands in rows of more than an interval."""
    again = seen.take(seen.column("opened") > 1)
    length = again.column("last_ns") - again.column("first_ns")
    return bool((length > SLOT_NS).sum() * 2 > len(again))


@contextmanager
def of_files() -> Iterator[None]:
    """What is wrong in a file is no mistake in the command."""
    try:
        yield
    except InputError as error:
        raise RingfenceError(str(error)) from error


def _names(seen: Records) -> Resolutions:
    """The names that the flows tell of addresses, as if they had them all the time."""
    told = seen.table.select(["provider_dns_name", "provider"]).group_by(
        ["provider_dns_name", "provider"]
    )
    pairs = [row for row in told.aggregate([]).to_pylist() if row["provider_dns_name"]]
    names = Resolutions(len(pairs) + 1, len(pairs) + 1)
    for row in pairs:
        name = row["provider_dns_name"].lower().rstrip(".")
        names.learn(Resolution(name, Address(row["provider"]), 0, FOREVER, ""))
    return names


def _contents(documents: Documents) -> Contents:
    """What address sets hold as far as they say it themselves."""
    contents = Contents()
    for one in documents.address_sets:
        contents.begin(one.name)
        if isinstance(one.source, Written):
            contents.hold(Content(one.name, 0, pack(of_families(one.source.ranges))))
    return contents
