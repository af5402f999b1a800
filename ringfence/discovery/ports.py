"""Ports as policies have them: exactly, or generalised where enough different ones were seen.

A server that gives out ports as it goes (passive FTP, NFS, JMX) is met on others tomorrow. That it
does so is told by how many unprivileged ones there were between the same two ends.
"""

from collections.abc import Collection

from ringfence.model.protocol import PortRange

LEVELS = {1: 0, 2: 16, 3: 8, 4: 4, 5: 3}
"""By level, how many ports make a range; at 1 none do."""
UNPRIVILEGED = 1024
_EVERY_UNPRIVILEGED, _EVERY = 4, 5
_LAST = 65535


def ranges(ports: Collection[int], level: int) -> tuple[PortRange, ...]:
    """The ports as ranges, sorted; none stands for every port, as in a policy.

    From enough unprivileged ports on, all between the lowest and the highest of them are meant, at
    level 4 all unprivileged ones, and at 5 all there are.
    """
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
