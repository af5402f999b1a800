"""The door to nftables: libnftables within this process, in the namespace that is meant.

A transaction goes through whole or not at all. Nothing but our own table is ever
changed, and what iptables-nft made for us.
"""

import ctypes
import hashlib
import os
import re
import struct
import threading
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from ringfence.kernel.errors import KernelError, NetlinkError
from ringfence.kernel.netlink import DUMP, ask, attributes
from ringfence.kernel.netns import run_in
from ringfence.kernel.rules import Drops, Listing
from ringfence.model.address import parse_address
from ringfence.model.errors import InputError

FAMILY, TABLE = "inet", "ringfence"
_LIST = f"list table {FAMILY} {TABLE}"

_RULES = "# rules\n"
_AHEAD = re.compile(rf"^add (set|map) {FAMILY} {TABLE} (\w+)", re.MULTILINE)
_STAY = re.compile(r"^\tset (\w+)", re.MULTILINE)
"""The sets that commands make ahead of the rules, and those declared with them."""
_HELD = {"chain", "map", "set"}
_KINDS = {"metainfo", "table", "rule"} | _HELD
"""What our table is made of, as nft lists it."""

# Flags of nft_ctx_output_set_flags, libnftables(3).
_HANDLE, _JSON, _NUMERIC, _TERSE = 1 << 3, 1 << 4, 0xF << 7, 1 << 11
_RULE = re.compile(r"\t\t(.+) # handle (\d+)")
# libnftables promises nothing about contexts in several threads.
_lock = threading.Lock()
# libnftables waits by select(2), and the C library ends the process for a descriptor from
# FD_SETSIZE on. The rest is for what other threads open meanwhile.
_HIGHEST_FD = 1024 - 64
_WITH_PORT = 5
"""Parts of a dropped tuple with a port: source, destination, protocol, port, mark."""
_CHAIN = "rf_track"
_TRACK = f"""\
add table {FAMILY} {TABLE}
add chain {FAMILY} {TABLE} {_CHAIN} \
{{ type filter hook prerouting priority -150; policy accept; }}
add rule {FAMILY} {TABLE} {_CHAIN} ct state established accept
"""


# include/uapi/linux/netfilter.h, nfnetlink.h and nf_tables.h
_NETLINK_NETFILTER = 12
_FAMILIES = {"inet": 1, "ip": 2, "ip6": 10}
_GET_TABLE = 10 << 8 | 1
_NAME, _FLAGS = 1, 2
_GENERIC = struct.Struct("=BBH")  # nfgenmsg


class Place(NamedTuple):
    """Where the kernel calls a base chain."""

    type: str
    hook: str
    priority: int


class NftError(KernelError):
    """nftables refused a command, or holds what nobody of us wrote there."""


def apply(netns_path: Path, commands: str) -> None:
    """Run nft commands as one transaction in a namespace; raises NftError, NamespaceError.

    In the sections "# sets" and "# rules" they take the place of all that the table has: first
    the sets, and then, at one instant, the rules that ask them.
    """
    sets, rules_follow, rules = commands.partition(_RULES)
    if rules_follow:
        run_in(netns_path, lambda: _replace(sets, rules))
    elif commands:
        run_in(netns_path, lambda: _run(commands, 0))


def usable() -> bool:
    """Whether the kernel has nftables, and this machine its library."""
    try:
        _library()
        _there()
    except NftError:
        return False
    return True


def remove(netns_path: Path) -> None:
    """Take our table away, if it is there; raises NftError, NamespaceError."""
    if exists(netns_path):
        apply(netns_path, f"add table {FAMILY} {TABLE}\ndelete table {FAMILY} {TABLE}\n")


def start_tracking(netns_path: Path) -> None:
    """Track connections from now on, with a table that lets everything pass.

    Does nothing where our table stands already. Raises NftError, NamespaceError.
    """
    if not exists(netns_path):
        apply(netns_path, _TRACK)


