"""Numbers that stand for denials, and the mark that what we drop dies with."""

import re
from collections.abc import Mapping
from zlib import crc32

from ringfence.policy.backends.interface import Denial, UnsupportedError

DROP_MARK = 0x52464452
"""What we drop dies with this packet mark: OUR_DROP in bpf/drop.bpf.c."""
SILENCED_MARK = 0x52465349
"""What our rules make vanish without a word to its sender has this one."""
SILENT_QUEUE = 0x5246
"""The queue (NFQUEUE) that it vanishes in: of a number that nobody is known to listen to."""
NO_PACKET_SOCKETS = "# what packet sockets send is dropped\n"
"""Among commands, has that done by a table that nft's language alone cannot write."""
_HANDLE = re.compile(r"[A-Za-z0-9_.:/%~+-]{1,100}")


class Marks:
    """A mark for each denial, the same whatever others there are, but by accident."""

    def __init__(self) -> None:
        self._given: dict[Denial, int] = {}

    @property
    def given(self) -> Mapping[Denial, int]:
        """All that were asked for, in that order."""
        return self._given

    def of(self, denial: Denial) -> int:
        """The mark that stands for a denial."""
        if denial not in self._given:
            taken = {0, DROP_MARK, SILENCED_MARK, *self._given.values()}
            mark = crc32(f"{denial.direction} {denial.handle}".encode())
            while mark in taken:
                mark = (mark + 1) % 2**32
            self._given[denial] = mark
        return self._given[denial]


def check_handle(handle: str, kernel: str) -> None:
    """Raise UnsupportedError for a handle that a rule's comment cannot show as it is."""
    if not _HANDLE.fullmatch(handle):
        raise UnsupportedError(f"rule {handle!r}: not a handle that {kernel} can show")
