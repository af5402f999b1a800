"""The sockets of the node's network namespaces: who listens where, and whose each one is.

A socket is known only while it is there, so sockets are looked at also between two reports, as
often as little of the processor allows. What was seen is remembered until the end of the window
after, for a connection's last packets may come behind its socket's end.
"""

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import islice

import numpy as np
import structlog
from numpy.typing import NDArray

from ringfence.agent.pods import Place
from ringfence.flows.orient import Listening
from ringfence.flows.owners import Owners, Process, socket_keys
from ringfence.kernel import processes, sockets
from ringfence.kernel.errors import NamespaceError, NetlinkError
from ringfence.model.address import V4_MAPPED, Address, is_v4

Places = Collection[tuple[Place, Sequence[Address]]]
"""Network namespaces and their addresses."""

_SHARE = 0.01
"""Of one processor, for looks between reports."""
_MOST_SOCKETS = 32_768
"""Remembered of one window, some 200 bytes each; `_level` says whose."""
_Seen = dict[str, dict[bytes, processes.Process]]
"""The processes that hold sockets (`socket_keys`), by the pod, as `Place.uid`."""
_WILDCARDS = (V4_MAPPED + bytes(4), bytes(16))

log = structlog.get_logger()


class SocketOwners:
    """Looks at sockets and remembers their processes. Its methods block: call them in turn."""

    def __init__(self) -> None:
        self._processes = processes.Processes()
        self._seen: _Seen = {}
        self._seen_before: _Seen = {}
        self._containers: frozenset[str] = frozenset()
        self._names: Mapping[str, str] = {}
        self._rest_until = 0.0
        self._sighted = self._warned = False

    def unnamed(self) -> frozenset[str]:
        """All containers as of the last look, if one of them is to be asked about."""
        return frozenset() if self._containers <= self._names.keys() else self._containers

    def name(self, asked: frozenset[str], names: Mapping[str, str]) -> None:
        """Know what the runtime told, names by id, when it was asked about these containers."""
        self._names = {**dict.fromkeys(asked, ""), **names}

    def look_again(self, places: Places) -> None:
        """Look between two reports, unless the look before was too short a time ago."""
        if time.monotonic() >= self._rest_until:
            self._look(places)

    def report(self, places: Places) -> tuple[Listening, Owners]:
        """Who listens now, and whose the sockets are that were there since the report before."""
        listening = self._look(places)
        holds = {address: place.uid for place, addresses in places for address in addresses}
        # An address may have gone to another pod, which has no part in what was seen before.
        current = {
            key: process
            for seen in (self._seen_before, self._seen)
            for uid, mine in seen.items()
            for key, process in mine.items()
            if holds.get(Address(key[1:17]), uid) == uid
        }
        self._seen_before, self._seen = self._seen, {}
        keys = np.array(list(current), dtype="S40")
        return listening, Owners(keys, [self._told(process) for process in current.values()])

    def _look(self, places: Places) -> Listening:
        began = time.process_time()
        tables = [
            (place, table) for place, addresses in places for table in _read(place, addresses)
        ]
        inodes = {place.inode: set(table["inode"].tolist()) - {0} for place, table in tables}
        holders = self._processes.holders(inodes)
        for place, table in tables:
            held = zip(_keys(table).tolist(), table["inode"].tolist(), strict=True)
            mine = self._seen.setdefault(place.uid, {})
            mine.update((key, holders[inode]) for key, inode in held if inode in holders)
            self._sighted |= bool(place.uid and mine)
        share = _level(map(len, self._seen.values()), _MOST_SOCKETS)
        self._seen = {uid: dict(islice(mine.items(), share)) for uid, mine in self._seen.items()}
        self._containers = frozenset(
            name for process in set(holders.values()) for name in process.containers
        )
        self._warn({place.inode for place, _ in tables if place.uid})
        self._rest_until = time.monotonic() + (time.process_time() - began) / _SHARE
        return _listening([table for _, table in tables])

    def _warn(self, pods: Collection[int]) -> None:
        if self._warned or self._sighted or self._processes.unseen.isdisjoint(pods):
            return
        self._warned = True
        log.warning(
            "flows will not name processes",
            problem="the processes of pods cannot be looked into: the agent has to run in the"
            " node's PID namespace (hostPID) with CAP_SYS_PTRACE",
        )

    def _told(self, process: processes.Process) -> Process:
        names = (self._names.get(one) for one in process.containers)
        return Process(process.pid, process.name, next(filter(None, names), ""))


def _level(wants: Iterable[int], room: int) -> int:
    """The most that each may have for all to have room: who wants less has all (max-min fair)."""
    ascending = sorted(wants)
    for rank, want in enumerate(ascending):
        share = room // (len(ascending) - rank)
        if want > share:
            return share
        room -= want
    return max(ascending, default=0)


def _read(place: Place, addresses: Sequence[Address]) -> Iterable[NDArray[np.void]]:
    """The sockets of a namespace, a wildcard written as each address; nothing if it is gone."""
    try:
        yield expand(sockets.sockets(place.netns), addresses)
    except (NamespaceError, NetlinkError) as error:
        log.info("sockets not read", netns=str(place.netns), problem=str(error))


def expand(table: NDArray[np.void], addresses: Iterable[Address]) -> NDArray[np.void]:
    """Sockets (SOCKET_DTYPE), each wildcard replaced by the namespace's addresses of its family."""
    local = table["local"]
    wild = [table["listens"] & (local == list(any_)).all(1) for any_ in _WILDCARDS]
    parts = [table[~(wild[0] | wild[1])]]
    for address in addresses:
        bound = table[wild[0 if is_v4(address) else 1]]
        bound["local"] = list(address)
        parts.append(bound)
    return np.concatenate(parts)


def _keys(table: NDArray[np.void]) -> NDArray[np.bytes_]:
    ends = ((table[end], table[f"{end}_port"]) for end in ("local", "remote"))
    return socket_keys(table["protocol"], *ends)


def _listening(tables: Sequence[NDArray[np.void]]) -> Listening:
    found = np.concatenate([np.empty(0, sockets.SOCKET_DTYPE), *tables])
    found = found[found["serves"]]
    return Listening(found["protocol"], found["local"], found["local_port"])
