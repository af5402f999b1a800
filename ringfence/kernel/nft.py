"""The door to nftables: libnftables within this process, in the namespace that is meant.

A transaction goes through whole or not at all. Nothing but our own table is ever
changed, and what iptables-nft made for us.
"""

import hashlib
import re
import struct
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from ringfence.kernel import packet_sockets, silence
from ringfence.kernel.errors import NetlinkError
from ringfence.kernel.libnftables import (
    HANDLE,
    JSON,
    NUMERIC,
    TERSE,
    NftError,
    library,
    objects,
    run,
)
from ringfence.kernel.netlink import DUMP, NETFILTER, ask, attributes
from ringfence.kernel.netns import run_in
from ringfence.kernel.rules import Drops, Listing
from ringfence.model.address import parse_address
from ringfence.model.errors import InputError
from ringfence.policy.backends.marks import NO_PACKET_SOCKETS

FAMILY, TABLE = "inet", "ringfence"
_LIST = f"list table {FAMILY} {TABLE}"

_RULES = "# rules\n"
_AHEAD = re.compile(rf"^add (set|map) {FAMILY} {TABLE} (\w+)", re.MULTILINE)
_STAY = re.compile(r"^\tset (\w+)", re.MULTILINE)
"""The sets that commands make ahead of the rules, and those declared with them."""
_HELD = {"chain", "map", "set"}
_KINDS = {"metainfo", "table", "rule"} | _HELD
"""What our table is made of, as nft lists it."""

_RULE = re.compile(r"\t\t(.+) # handle (\d+)")
_WITH_PORT = 5
"""Parts of a dropped tuple with a port: source, destination, protocol, port, mark."""
_CHAIN = "rf_track"
_TRACK_ALL = f"""\
add chain {FAMILY} {TABLE} {_CHAIN} \
{{ type filter hook prerouting priority -150; policy accept; }}
add rule {FAMILY} {TABLE} {_CHAIN} ct state established accept
"""
_TRACK = f"add table {FAMILY} {TABLE}\n{_TRACK_ALL}"
CREATE = f"create table {FAMILY} {TABLE}\n{_TRACK_ALL}"
"""Begins commands that track connections too, and are refused where our table is."""


# include/uapi/linux/netfilter.h, nfnetlink.h and nf_tables.h
_FAMILIES = {"inet": 1, "ip": 2, "ip6": 10}
_GET_TABLE = 10 << 8 | 1
_NAME, _FLAGS = 1, 2
_GENERIC = struct.Struct("=BBH")  # nfgenmsg


class Place(NamedTuple):
    """Where the kernel calls a base chain."""

    type: str
    hook: str
    priority: int


def apply(netns_path: Path, commands: str) -> None:
    """Run nft commands as one transaction in a namespace; raises NftError, NamespaceError.

    In the sections "# sets" and "# rules" they take the place of all that the table has: first
    the sets, and then, at one instant, the rules that ask them. What drops is then made silent,
    and what packet sockets send dropped, where the rules say so (`NO_PACKET_SOCKETS`).
    """
    sets, rules_follow, rules = commands.partition(_RULES)

    def replace() -> None:
        _replace(sets, rules)
        silence.keep_silent(TABLE)
        if NO_PACKET_SOCKETS in rules:
            packet_sockets.close(TABLE)

    if rules_follow:
        run_in(netns_path, replace)
    elif commands:
        run_in(netns_path, lambda: run(commands, 0))


def usable() -> bool:
    """Whether the kernel has nftables, and this machine its library."""
    try:
        library()
        _there()
    except NftError:
        return False
    return True