def judges(netns_path: Path) -> bool:
    """Whether our table stands in a namespace and does more than to track."""
    table = list_table(netns_path, elements=False) or ()
    return any(found.get("chain", {}).get("name", _CHAIN) != _CHAIN for found in table)


def list_table(netns_path: Path, *, elements: bool = True) -> Listing | None:
    """Our table as nft's JSON objects (libnftables-json(5)), None if it is not there.

    Without `elements` the kernel is not asked what the sets hold. A table with flags, which ours
    never has, is told without its content.
    """

    return run_in(netns_path, lambda: _list(elements=elements))


def _list(*, elements: bool) -> Listing | None:
    if flags := table_flags(FAMILY, TABLE):
        return [{"table": {"family": FAMILY, "name": TABLE, "flags": flags}}]
    try:
        return _objects(_run(_LIST, _JSON | _NUMERIC | (0 if elements else _TERSE)))
    except NftError:
        # Asked afterwards: before, the table might still have gone between the two.
        if _there():
            raise
        return None


def rule_texts(netns_path: Path) -> dict[int, str]:
    """The rules of our table as nft prints them, by their handles; none if it is not there."""
    # No text of ours, comments included, has a line's end in it.
    listed = run_in(netns_path, lambda: _run(_LIST, _HANDLE | _TERSE) if _there() else "")
    found = (_RULE.fullmatch(line) for line in listed.splitlines())
    return {int(one[2]): one[1] for one in found if one}


def exists(netns_path: Path) -> bool:
    """Whether our table stands in a namespace; raises NftError, NamespaceError."""
    return run_in(netns_path, _there)


def chains(family: str, table: str) -> list[dict[str, Any]]:
    """The chains of anyone's table in the thread's namespace, none if it is not there."""
    listed = (found.get("chain", {}) for found in _objects(_run("list chains", _JSON)))
    return [c for c in listed if (c.get("family"), c.get("table")) == (family, table)]


def table_flags(family: str, table: str) -> int | None:
    """The flags of anyone's table in the thread's namespace, None if it is not there.

    To tell them in JSON, libnftables 1.0.6 reads memory that it has freed. Raises NftError.
    """
    request = _GENERIC.pack(_FAMILIES[family], 0, 0)
    try:
        tables = list(ask(_NETLINK_NETFILTER, _GET_TABLE, DUMP, request))
    except NetlinkError as error:
        raise NftError(str(error)) from error
    told = [attributes(one[_GENERIC.size :]) for one in tables]
    flags = (int.from_bytes(t[_FLAGS]) for t in told if t[_NAME] == table.encode() + b"\0")
    return next(flags, None)


def delete_unused(family: str, table: str, names: Collection[str]) -> None:
    """Delete base chains that iptables made for us, and its table if `TABLE` is named.

    Where anybody has rules by now it stays. For the thread's namespace; raises NftError.
    """
    for chain in chains(family, table):
        if chain["name"] in names and chain.get("policy") == "accept":
            with suppress(NftError):  # the kernel deletes no chain with rules
                _run(f"delete chain {family} {table} {chain['name']}", 0)
    if "TABLE" in names and not chains(family, table):
        _run(f"delete table {family} {table}", 0)


def delete_misplaced(family: str, table: str, places: Mapping[str, Place], ours: str) -> None:
    """Delete chains of anyone's table that have lost the places where their names belong.

    Not one with a policy, with rules that do more than to call chains whose names begin with
    `ours`, or that others call. For the thread's namespace; raises NftError.
    """
    for chain in chains(family, table):
        place = places.get(chain["name"])
        here = chain.get("type"), chain.get("hook"), chain.get("prio")
        if place is None or here == place or chain.get("policy", "accept") != "accept":
            continue
        name = f"{family} {table} {chain['name']}"
        rules = (found["rule"] for found in _objects(_run(f"list chain {name}", _JSON))
                 if "rule" in found)  # fmt: skip
        if all(_calls_only(rule["expr"], ours) for rule in rules):
            with suppress(NftError):  # the kernel deletes no chain that is called
                _run(f"flush chain {name}; delete chain {name}", 0)


