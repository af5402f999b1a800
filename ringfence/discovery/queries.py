"""Readable queries for a set of items, and how well each fits: labels first, lists last."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from pyroaring import BitMap

from ringfence.inventory.snapshot import Snapshot
from ringfence.model import labels
from ringfence.model.query import And, Compare, Operator, Query
from ringfence.model.workload import Item

PREFERRED = ("name", "app.kubernetes.io/name", "app", "k8s-app", "component")
"""The labels by which people tell workloads apart, the first that does is taken."""
OFFERED = 5
"""How many candidates stand beside a role."""
_GENERATED = re.compile(
    r"hash|revision|generation|controller-uid|job-name|completion-index|pod-index"
    r"|statefulset\.kubernetes\.io"
)
_VERSION = re.compile(r"version|chart|commit|build|timestamp|released?-?(date|at)")
_TAIL = re.compile(
    r"-(?:[bcdfghjklmnpqrstvwxz2456789]{5}|(?=[a-z]*[0-9])[a-z0-9]{4,10})$"
    r"|[-.][0-9]+$|(?<![-.][a-z])[0-9]+$"
)
"""What is appended to names: a random part (Kubernetes leaves vowels out), a hash, a number."""
_OCTET = "(?:25[0-5]|2[0-4][0-9]|1?[0-9]{1,2})"
_ADDRESS = re.compile(rf"(?:[a-z][a-z0-9]{{0,3}}-)?{_OCTET}([-.]){_OCTET}(?:\1{_OCTET}){{2}}")
"""By itself or after what says that it is one (`ip-`, `ec2-`); a version stands after a name."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A query, the share of its workloads that are the role's, and of the role's that it has."""

    query: Query
    precision: float
    recall: float

    @property
    def exact(self) -> bool:
        """Whether it selects the role's workloads and no others."""
        return self.precision == self.recall == 1


def candidates(snapshot: Snapshot, members: BitMap) -> list[Candidate]:
    """Queries for some workloads, the best first; the very last resort is a list of addresses.

    The first is exact wherever labels, names or addresses can tell the workloads from all others
    in the snapshot. Labels that are made anew with each version are not used while others do.
    """
    items = [snapshot.items[position] for position in members]
    offered: list[Candidate] = []
    for tier in _tiers(items):
        fitted = [_best(snapshot, members, within) for within in _placed(items, tier)]
        offered += [one for one in fitted if one.recall]
        if any(one.exact for one in offered) and len(offered) > 1:
            break
    offered.sort(key=lambda one: -one.precision * one.recall)
    return offered[:OFFERED]


def telling(item: Item) -> dict[str, str]:
    """The item's labels that tell what it is, not which copy or version of it."""
    return {
        key: values[0]
        for key, values in item.labels.items()
        if key.startswith((labels.LABEL_PREFIX, labels.USER_PREFIX))
        and len(values) == 1
        and not _GENERATED.search(key)
        and not _VERSION.search(key)
    }


def stem(name: str) -> str:
    """A name without what is appended to tell copies apart: of `web-7d4b9c8f6d-x2x4v` `web`.

    A name made of an address, as clouds give (`ip-10-0-3-7`), has nothing else that tells anything.
    """
    if _ADDRESS.fullmatch(name):
        return name
    while (shorter := _TAIL.sub("", name)) and shorter != name:
        name = shorter
    return name


def shared(items: Iterable[Item]) -> dict[str, str]:
    """The labels that all the items have with one same value."""
    each = iter(items)
    common = dict(next(each).labels)
    for item in each:
        common = {key: one for key, one in common.items() if item.labels.get(key) == one}
    return {key: values[0] for key, values in common.items() if len(values) == 1}


