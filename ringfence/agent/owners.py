"""The sockets of the node's network namespaces: who listens where, and whose each one is.

A socket is known only while it is there, so sockets are looked at also between two reports, as
often as little of the processor allows. What was seen is remembered until the end of the window
after, for a connection's last packets may come behind its socket's end.
"""

import time
from collections.abc import Collection, Iterable, Mapping, Sequence

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
"""Remembered of one window; some 200 bytes each."""
_WILDCARDS = (V4_MAPPED + bytes(4), bytes(16))

log = structlog.get_logger()


class SocketOwners:
    """Looks at sockets and remembers their processes. Its methods block: call them in turn."""

    def __init__(self) -> None:
        self._processes = processes.Processes()
        self._seen: dict[bytes, tuple[str, processes.Process]] = {}
        self._seen_before: dict[bytes, tuple[str, processes.Process]] = {}
        self._containers: frozenset[str] = frozenset()
        self._asked: frozenset[str] = frozenset()
        self._names: Mapping[str, str] = {}
        self._rest_until = 0.0
        self._sighted = self._warned = False

    def unnamed(self) -> bool:
        """Whether there are containers that the runtime was not asked about."""
        return not self._containers <= self._asked

    def name(self, names: Mapping[str, str]) -> None:
        """Know the names of all containers, by id."""
        self._names, self._asked = names, self._containers

    def look_again(self, places: Places) -> None:
        """Look between two reports, unless the look before was too short a time ago."""
        if time.monotonic() >= self._rest_until:
            self._look(places)

    def report(self, places: Places) -> tuple[Listening, Owners]:
        """Who listens now, and whose the sockets are that were there since the report before."""
        listening = self._look(places)
        seen = self._seen_before | self._seen
        self._seen_before, self._seen = self._seen, {}
        holds = {address: place.uid for place, addresses in places for address in addresses}
        # An address may have gone to another pod, which has no part in what was seen before.
        current = {
            key: process
            for key, (uid, process) in seen.items()
            if holds.get(Address(key[1:17]), uid) == uid
        }
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
            for key, inode in zip(_keys(table).tolist(), table["inode"].tolist(), strict=True):
                if inode in holders and len(self._seen) < _MOST_SOCKETS:
                    self._seen[key] = place.uid, holders[inode]
                    self._sighted |= bool(place.uid)
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
        names = (self._names[one] for one in process.containers if one in self._names)
        return Process(process.pid, process.name, next(names, ""))


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
