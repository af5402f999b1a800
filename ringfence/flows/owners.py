"""Which processes hold the sockets at the ends of conversations, where the ends are local.

A consumer's socket knows the connection by the tuple before translation, a provider's by the one
that arrives. A connection whose own socket nobody saw, for it was short, belongs to the process
that listened there; a UDP socket without a peer has all that passes its address and port.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ringfence.flows.keys import Bytes, group, join, octets, spots
from ringfence.flows.pairs import end_octets
from ringfence.model.protocol import UDP


class Process(NamedTuple):
    """A process of the node, and the container that it runs in, empty outside of one."""

    pid: int
    name: str
    container: str


class Owners:
    """Sockets of the node, and the process that holds each."""

    def __init__(self, sockets: Bytes, holders: Sequence[Process]) -> None:
        """`sockets` are distinct keys (`socket_keys`), `holders` whose each of them is."""
        self._processes = sorted(set(holders))
        places = {process: place for place, process in enumerate(self._processes)}
        order = np.argsort(sockets)
        self._sockets = sockets[order]
        self._places = np.array([places[holder] for holder in holders], dtype=np.int64)[order]

    def of(
        self,
        protocol: NDArray[np.uint8],
        wire: Bytes,
        before: Bytes,
        turned: NDArray[np.bool_],
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """A choice of the holder at the consumer's and at the provider's end of n tuples.

        `wire` are the consumers' and the providers' ends, shape (2, n), as in `Pairs.ends`;
        `before` those before translation, the same where there was none; `turned` says which of
        the window's tuples this node turned to another address (`turned`). Of choices for one
        conversation the least is the best: a socket of its own goes before one that only listened,
        a low PID before a high one.
        """
        unknown = np.full(len(protocol), 2 * len(self._processes), dtype=np.int64)
        if not len(self._sockets):
            return unknown, unknown
        nobody = np.zeros((len(protocol), 18), np.uint8)
        consumer, provider = map(end_octets, wire)
        first_consumer, dialled = map(end_octets, before)
        consumers = self._held(join(protocol, first_consumer, dialled))
        of_udp = self._held(join(protocol, first_consumer, nobody)) + len(self._processes)
        consumers = np.minimum(consumers, np.where(protocol == UDP, of_udp, unknown))
        providers = self._held(join(protocol, provider, consumer))
        listeners = self._held(join(protocol, provider, nobody)) + len(self._processes)
        # What was turned to another address did not reach who listens at the first.
        providers = np.minimum(providers, np.where(turned, unknown, listeners))
        return np.minimum(consumers, unknown), np.minimum(providers, unknown)

    def columns(self, end: str, choices: NDArray[np.generic]) -> dict[str, NDArray[np.generic]]:
        """What `wire.columns.FLOWS` tells of an end's process, empty where none is known."""
        told = [*self._processes, Process(0, "", "")]
        places = np.arange(len(self._processes))
        at = np.concatenate([places, places, [len(self._processes)]])[choices]
        return {
            f"{end}_process": np.array([one.name for one in told], dtype=object)[at],
            f"{end}_pid": np.array([one.pid for one in told], np.uint32)[at],
            f"{end}_container": np.array([one.container for one in told], dtype=object)[at],
        }

    def _held(self, sockets: Bytes) -> NDArray[np.int64]:
        """The place of each socket's holder, twice the number of processes where it has none."""
        spot = spots(sockets, self._sockets)
        return np.where(spot >= 0, self._places[spot], 2 * len(self._processes))


def turned(protocol: NDArray[np.uint8], wire: Bytes, before: Bytes) -> NDArray[np.bool_]:
    """Which of a window's n tuples another of them had before translation.

    `wire` and `before` as for `Owners.of`.
    """
    moved = np.asarray((wire != before).any(axis=0))
    if not moved.any():
        return moved
    tuples = join(protocol, *map(end_octets, wire))
    originals = join(protocol[moved], *map(end_octets, before[:, moved]))
    groups = group(np.concatenate([tuples, originals]))
    which = groups.which
    dialled = np.zeros(len(groups.starts), dtype=np.bool_)
    dialled[which[len(tuples) :]] = True
    return np.asarray(dialled[which[: len(tuples)]])


def socket_keys(
    protocol: NDArray[np.uint8],
    local: tuple[NDArray[np.uint8], NDArray[np.uint16]],
    remote: tuple[NDArray[np.uint8], NDArray[np.uint16]],
) -> Bytes:
    """A key of each socket: protocol, own address and port, the peer's, zero for any.

    Addresses have the shape (n, 16).
    """
    ends = (part for address, port in (local, remote) for part in (address, octets(port, ">u2")))
    return join(protocol, *ends)


NOBODY = Owners(np.empty(0, "S40"), ())
