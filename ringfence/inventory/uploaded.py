"""Labels that people upload for addresses and networks: what may be in them, and CSV of them."""

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b

from ringfence.model import labels
from ringfence.model.address import Network, format_address, parse_network
from ringfence.model.errors import InputError
from ringfence.model.ids import NO_CLUSTER, item_key
from ringfence.model.spreadsheet import spreadsheet_plain
from ringfence.model.words import named
from ringfence.model.workload import Item, ItemKind

MOST_NETWORKS = 10_000
"""How many addresses and networks may have labels."""
MOST_BYTES = 4 << 20
"""What they and their labels may take all together: `written_bytes`."""
MOST_LABELS = 32
MOST_VALUE_BYTES = 256
_KEY = re.compile(r"[a-z0-9_][a-z0-9_./-]{0,127}")
_COLUMNS = ("address", "name")
_ADDRESS_BITS = 128


@dataclass(frozen=True, slots=True)
class Upload:
    """What is said of one address or network; keys without `user.`, in lower case.

    `name` may be empty.
    """

    network: Network
    name: str
    labels: Mapping[str, str]

    @property
    def address(self) -> str:
        """The network as people write it, one of a single address without its prefix length."""
        return written(self.network)


def written(network: Network) -> str:
    """The network as people write it, one of a single address without its prefix length."""
    return format_address(network.address) if is_address(network) else str(network)


def is_address(network: Network) -> bool:
    """Whether the network is a single address."""
    return network.prefix == _ADDRESS_BITS


def make_upload(address: str, name: str, given: Mapping[str, str]) -> Upload:
    """Check what somebody says of an address; raises InputError with all that is wrong with it."""
    wrong = []
    try:
        network = parse_network(address)
    except InputError as error:
        wrong.append(str(error))
    if len(given) > MOST_LABELS:
        wrong.append(f"{len(given)} labels are more than {MOST_LABELS}")
    lower = {key.lower(): value for key, value in given.items()}
    wrong += [f"key {key!r} {why}" for key in lower if (why := _wrong_key(key))]
    if len(lower) < len(given):
        wrong.append("two keys differ by the case of their letters alone")
    values = {"name": name, **lower}
    wrong += [f"{key} {why}" for key, value in values.items() if (why := _wrong_value(value))]
    wrong += [f"{key} is empty" for key, value in lower.items() if not value]
    if wrong:
        raise InputError(", ".join(wrong))
    return Upload(network, name, lower)


def check_together(uploads: Iterable[tuple[str, Upload]]) -> list[Upload]:
    """Uploads of one request, each with where it stands; raises InputError for doubles."""
    places: dict[Network, str] = {}
    chosen = []
    for place, upload in uploads:
        before = places.setdefault(upload.network, place)
        if before != place:
            raise InputError(f"{place}: {upload.address} stands in {before} already; keep one")
        chosen.append(upload)
    return chosen


def written_bytes(uploads: Iterable[Upload]) -> int:
    """What uploads take as JSON without white space, as the API takes them in, UTF-8."""
    return sum(
        len(
            json.dumps(
                {"address": one.address, "name": one.name, "labels": dict(one.labels)},
                ensure_ascii=False,
                separators=(",", ":"),
            ).encode()
        )
        + len(",")
        for one in uploads
    )


def read_csv(text: str) -> list[Upload]:
    """Read CSV (RFC 4180): first column `address`, perhaps `name`, the others keys of labels.

    An empty cell is no label. Raises InputError with the lines that are wrong, up to ten.
    """
    lines = _lines(text.removeprefix("\ufeff"))
    _, header = next(lines, (1, []))
    columns = [cell.strip().lower() for cell in header]
    _check_header(columns)
    uploads, wrong = [], []
    for number, cells in lines:
        if len(cells) != len(columns):
            wrong.append(f"line {number}: {len(cells)} cells, and the header has {len(columns)}")
            continue
        row = dict(zip(columns, map(spreadsheet_plain, map(str.strip, cells)), strict=True))
        given = {key: value for key, value in row.items() if value and key not in _COLUMNS}
        try:
            uploads.append(
                (f"line {number}", make_upload(row["address"], row.get("name", ""), given))
            )
        except InputError as error:
            wrong.append(f"line {number}: {error}")
    if wrong:
        raise InputError(named(wrong, "; "))
    return check_together(uploads)


def item_of(upload: Upload) -> Item:
    """The inventory item of an upload.

    Whatever is said of a network makes an item of its own: a conversation that goes on while
    labels change is told in two parts, each with the labels of its time.
    """
    said = json.dumps([upload.name, sorted(upload.labels.items())]).encode()
    uid = f"{upload.address} {blake2b(said, digest_size=6).hexdigest()}"
    name = upload.name or upload.address
    pairs = [
        (labels.KIND, ItemKind.NETWORK.value),
        (labels.NAME, name),
        (labels.ADDRESS, upload.address),
        *((labels.USER_PREFIX + key, value) for key, value in upload.labels.items()),
    ]
    return Item(
        key=item_key(NO_CLUSTER, ItemKind.NETWORK, uid),
        kind=ItemKind.NETWORK,
        cluster=NO_CLUSTER,
        namespace="",
        name=name,
        addresses=(),
        labels=labels.make_labels(pairs),
        network=upload.network,
        workload_name=name,
    )


def _lines(text: str) -> Iterator[tuple[int, list[str]]]:
    """The rows that are not blank, each with the number of the line on which it ends."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield reader.line_num, cells
    except csv.Error as error:
        raise InputError(f"line {reader.line_num}: not CSV: {error}") from error


def _check_header(columns: list[str]) -> None:
    if columns[:1] != ["address"]:
        found = repr(columns[0]) if columns else "nothing"
        raise InputError(
            f"line 1: the first column must be `address`, found {found};"
            " begin with a line such as `address,name,site`, joined by commas"
        )
    twice = sorted({key for key in columns if columns.count(key) > 1})
    if twice:
        raise InputError(f"line 1: two columns are called {twice[0]!r}")
    wrong = [f"column {key!r} {why}" for key in columns[1:] if (why := _wrong_key(key, ("name",)))]
    if wrong:
        raise InputError(f"line 1: {named(wrong, '; ')}")


def _wrong_key(key: str, known: tuple[str, ...] = ()) -> str:
    """What is wrong with a label's key, empty for nothing."""
    if key in known:
        return ""
    if key in _COLUMNS:
        return "is a word of its own here, not a label's key"
    if key.startswith(labels.USER_PREFIX):
        return f"is written {key.removeprefix(labels.USER_PREFIX)!r} here"
    if not _KEY.fullmatch(key):
        return "is none: write up to 128 letters, digits and _ . / -, the first no . / or -"
    return ""


def _wrong_value(value: str) -> str:
    if len(value.encode(errors="replace")) > MOST_VALUE_BYTES:
        return f"has more than {MOST_VALUE_BYTES} bytes"
    return "" if value.isprintable() else "has characters that cannot be printed"