def _calls_only(parts: Iterable[dict[str, Any]], ours: str) -> bool:
    """Whether the parts of a rule count, and call a chain of ours."""
    does = [part for part in parts if "counter" not in part]
    match does:
        case [{"jump": {"target": str(chain)}} | {"goto": {"target": str(chain)}}]:
            return chain.startswith(ours)
    return False


def _replace(sets: str, rules: str) -> None:
    """Load sets, and then rules in the place of all others; a failure leaves those whole."""
    standing = _list(elements=False) or []
    ours = all(
        found.keys() & _KINDS and "flags" not in found.get("table", ()) for found in standing
    )
    if not (ours and _in_turn(standing, sets, rules)):
        # What others put in the way goes along with the table, at the price of an instant.
        table = f"table {FAMILY} {TABLE}\n"
        _run(f"add {table}delete {table}add {table}{sets}{rules}", 0)


def _in_turn(standing: Listing, sets: str, rules: str) -> bool:
    """Load sets, change rules, and take the old sets away, by a transaction each.

    In one, a packet might look into a set of ranges before it holds what came along with the
    packet's rules, and into any after it went with them. Returns whether it was done.
    """
    ahead = {name: kind for kind, name in _AHEAD.findall(sets)}
    stay = {*ahead, *_STAY.findall(rules)}
    again: dict[str, str] = {}
    chains, old = "", ""
    for kind, body in ((kind, found[kind]) for found in standing for kind in _HELD & found.keys()):
        # By its handle a map is deleted as a set.
        what = "chain" if kind == "chain" else "set"
        gone = f"delete {what} {FAMILY} {TABLE} handle {body['handle']}\n"
        if kind == "chain":
            chains += gone
        elif body["name"] not in stay:
            old += gone
        elif body["name"] in ahead:
            again[body["name"]] = f"flush {kind} {FAMILY} {TABLE} {body['name']}\n"
    try:
        _run(f"add table {FAMILY} {TABLE}\n{''.join(again.values())}{sets}", 0)
        _run(f"flush table {FAMILY} {TABLE}\n{chains}{rules}", 0)
        _run(old, 0)
    except NftError:
        for name in ahead.keys() - again.keys():
            with suppress(NftError):  # not even made, or asked already
                _run(f"delete {ahead[name]} {FAMILY} {TABLE} {name}\n", 0)
        return False
    return True


def _there() -> bool:
    return table_flags(FAMILY, TABLE) is not None


def fingerprint(table: Listing, *, elements: bool = True) -> bytes:
    """The table without what changes by itself: handles, counters, what drop sets hold.

    Without `elements` also without what the other sets hold.
    """
    kept = []
    for found in table:
        for kind, body in found.items():
            if kind == "metainfo":
                continue
            fixed = {name: value for name, value in body.items() if name != "handle"}
            if not elements or (kind == "set" and "timeout" in body.get("flags", ())):
                fixed.pop("elem", None)
            elif "elem" in fixed:
                fixed["elem"] = sorted(map(msgspec.json.encode, fixed["elem"]))
            if kind == "rule":
                fixed["expr"] = ["counter" if "counter" in part else part for part in body["expr"]]
            kept.append({kind: fixed})
    return hashlib.sha256(msgspec.json.encode(kept, order="sorted")).digest()


def read_drops(objects: Listing, sets: Collection[str]) -> Drops:
    """What the drop sets of these names hold, from `list_table`.

    Raises NftError where they hold something else: a privileged pod can write into our table.
    """
    try:
        return _read_drops(objects, sets)
    except (TypeError, LookupError, ValueError, OverflowError, StopIteration, InputError) as error:
        raise NftError(f"the drop sets hold what no rule of ours puts there: {error!r}") from error


