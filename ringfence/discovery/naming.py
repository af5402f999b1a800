"""What policies are called: after their two ends, and after whatever else tells them apart."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import chain, count

from ringfence.discovery.drafts import Draft
from ringfence.discovery.ends import NamedEnd
from ringfence.model.ids import PolicyId
from ringfence.model.policy import ServiceEnd
from ringfence.model.protocol import format_protocol

LONGEST_NAME = 40
"""A longer name of several ends together is no longer read at a glance."""

SEVERAL = "several"
"""Stands for the names of ends that would make a longer one."""


def joined_name(ends: Iterable[NamedEnd]) -> str:
    """One name for several ends; a namespace that all of them are in is said once.

    What is called the same in each namespace is called that.
    """
    some = list(ends)
    place = place_of(some)
    names = {one.name for one in some}
    short = {one.name.removeprefix(f"{one.place}-") if one.place else one.name for one in some}
    if len(short) == 1 and not place:
        return short.pop()
    told = "-and-".join(sorted(short if place else names))
    if place and short != names:
        told = f"{place}-{told}"
    if len(told) <= LONGEST_NAME:
        return told
    return f"{SEVERAL}-of-{place}" if place else SEVERAL


def place_of(ends: Iterable[NamedEnd]) -> str:
    """The place of them all, empty where there is no one such."""
    places = {one.place for one in ends}
    return places.pop() if len(places) == 1 else ""


def policy_ids(drafts: Sequence[Draft], taken: Collection[PolicyId]) -> list[PolicyId]:
    """An id for each that is not taken; a number only where nothing tells two of them apart."""
    chosen = [one.name or _between(one) for one in drafts]
    for differs in _DIFFERENCES:
        shared = defaultdict(list)
        for at, said in enumerate(chosen):
            shared[said].append(at)
        for said, group in shared.items():
            more = [differs(drafts[at]) for at in group]
            if len(set(more)) > 1:
                for at, one in zip(group, more, strict=True):
                    chosen[at] = f"{said}-{one}" if one else said
    used, found = {str(one) for one in taken}, list[PolicyId]()
    numbered = {said: _numbered(said) for said in chosen}
    for said in chosen:
        found.append(PolicyId(next(one for one in numbered[said] if one not in used)))
        used.add(found[-1])
    return found


def _between(draft: Draft) -> str:
    """After both ends. If the consumer's name tells a namespace, the provider is in that one,
    unless its own says otherwise.
    """
    consumer, provider = draft.consumer, draft.provider
    told = provider.name
    if consumer.place and _tells(consumer.name, consumer.place):
        if provider.place == consumer.place:
            told = told.removeprefix(f"{provider.place}-")
        elif provider.place and not _tells(told, provider.place):
            told = f"{provider.place}-{told}"
    return f"{consumer.name}-to-{told}"


def _tells(name: str, place: str) -> bool:
    return f"-{place}-" in f"-{name}-"


def _kind(draft: Draft) -> str:
    return "service" if isinstance(draft.provider.end, ServiceEnd) else "direct"


def _ports(draft: Draft) -> str:
    ends = sorted({min(draft.ports), max(draft.ports)}) if draft.ports else ["any"]
    return "-".join(map(str, ends))


_DIFFERENCES: tuple[Callable[[Draft], str], ...] = (
    lambda draft: draft.provider.place and f"in-{draft.provider.place}",
    lambda draft: draft.consumer.place and f"from-{draft.consumer.place}",
    _kind,
    lambda draft: format_protocol(draft.protocol).lower(),
    _ports,
)
"""What is added to a name that several share, where they differ in it."""


def _numbered(said: str) -> Iterator[str]:
    """The name, and then with numbers from 2."""
    return chain((said,), (f"{said}-{number}" for number in count(2)))
