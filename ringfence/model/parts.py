"""Long lists in parts, so that whoever works on one can let others have a turn in between."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

_T = TypeVar("_T")
PART = 256
"""What is done with so many takes some milliseconds."""


def parts(whole: Iterable[_T]) -> Iterator[list[_T]]:
    """At most PART at a time, none empty."""
    left = iter(whole)
    while part := list(islice(left, PART)):
        yield part
