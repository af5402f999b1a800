"""Cursors of paged lists: the place where a page ended, opaque to those who hand it back."""

import hashlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Self

import msgspec

from ringfence.control.times import END_NS
from ringfence.model.errors import InputError

_FOREIGN = "cursor: not one that an answer gave as `next`"


class Cursor(msgspec.Struct, frozen=True, array_like=True):
    """The last connection of a page by (weight, connection), and the window of the first page.

    `question` is a digest of what was asked: in another list the place would mean nothing.
    """

    question: str
    since_ns: int
    until_ns: int
    weight: int
    connection: int

    def __str__(self) -> str:
        """As it stands in a URL."""
        return urlsafe_b64encode(msgspec.json.encode(self)).decode().rstrip("=")

    @classmethod
    def parse(cls, text: str, question: str) -> Self:
        """Read one that was given for the same question; raises InputError."""
        try:
            padded = text + "=" * (-len(text) % 4)
            cursor = msgspec.json.decode(urlsafe_b64decode(padded), type=cls)
        except (ValueError, msgspec.MsgspecError) as error:
            raise InputError(_FOREIGN) from error
        times = 0 <= cursor.since_ns <= cursor.until_ns < END_NS
        if not times or not 0 <= cursor.weight < 2**63 or not 0 <= cursor.connection < 2**64:
            raise InputError(_FOREIGN)
        if cursor.question != question:
            raise InputError("cursor: given for another filter or sort; ask again without one")
        return cursor


def question(*words: str) -> str:
    """A digest of what was asked."""
    return hashlib.sha256("\0".join(words).encode()).hexdigest()[:16]
