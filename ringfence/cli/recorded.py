"""What commands read that ask no control plane: inventories, flows and policies in files."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ringfence.cli.documents import read_documents
from ringfence.cli.files import unreadable
from ringfence.flows.connections import Records
from ringfence.flows.recorded import read_flows
from ringfence.inventory.recorded import Recorded, read_inventory
from ringfence.inventory.timeline import Timeline
from ringfence.model.errors import InputError, RingfenceError
from ringfence.policy.document import Documents, parse_documents
from ringfence.policy.references import check_references


def recorded_inventory(path: Path) -> Recorded:
    """What `ringfence inventory export` wrote."""
    ((name, text),) = read_documents([path])
    with of_files():
        return read_inventory(text, name)


def recorded_flows(path: Path, timeline: Timeline) -> Records:
    """What `ringfence flows export` wrote."""
    try:
        with path.open("rb") as source, of_files():
            return read_flows(source, str(path), timeline)
    except OSError as error:
        raise unreadable(path, error) from error


def documents_of(paths: list[Path]) -> Documents:
    """What files and folders say, with all that they name of one another."""
    texts = read_documents(paths)
    with of_files():
        read = [parse_documents(text, name) for name, text in texts]
        documents = Documents(
            tuple(one for part in read for one in part.scopes),
            tuple(one for part in read for one in part.workspaces),
            tuple(one for part in read for one in part.filters),
            tuple(one for part in read for one in part.address_sets),
            tuple(one for part in read for one in part.references),
        )
        check_references(documents)
    return documents


@contextmanager
def of_files() -> Iterator[None]:
    """What is wrong in a file is no mistake in the command."""
    try:
        yield
    except InputError as error:
        raise RingfenceError(str(error)) from error
