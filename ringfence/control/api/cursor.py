"""Cursors of paged lists: the place where a page ended, opaque to those who hand it back."""

import hashlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Self

import msgspec

from ringfence.model.errors import InputError


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
            raise InputError("cursor: not one that an answer gave as `next`") from error
        if cursor.question != question:
            raise InputError("cursor: given for another filter or sort; ask again without one")
        return cursor


def question(*words: str) -> str:
    """A digest of what was asked."""
    return hashlib.sha256("\0".join(words).encode()).hexdigest()[:16]
