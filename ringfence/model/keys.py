"""The label keys that there are, so that a mistyped one in a filter is an error, not silence."""

from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches

from ringfence.model import labels
from ringfence.model.errors import InputError
from ringfence.model.flow import Method
from ringfence.model.query import Compare, Operator, Query, comparisons, keys, parse
from ringfence.model.workload import ItemKind

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
    labels.CVE,
    labels.CVSS,
    labels.KEV,
    labels.PACKAGE_NAME,
    labels.PACKAGE_VERSION,
)
OPEN = (
    labels.LABEL_PREFIX,
    labels.NAMESPACE_LABEL_PREFIX,
    labels.ANNOTATION_PREFIX,
    labels.USER_PREFIX,
)
"""What may be followed by any name."""
_WORDS = {labels.KIND: ItemKind, "method": Method}
"""The keys with few values, which are these."""
OF_ENDS = (labels.ADDRESS_TYPE,)
"""What the ends of flows have, and items do not."""


def parse_filter(text: str, ends: Iterable[str] = (), attributes: Iterable[str] = ()) -> Query:
    """Read a filter whose keys must be labels, those of one of `ends` (END.KEY), or `attributes`.

    Raises InputError for any other key, with the nearest one that there is, and for a value that
    the key never has.
    """
    query = parse(text)
    prefixes = [f"{end}." for end in ends]
    others = [*attributes, *of_ends(["", *prefixes])] if prefixes else [*attributes]
    check_keys("filter", keys(query), ["", *prefixes], others)
    for compare in comparisons(query):
        _check_values(compare, prefixes)
    return query


def _check_values(compare: Compare, prefixes: Iterable[str]) -> None:
    if compare.operator not in (Operator.EQ, Operator.NE, Operator.IN):
        return
    key = _split(compare.key, prefixes)[1]
    unknown = set(compare.values) - set(_WORDS[key]) if key in _WORDS else None
    if unknown:
        raise InputError(f"{min(unknown)!r} is no {key}: write {', '.join(_WORDS[key])}")


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
            near = _longer(key, prefixes) or get_close_matches(
                key, [*others, *_candidates(key, prefixes)], 1
            )
            mend = f"did you mean {near[0]}?" if near else f"known are {_known(prefixes, others)}"
            raise InputError(f"{where}: there is no key {key!r}; {mend}")


def _split(key: str, prefixes: Iterable[str]) -> tuple[str, str]:
    """The prefix of a key, empty where it has none of these, and what follows."""
    prefix = next((one for one in prefixes if one and key.startswith(one)), "")
    return prefix, key.removeprefix(prefix)


def _longer(key: str, prefixes: Iterable[str]) -> list[str]:
    """The keys of which somebody wrote the last part alone."""
    prefix, bare = _split(key, prefixes)
    if prefix and bare == "workload":  # flows are added up by it, but filtered by the owner
        return [prefix + labels.OWNER_NAME]
    known = [one + fixed for one in prefixes for fixed in FIXED]
    return [one for one in known if one.startswith(prefix) and one.endswith(f".{bare}")]


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
    labelled = [*FIXED, *(f"{start}NAME" for start in OPEN)]
    if "" in prefixes:
        return ", ".join((*labelled, *ends, *others))
    return f"{', '.join((*ends, *others))}; KEY is one of {', '.join(labelled)}"
