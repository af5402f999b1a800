"""Counts and lists as people read them."""

from collections.abc import Sequence

_NAMED = 10


def counted(count: int, noun: str, plural: str = "") -> str:
    """`1 policy`, `2 policies`; `plural` is the noun with an s unless given."""
    return f"{count} {noun if count == 1 else plural or noun + 's'}"


def named(names: Sequence[str], separator: str = ", ") -> str:
    """The first ten names, and how many more there are."""
    more = len(names) - _NAMED
    return separator.join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
