"""The agent's account of itself: what its program counted against what the kernel counted.

At one side of a veth the kernel's counter and the program's differ by what had passed before the
program was attached, and by no more for as long as no packet is missed or counted twice.
Neither counter stands still while it is read, and packets are on their way from one to the other,
so that difference is known as a span. It narrows with each reading that agrees with those before,
and at a quiet moment it is one number.

Other kinds of interface are told and not judged: what hardware, a tunnel or a shaper merges and
cuts is one packet to the one counter and many to the other.
"""

import os
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ringfence.flows.record import Hook
from ringfence.kernel.counters import Counters
from ringfence.kernel.interfaces import Interface
from ringfence.wire.generated.agent_pb2 import Audit, InterfaceAudit, SideAudit
from ringfence.wire.limits import AUDITED_INTERFACES

Reading = Mapping[int, Counters]
"""The kernel's counters by ifindex."""

_PROCESSORS = os.cpu_count() or 1
_JUDGED = frozenset({"veth"})


class Span(NamedTuple):
    """A whole number of which is known that it lies within [least, most]."""

    least: int
    most: int

    def minus(self, other: "Span") -> "Span":
        """The difference of two numbers."""
        return Span(self.least - other.most, self.most - other.least)

    def within(self, other: "Span") -> "Span":
        """What both leave possible, where they leave anything."""
        return Span(max(self.least, other.least), min(self.most, other.most))


_NOTHING = Span(0, 0)


@dataclass
class _Side:
    """One hook of one interface. `ahead`: by how much the kernel's counter leads the program's."""

    ahead: Span | None = None
    counted: int = 0
    unaccounted: Span = _NOTHING

    def hold(self, least: int, counted: int, most: int) -> None:
        now = Span(least - counted, most - counted)
        ahead = self.ahead or now
        agreed = now.within(ahead)
        self.ahead = agreed if agreed.least <= agreed.most else ahead
        self.counted, self.unaccounted = counted, now.minus(self.ahead)

    def tell(self) -> SideAudit:
        return SideAudit(
            counted=self.counted, least=self.unaccounted.least, most=self.unaccounted.most
        )


@dataclass
class _Account:
    interface: Interface
    sides: dict[Hook, _Side]
    older: bool = False
    """Whether it was there before the agent."""
    judged: bool = False
    """Whether the two counters ought to agree, since the last reading."""

    def before(self) -> int:
        """Packets that had surely passed since it was made when the program was attached."""
        if self.older or not self.judged:
            return 0
        return sum(max(side.ahead.least, 0) for side in self.sides.values() if side.ahead)

    def wrong(self) -> Span:
        """Packets that were surely counted twice, as a negative number, and surely missed."""
        spans = [side.unaccounted for side in self.sides.values() if self.judged]
        return Span(sum(min(s.most, 0) for s in spans), sum(max(s.least, 0) for s in spans))

    def tell(self) -> InterfaceAudit:
        return InterfaceAudit(
            ifindex=self.interface.ifindex,
            name=self.interface.name,
            judged=self.judged,
            ingress=self.sides[Hook.INGRESS].tell(),
            egress=self.sides[Hook.EGRESS].tell(),
        )


@dataclass
class SelfAudit:
    """Holds the program's counters against the kernel's, for the interfaces it is attached to."""

    _accounts: dict[int, _Account] = field(default_factory=dict)
    _gone: Span = _NOTHING
    _before_gone: int = 0

    @property
    def before(self) -> int:
        """Packets that had passed interfaces made since when the program was attached to them."""
        return self._before_gone + sum(account.before() for account in self._accounts.values())

    def attached(self, interfaces: Iterable[Interface], older: Container[int] = ()) -> bool:
        """Hold these from the next reading on; whether any of them is new.

        `older` are those, by ifindex, that were there before the agent.
        """
        fresh = [each for each in interfaces if each.ifindex not in self._accounts]
        for interface in fresh:
            self._accounts[interface.ifindex] = _Account(
                interface, {each: _Side() for each in Hook}, interface.ifindex in older
            )
        return bool(fresh)

    def detached(self, ifindex: int) -> None:
        """The interface is counted no more; what was wrong with it stays in the totals."""
        if account := self._accounts.pop(ifindex, None):
            self._before_gone += account.before()
            wrong = account.wrong()
            self._gone = Span(self._gone.least + wrong.least, self._gone.most + wrong.most)

    def hold(
        self, at_least: Reading, backlog: int, counted: NDArray[np.void], at_most: Reading
    ) -> None:
        """Compare what was counted between two readings (AUDIT_DTYPE) with them.

        Where packets pass, one count may be ahead of the other by the `backlog`, and by the
        packet that each processor is at.
        """
        rows = counted[["ifindex", "hook", "skbs"]].tolist()
        skbs = {(ifindex, hook): count for ifindex, hook, count in rows}
        for ifindex, account in self._accounts.items():
            least, most = at_least.get(ifindex), at_most.get(ifindex)
            if least is None or most is None:  # gone, which is soon noticed
                continue
            # Row 0 stands for all sides that there was no room to count one by one.
            alone = all((ifindex, hook) in skbs for hook in Hook) or (0, 0) not in skbs
            account.judged = account.interface.kind in _JUDGED and alone and not most.cut
            for hook, side in account.sides.items():
                passing = backlog or least[hook] != most[hook]
                slack = backlog + _PROCESSORS if passing else 0
                side.hold(least[hook] - slack, skbs.get((ifindex, hook), 0), most[hook] + slack)

    def tell(self, audit: Audit) -> None:
        """Fill in the totals, and the interfaces: those with something wrong, then the busiest."""
        accounts = self._accounts.values()
        wrong = [self._gone, *(account.wrong() for account in accounts)]
        judged = [account for account in accounts if account.judged]
        spans = [side.unaccounted for account in judged for side in account.sides.values()]
        audit.unaccounted = sum(each.most for each in wrong)
        audit.overcounted = -sum(each.least for each in wrong)
        audit.uncertain = sum(span.most - span.least for span in spans)
        audit.judged = len(judged)
        first = sorted(accounts, key=_prominence, reverse=True)[:AUDITED_INTERFACES]
        audit.interfaces.extend(account.tell() for account in first)


def _prominence(account: _Account) -> tuple[int, bool, int]:
    wrong = account.wrong()
    busy = sum(side.counted for side in account.sides.values())
    return wrong.most - wrong.least, account.judged, busy