def remove(netns_path: Path) -> None:
    """Take our tables away, if they are there; raises KernelError."""

    def take() -> None:
        if _there():
            run(f"add table {FAMILY} {TABLE}\ndelete table {FAMILY} {TABLE}\n", 0)
        packet_sockets.remove(TABLE)

    run_in(netns_path, take)


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
    never has, is told without its content. The rule of `silence` is told as such, by the name of
    that module: nft does not tell what iptables' targets do. Where the kernel can close packet
    sockets, it is told whether they are.
    """

    return run_in(netns_path, lambda: _with_packet_sockets(_list(elements=elements)))


def _with_packet_sockets(table: Listing | None) -> Listing | None:
    if not table or not packet_sockets.can_close():
        return table
    try:
        return [*table, {"packet_sockets": {"closed": packet_sockets.is_closed(TABLE)}}]
    except NetlinkError as error:
        raise NftError(str(error)) from error


def _list(*, elements: bool) -> Listing | None:
    if flags := table_flags(FAMILY, TABLE):
        return [{"table": {"family": FAMILY, "name": TABLE, "flags": flags}}]
    try:
        found = objects(run(_LIST, JSON | NUMERIC | (0 if elements else TERSE)))
        return _telling_silence(found)
    except NftError:
        # Asked afterwards: before, the table might still have gone between the two.
        if _there():
            raise
        return None


def _telling_silence(table: Listing) -> Listing:
    rules = [found["rule"] for found in table if "rule" in found]
    if any("xt" in part for rule in rules for part in rule["expr"]):
        try:
            silencing = silence.silencing(TABLE)
        except NetlinkError as error:
            raise NftError(str(error)) from error
        for rule in rules:
            if rule["handle"] in silencing:
                rule["expr"] = [{"silence": None}]
    return table


def rule_texts(netns_path: Path) -> dict[int, str]:
    """The rules of our table as nft prints them, by their handles; none if it is not there."""
    # No text of ours, comments included, has a line's end in it.
    listed = run_in(netns_path, lambda: run(_LIST, HANDLE | TERSE) if _there() else "")
    found = (_RULE.fullmatch(line) for line in listed.splitlines())
    return {int(one[2]): one[1] for one in found if one}


def exists(netns_path: Path) -> bool:
    """Whether our table stands in a namespace; raises NftError, NamespaceError."""
    return run_in(netns_path, _there)


def chains(family: str, table: str) -> list[dict[str, Any]]:
    """The chains of anyone's table in the thread's namespace, none if it is not there."""
    listed = (found.get("chain", {}) for found in objects(run("list chains", JSON)))
    return [c for c in listed if (c.get("family"), c.get("table")) == (family, table)]


def table_flags(family: str, table: str) -> int | None:
    """The flags of anyone's table in the thread's namespace, None if it is not there.

    To tell them in JSON, libnftables 1.0.6 reads memory that it has freed. Raises NftError.
    """
    request = _GENERIC.pack(_FAMILIES[family], 0, 0)
    try:
        tables = list(ask(NETFILTER, _GET_TABLE, DUMP, request))
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
                run(f"delete chain {family} {table} {chain['name']}", 0)
    if "TABLE" in names and not chains(family, table):
        run(f"delete table {family} {table}", 0)


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
        rules = (found["rule"] for found in objects(run(f"list chain {name}", JSON))
                 if "rule" in found)  # fmt: skip
        if all(_calls_only(rule["expr"], ours) for rule in rules):
            with suppress(NftError):  # the kernel deletes no chain that is called
                run(f"flush chain {name}; delete chain {name}", 0)


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
        run(f"add {table}delete {table}add {table}{sets}{rules}", 0)


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
        run(f"add table {FAMILY} {TABLE}\n{''.join(again.values())}{sets}", 0)
        run(f"flush table {FAMILY} {TABLE}\n{chains}{rules}", 0)
        run(old, 0)
    except NftError:
        for name in ahead.keys() - again.keys():
            with suppress(NftError):  # not even made, or asked already
                run(f"delete {ahead[name]} {FAMILY} {TABLE} {name}\n", 0)
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
                fixed["elem"] = sorted(map(_uncounted, fixed["elem"]))
            if kind == "rule":
                fixed["expr"] = ["counter" if "counter" in part else part for part in body["expr"]]
            kept.append({kind: fixed})
    return hashlib.sha256(msgspec.json.encode(kept, order="sorted")).digest()


def _uncounted(element: Any) -> bytes:
    """An element of a set as bytes, without what it has counted."""
    match element:
        case {"elem": {"counter": _} as held}:
            return msgspec.json.encode({"elem": {**held, "counter": None}})
    return msgspec.json.encode(element)


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
