"""The label keys that there are, so that a mistyped one in a filter is an error, not silence."""

from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches

from ringfence.model import labels
from ringfence.model.errors import InputError
from ringfence.model.query import Query, keys, parse

FIXED = (
    labels.ADDRESS,
    labels.KIND,
    labels.NAME,
    labels.CLUSTER,
    labels.NAMESPACE,
    labels.NODE,
    labels.SERVICE_ACCOUNT,
    labels.OWNER_KIND,
    labels.OWNER_NAME,
)
OPEN = (
    labels.LABEL_PREFIX,
    labels.NAMESPACE_LABEL_PREFIX,
    labels.ANNOTATION_PREFIX,
    labels.USER_PREFIX,
)
"""What may be followed by any name."""
OF_ENDS = (labels.ADDRESS_TYPE,)
"""What the ends of flows have, and items do not."""


def parse_filter(text: str, ends: Iterable[str] = (), attributes: Iterable[str] = ()) -> Query:
    """Read a filter whose keys must be labels, those of one of `ends` (END.KEY), or `attributes`.

    Raises InputError for any other key, with the nearest one that there is.
    """
    query = parse(text)
    prefixes = [f"{end}." for end in ends]
    others = [*attributes, *of_ends(["", *prefixes])] if prefixes else [*attributes]
    check_keys("filter", keys(query), ["", *prefixes], others)
    return query


def of_ends(prefixes: Iterable[str]) -> list[str]:
    """The keys of OF_ENDS behind each prefix, to be among the `others` of `check_keys`."""
    return [prefix + key for prefix in prefixes for key in OF_ENDS]


def check_keys(
    where: str, wanted: Iterable[str], prefixes: Sequence[str], others: Sequence[str]
) -> None:
    """Each key must be a label behind one of the prefixes, or one of `others`.

    Raises InputError, which begins with `where`, with the nearest key that there is.
    """
    for key in wanted:
        if key not in others and not any(_is_label(key, prefix) for prefix in prefixes):
            near = get_close_matches(key, [*others, *_candidates(key, prefixes)], 1)
            mend = f"did you mean {near[0]}?" if near else f"known are {_known(prefixes, others)}"
            raise InputError(f"{where}: there is no key {key!r}; {mend}")


def _is_label(key: str, prefix: str) -> bool:
    bare = key.removeprefix(prefix)
    fits = any(bare.startswith(start) and bare != start for start in OPEN)
    return key.startswith(prefix) and (bare in FIXED or fits)


def _candidates(key: str, prefixes: Iterable[str]) -> Iterator[str]:
    """The keys that may have been meant: a name behind an open start is taken from `key`."""
    parts = key.split(".")
    for prefix in prefixes:
        yield from (prefix + fixed for fixed in FIXED)
        for start in OPEN:
            name = parts[(prefix + start).count(".") :]
            if name:
                yield prefix + start + ".".join(name)


def _known(prefixes: Iterable[str], others: Iterable[str]) -> str:
    ends = [f"{prefix}KEY" for prefix in prefixes if prefix]
    return ", ".join((*FIXED, *(f"{start}NAME" for start in OPEN), *ends, *others))
