"""Ports as policies have them: exactly, or generalised where enough different ones were seen.

A server that gives out ports as it goes (passive FTP, NFS, JMX) is met on others tomorrow. That it
does so is told by how many unprivileged ones there were between the same two ends.
"""

from collections.abc import Collection, Iterator

import numpy as np

from ringfence.discovery.behaviour import Mask, distinct
from ringfence.discovery.observed import Observed
from ringfence.discovery.roles import Role
from ringfence.model.protocol import PortRange

LEVELS = {1: 0, 2: 16, 3: 8, 4: 4, 5: 3}
"""By level, how many ports make a range; at 1 none do."""
UNPRIVILEGED = 1024
_GIVEN, _EVERY_UNPRIVILEGED, _EVERY = 2, 4, 5
_LAST = 65535
_MANY = 8
"""So many ports that nothing declares, of one provider to one consumer, are given out."""
_OF_ONE = 0.75
"""At most this share of the ports, each counted for every workload that met it, is of one."""
_APART = 8192
"""Ports this far from each other are of two ranges: half of what is given out by default."""
_ROUND = 100
"""People configure ranges in round numbers, and not all of one is met in a day."""


def ranges(
    ports: Collection[int], level: int, given: Collection[int] = ()
) -> tuple[PortRange, ...]:
    """The ports as ranges, sorted; none stands for every port, as in a policy.

    From enough unprivileged ports on, all between the lowest and the highest of them are meant, at
    level 4 all unprivileged ones, and at 5 all there are. Those that are `given` out make a range
    at level 2 already, in round numbers.
    """
    if given and level in (_GIVEN, _GIVEN + 1):
        rest = ranges({*ports} - {*given}, level)
        return tuple(_united([*rest, *_around(sorted(given))]))
    high = sorted(port for port in ports if port >= UNPRIVILEGED)
    low = sorted(port for port in ports if port < UNPRIVILEGED)
    exact = [PortRange(port, port) for port in low]
    if not LEVELS[level] or len(high) < LEVELS[level]:
        return (*exact, *(PortRange(port, port) for port in high))
    if level >= _EVERY:
        return ()
    whole = level >= _EVERY_UNPRIVILEGED
    first, last = (UNPRIVILEGED, _LAST) if whole else (high[0], high[-1])
    return (*exact, PortRange(first, last))


def given_out(observed: Observed, listening: Mask, among: Mask) -> Mask:
    """Which edges are to ports that a provider gives out to a consumer.

    They are unprivileged, nobody declares to listen on such, and there are many of them; the two go
    on talking on a port that does not change, or several of the consumer's workloads come so, none
    of them on most ports, and on none often: what nobody declares may be what the provider serves.
    An intruder tries what somebody may listen on, and most do not answer; of hosts outside nothing
    says who they are.
    """
    seen = observed
    among = among & seen.peers.which(Role)[seen.consumer]
    listening = np.isin(seen.port, seen.port[listening])
    pair = seen.consumer * len(seen.peers) + seen.provider
    steady = among & (seen.seen.intervals > 1) & (listening | (seen.port < UNPRIVILEGED))
    first, group = distinct(pair, seen.protocol)
    free = among & (seen.port >= UNPRIVILEGED) & ~listening
    good = free & (seen.seen.conversations > 0)
    mine = good[seen.pair_edge] & (seen.by_source.conversations > 0)
    came = group[seen.pair_edge[mine]]
    source, which = distinct(came, seen.pair_source[mine])
    most = np.zeros(len(first), dtype=np.int64)
    np.maximum.at(most, came[source], np.bincount(which, minlength=len(source)))
    shared = most <= _OF_ONE * np.bincount(came, minlength=len(first))
    met = np.bincount(group, np.where(among, seen.seen.intervals, 0), len(first))
    seldom = seen.seen.intervals * _MANY <= met[group]
    settled = np.isin(pair, pair[steady]) | (shared[group] & seldom)
    free, good = free & settled, good & settled
    answered, tried = (np.bincount(group, chosen, len(first)) for chosen in (good, free))
    return np.asarray(good & ((answered >= _MANY) & (answered * 2 > tried))[group])


def _around(ports: list[int]) -> Iterator[PortRange]:
    """Ranges in round numbers around ports that are near each other."""
    for part in np.split(np.array(ports), np.flatnonzero(np.diff(ports) > _APART) + 1):
        first, last = (int(port) // _ROUND * _ROUND for port in (part[0], part[-1]))
        yield PortRange(max(first, UNPRIVILEGED), min(last + _ROUND - 1, _LAST))


def _united(some: list[PortRange]) -> Iterator[PortRange]:
    """The same ports, sorted, each once."""
    held: PortRange | None = None
    for one in sorted(some, key=lambda one: (one.first, one.last)):
        if held and one.first <= held.last:
            held = PortRange(held.first, max(held.last, one.last))
            continue
        if held:
            yield held
        held = one
    if held:
        yield held