def _tiers(items: Sequence[Item]) -> Iterator[list[tuple[Compare, ...]]]:
    """Conditions to be tried beside the place, tier by tier."""
    common = shared(items)
    own = {
        key: value
        for key, value in common.items()
        if key.startswith((labels.LABEL_PREFIX, labels.USER_PREFIX)) and not _GENERATED.search(key)
    }
    preferred = [key for name in PREFERRED if (key := labels.LABEL_PREFIX + name) in own]
    lasting = [key for key in own if not _VERSION.search(key)]
    name = items[0].workload_name or items[0].name
    named = [
        key
        for key in lasting
        if own[key]
        and key not in preferred
        and (name.startswith(own[key]) or own[key].startswith(name))
    ]
    rest = [key for key in lasting if key not in preferred and key not in named]
    told = [_equal(key, own[key]) for key in [*preferred, *named]]
    yield [(one,) for one in told]
    others = [*told, *(_equal(key, own[key]) for key in rest)]
    yield [pair for pair in combinations(others, 2) if pair[0] in told]
    owner = [key for key in (labels.OWNER_NAME, labels.OWNER_KIND) if key in common]
    if labels.OWNER_NAME in owner:
        yield [(_equal(owner[0], common[owner[0]]),)]
        yield [tuple(_equal(key, common[key]) for key in owner)]
    yield [(one,) for one in others if one not in told]
    if len(others) > 1:
        yield [tuple(others)]
    yield [(*told, _equal(key, own[key])) for key in own if key not in lasting]
    yield from _lists(items)


def _lists(items: Sequence[Item]) -> Iterator[list[tuple[Compare, ...]]]:
    kind = Compare(labels.KIND, Operator.EQ, (items[0].kind.value,))
    for key in (labels.OWNER_NAME, labels.NAME):
        values = {value for item in items for value in item.labels.get(key, ())}
        stems = {stem(value) for value in values}
        if len(values) > 1 and len(stems) == 1 and len(common := stems.pop()) > 1:
            tail = "[0-9]+" if _all_numbers(values, common) else "[a-z0-9.-]+"
            pattern = common.replace(".", r"\.") + "[-.]?" + tail
            yield [(kind, Compare(key, Operator.MATCHES, (pattern,)))]
        if values:
            operator = Operator.EQ if len(values) == 1 else Operator.IN
            yield [(kind, Compare(key, operator, tuple(sorted(values))))]
    values = {value for item in items for value in item.labels.get(labels.ADDRESS, ())}
    if values:
        operator = Operator.EQ if len(values) == 1 else Operator.IN
        yield [(kind, Compare(labels.ADDRESS, operator, tuple(sorted(values))))]


def _all_numbers(values: Iterable[str], common: str) -> bool:
    return all(re.fullmatch(r"[-.]?[0-9]+", value.removeprefix(common)) for value in values)


def _equal(key: str, value: str) -> Compare:
    return Compare(key, Operator.EQ, (value,))


def _placed(
    items: Sequence[Item], tier: Iterable[tuple[Compare, ...]]
) -> Iterator[tuple[And, And]]:
    """Each condition within the namespace, and within the Kubernetes cluster too."""
    spaces = {item.namespace for item in items}
    clusters = {item.cluster for item in items}
    space = [_equal(labels.NAMESPACE, one) for one in spaces if one and len(spaces) == 1]
    cluster = [_equal(labels.CLUSTER, one) for one in clusters if one and len(clusters) == 1]
    for condition in tier:
        yield And((*space, *condition)), And((*cluster, *space, *condition))


def _best(snapshot: Snapshot, members: BitMap, within: tuple[And, And]) -> Candidate:
    """The shorter query, but where only the longer one is right."""
    shorter, longer = (_fit(snapshot, members, query) for query in within)
    return longer if longer.precision > shorter.precision else shorter


def _fit(snapshot: Snapshot, members: BitMap, query: Query) -> Candidate:
    selected = snapshot.select(query) & snapshot.workloads
    both = len(selected & members)
    precision = both / len(selected) if selected else 0.0
    return Candidate(query, precision, both / len(members))
