"""From counters that grow to drop reports: what each rule dropped since the last report.

Our own denying rules count in sets that their door reads; the drops of others come from the
kernel's tracepoint.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ringfence.agent.pods import Place
from ringfence.kernel.rules import Drops
from ringfence.model.address import Address
from ringfence.model.flow import DropSource, Observer
from ringfence.model.policy import Direction
from ringfence.model.protocol import ICMP, ICMPV6
from ringfence.policy.backends.interface import Denial
from ringfence.wire import columns
from ringfence.wire.limits import MOST_ROWS

Columns = dict[str, NDArray[Any]]
"""Columns of `columns.DROPS`."""

REASON = "NETFILTER_DROP"
"""The only one of the kernel's drop reasons (enum skb_drop_reason) that is captured."""


_WHOLE_SECONDS = 1
"""By what a time may be longer than nftables tells it."""
_LONGEST_READING_SECONDS = 60

_NONE: Columns = columns.empty(columns.DROPS)
_NO_DROPS = columns.encode(columns.DROPS, _NONE)
_NO_FLOWS = columns.encode(columns.FLOWS, columns.empty(columns.FLOWS))


class DropLedger:
    """Remembers each counter's last value, and gathers what was added."""

    def __init__(self, timer: Callable[[], float] = time.monotonic) -> None:
        self._timer = timer
        self._seen: dict[Place, dict[bytes, int]] = {}
        self._ends: dict[Place, dict[bytes, float]] = {}
        """When each tuple is forgotten, unless it is dropped again before."""
        self._gathered: list[Columns] = []

    def read(self, place: Place, denials: Mapping[int, Denial], drops: Drops) -> None:
        """Take in what the drop sets of a namespace hold now; `denials` tells by marks whose."""
        keys = _join(*_tuple(drops))
        counted = dict(zip(keys, drops.packets.tolist(), strict=True))
        counted |= {_full(mark): packets for mark, packets in drops.overflow.items()}
        before, moment = self._seen.get(place, {}), self._timer()
        ends = dict(zip(keys, (moment + drops.expires + _WHOLE_SECONDS).tolist(), strict=True))
        # A counter that fell began anew: its tuple had timed out. So did one that is as it was,
        # though its time was over and begins again: another packet would have been counted.
        over = {
            key
            for key, end in self._ends.get(place, {}).items()
            if end < min(moment, ends.get(key, 0) - _LONGEST_READING_SECONDS)
        }
        added = {
            key: count if count < before.get(key, 0) + (key in over) else count - before.get(key, 0)
            for key, count in counted.items()
        }
        self._seen[place], self._ends[place] = counted, ends
        packets = np.array([added[key] for key in keys], dtype=np.uint64)
        # A mark that is not ours a privileged pod has put there.
        now = (packets > 0) & np.isin(drops.mark, list(denials))
        lost = [mark for mark in drops.overflow if mark in denials and added[_full(mark)]]
        self._gathered += [
            _columns(
                DropSource.RINGFENCE, place,
                **_whose(denials, drops.mark[now].tolist()),
                protocol=drops.protocol[now],
                consumer=drops.source[now],
                provider=drops.destination[now],
                provider_port=drops.port[now],
                packets=packets[now],
            ),
            _columns(
                DropSource.RINGFENCE, place,
                **_whose(denials, lost),
                overflow=np.array([added[_full(mark)] for mark in lost], dtype=np.uint64),
            ),
        ]  # fmt: skip

    def forget(self, place: Place) -> None:
        """The counters of this namespace are gone, or begin at zero again."""
        self._seen.pop(place, None)
        self._ends.pop(place, None)

    def read_others(
        self, records: NDArray[np.void], places: Mapping[Place, Iterable[Address]]
    ) -> None:
        """Take in what the kernel reported (DROP_DTYPE).

        `places` are the namespaces to report on and their addresses, which tell an end's
        direction.
        """
        for place, addresses in places.items():
            here = records[records["netns"] == place.inode]
            icmp = np.isin(here["protocol"], (ICMP, ICMPV6))
            port = np.where(icmp, here["sport"] * 256 + here["dport"], here["dport"])
            own = set(addresses)
            inbound = np.array([bytes(row) in own for row in here["dst"]], dtype=bool)
            self._gathered.append(
                _columns(
                    DropSource.OTHER, place,
                    direction=np.where(inbound, Direction.INBOUND, Direction.OUTBOUND),
                    rule=np.full(len(inbound), "", dtype=object),
                    protocol=here["protocol"],
                    consumer=here["src"],
                    provider=here["dst"],
                    provider_port=port.astype(np.uint16),
                    packets=here["packets"],
                )
            )  # fmt: skip

    def take(self) -> Iterator[tuple[bytes, bool]]:
        """All that was gathered since the last call, as Arrow streams of `columns.DROPS`.

        There is at least one, and another for each MOST_ROWS; each comes with whether another
        follows.
        """
        gathered, self._gathered = self._gathered, []
        parts = (_NONE, *gathered)
        rows = {name: np.concatenate([part[name] for part in parts]) for name in columns.DROPS}
        count = len(rows["packets"])
        for start in range(0, max(count, 1), MOST_ROWS):
            end = start + MOST_ROWS
            part = {name: column[start:end] for name, column in rows.items()}
            yield columns.encode(columns.DROPS, part), end < count

    def beside(self, slices: Iterable[tuple[bytes, bool]]) -> Iterator[tuple[bytes, bytes, bool]]:
        """Slices of flows (`Capture.flows`), each with drops and with whether another follows.

        Drops come with the last flows, so that what fails before loses none, and after them.
        """
        for flows, more in slices:
            parts = [(_NO_DROPS, False)] if more else self.take()
            for number, (drops, further) in enumerate(parts):
                yield _NO_FLOWS if number else flows, drops, more or further


def _columns(source: DropSource, place: Place, **given: NDArray[Any]) -> Columns:
    """Rows of one namespace; a counted column that is not given is zero."""
    rows = len(given["direction"])
    observer = Observer.POD if place.uid else Observer.NODE
    reason = REASON if source is DropSource.OTHER else ""
    zeros = {name: np.zeros((rows, *none.shape[1:]), none.dtype) for name, none in _NONE.items()}
    return {
        **zeros,
        "source": np.full(rows, source, dtype=np.uint8),
        "observer": np.full(rows, observer, dtype=np.uint8),
        "pod": np.full(rows, place.uid, dtype=object),
        "reason": np.full(rows, reason, dtype=object),
        **given,
    }


def _whose(denials: Mapping[int, Denial], marks: Iterable[int]) -> Columns:
    found = [denials[mark] for mark in marks]
    return {
        "direction": np.array([denial.direction for denial in found], dtype=object),
        "rule": np.array([denial.handle for denial in found], dtype=object),
    }


def _tuple(drops: Drops) -> tuple[NDArray[np.uint8], ...]:
    ends = drops.protocol[:, None], drops.source, drops.destination
    return *ends, _octets(drops.port), _octets(drops.mark)


def _full(mark: int) -> bytes:
    """The key of what one rule denied and no set had room for."""
    return f"{mark}".encode()


def _octets(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Each value as a row of bytes."""
    return np.frombuffer(values.tobytes(), np.uint8).reshape(len(values), values.dtype.itemsize)


def _join(*parts: NDArray[np.uint8]) -> list[bytes]:
    """One key per row."""
    return [row.tobytes() for row in np.concatenate(parts, axis=1)]