def _read_drops(objects: Listing, sets: Collection[str]) -> Drops:
    keys: list[list[Any]] = []
    packets: list[int] = []
    expires: list[int] = []
    overflow: dict[int, int] = {}
    for found in objects:
        held = found.get("set", {})
        for element in held.get("elem", ()) if held.get("name") in sets else ():
            counted = element["elem"]
            if isinstance(mark := counted["val"], int):
                overflow[mark] = counted["counter"]["packets"]
                continue
            keys.append(counted["val"]["concat"])
            packets.append(counted["counter"]["packets"])
            expires.append(counted["expires"])
    return Drops(
        mark=np.array([key[-1] for key in keys], dtype=np.uint32),
        protocol=np.array([int(key[2]) for key in keys], dtype=np.uint8),
        source=_addresses(key[0] for key in keys),
        destination=_addresses(key[1] for key in keys),
        port=np.array([key[3] if len(key) == _WITH_PORT else 0 for key in keys], dtype=np.uint16),
        packets=np.array(packets, dtype=np.uint64),
        expires=np.array(expires, dtype=np.uint32),
        overflow=overflow,
    )


def _addresses(texts: Iterable[str]) -> NDArray[np.uint8]:
    packed = b"".join(map(parse_address, texts))
    return np.frombuffer(packed, dtype=np.uint8).reshape(-1, 16)


def _objects(listed: str) -> Listing:
    try:
        found: Listing = msgspec.json.decode(listed)["nftables"]
    except (msgspec.DecodeError, LookupError, TypeError) as error:
        raise NftError(f"nftables' answer is not understood: {error}") from error
    for one in found:
        # Who writes by netlink may make a rule that says nothing, and nft lists it without.
        one.get("rule", {}).setdefault("expr", [])
    return found


def _run(commands: str, flags: int) -> str:
    """Run commands in the calling thread's namespace and return what they print."""
    library = _library()
    with _lock:
        _check_room()
        # The context opens its netlink socket at once: here is where the namespace is chosen.
        context = library.nft_ctx_new(0)
        if not context:
            raise NftError("libnftables gives no context: out of memory")
        try:
            library.nft_ctx_buffer_output(context)
            library.nft_ctx_buffer_error(context)
            library.nft_ctx_output_set_flags(context, flags)
            failed = library.nft_run_cmd_from_buffer(context, commands.encode())
            if failed:
                said: bytes = library.nft_ctx_get_error_buffer(context)
                raise NftError(f"nftables refused: {said.decode(errors='replace').strip()}")
            printed: bytes = library.nft_ctx_get_output_buffer(context)
            return printed.decode(errors="replace")
        finally:
            library.nft_ctx_free(context)


def _check_room() -> None:
    with Path(os.devnull).open() as lowest_free:
        if lowest_free.fileno() > _HIGHEST_FD:
            raise NftError(
                f"more than {_HIGHEST_FD} files are open in this process, and nftables' library"
                " works with no more: find out what opens them, and restart it"
            )


@cache
def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL("libnftables.so.1")
    except OSError as error:
        raise NftError(f"{error}; install libnftables1 (Debian, Ubuntu)") from error
    context, text = ctypes.c_void_p, ctypes.c_char_p
    for name, result, arguments in (
        ("nft_ctx_new", context, [ctypes.c_uint32]),
        ("nft_ctx_free", None, [context]),
        ("nft_ctx_buffer_output", ctypes.c_int, [context]),
        ("nft_ctx_buffer_error", ctypes.c_int, [context]),
        ("nft_ctx_output_set_flags", None, [context, ctypes.c_uint]),
        ("nft_run_cmd_from_buffer", ctypes.c_int, [context, text]),
        ("nft_ctx_get_error_buffer", text, [context]),
        ("nft_ctx_get_output_buffer", text, [context]),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library
