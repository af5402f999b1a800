"""Fewer policies that say the same: what differs at one end only is joined.

1. each port has a policy of its own, and so has what `discovery.ports` makes a range of;
2. the ports between two ends stand in one;
3. consumers of the same ports of one provider stand in one, by a filter that is true of them alone;
4. providers on the same ports for one consumer likewise, and several ends that are all of a scope
   or of a namespace are named as that;
5. as 4, and filters of any length are taken.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from pyroaring import BitMap

from ringfence.discovery.drafts import Draft, united_why
from ringfence.discovery.ends import NamedEnd, joined, namespace_query
from ringfence.discovery.naming import joined_name, place_of
from ringfence.discovery.roles import Role
from ringfence.inventory.snapshot import Snapshot
from ringfence.model.policy import ClusterEnd, End, FilterEnd, ScopeEnd
from ringfence.model.protocol import PortRange
from ringfence.model.query import Or, Query
from ringfence.model.scope import ScopeTree
from ringfence.policy.ends import members

LEVELS = (1, 2, 3, 4, 5)
_JOIN_CONSUMERS, _JOIN_PROVIDERS = 3, 4
_NAME_THE_WHOLE = 4
_MOST_PARTS = 4
"""A filter of more alternatives is no longer read at a glance."""


class Whole:
    """What has a name of its own, if some queries together are true of all of it and no more."""

    def __init__(self, snapshot: Snapshot, tree: ScopeTree) -> None:
        self._snapshot, self._tree = snapshot, tree

    def of(self, queries: Iterable[Query]) -> NamedEnd | None:
        """The scope or namespace, None where they are none."""
        snapshot = self._snapshot
        meant = BitMap.union(BitMap(), *map(snapshot.chosen, queries))
        if not meant:
            return None
        for scope in self._tree.preorder():
            if meant == members(self._tree, snapshot, scope.name):
                return NamedEnd(scope.name, ScopeEnd(scope.name))
        item = snapshot.items[meant.min()]
        if not item.namespace:
            return None
        query = namespace_query(item.cluster, item.namespace)
        if meant != snapshot.chosen(query):
            return None
        return NamedEnd(item.namespace, FilterEnd(query), item.namespace)


def compress(
    drafts: Sequence[Draft],
    roles: Iterable[Role],
    whole: Whole,
    level: int,
    *,
    long: bool = False,
) -> list[Draft]:
    """The drafts, joined as far as the level goes; what they allow together stays the same.

    With `long` filters of any length are taken, whatever the level.
    """
    joining = _Joining(
        {role.cluster.name: role.cluster.query for role in roles},
        whole if level >= _NAME_THE_WHOLE else None,
        len(drafts) if long or level == LEVELS[-1] else _MOST_PARTS,
    )
    found = list(drafts)
    if level >= _JOIN_CONSUMERS:
        found = _join(found, joining, "consumer")
    if level >= _JOIN_PROVIDERS:
        found = _join(found, joining, "provider")
    return found


def by_port(
    drafts: Iterable[Draft], ranges_of: Callable[[Draft], Sequence[PortRange]]
) -> Iterator[Draft]:
    """The drafts parted by what their ports are as ranges: most are of one port."""
    for one in drafts:
        said = ranges_of(one)
        if len(said) < 2:  # noqa: PLR2004 - also every port
            yield one
            continue
        for some in said:
            alone = ("each port by itself",) if some.first == some.last else ()
            ports = frozenset(port for port in one.ports if port in some)
            yield replace(one, ports=ports, why=(*one.why, *alone))


@dataclass(frozen=True, slots=True)
class _Joining:
    """How ends are joined: what clusters mean, what is whole, and the parts of a filter at most."""

    queries: dict[str, Query]
    whole: Whole | None
    most: int


def _join(drafts: Sequence[Draft], joining: _Joining, side: str) -> list[Draft]:
    other = "provider" if side == "consumer" else "consumer"
    alike: dict[tuple[object, ...], list[Draft]] = {}
    for place, one in enumerate(drafts):
        alone = _query(getattr(one, side).end, joining.queries) is None or one.review
        key = getattr(one, other), one.protocol, one.ports, one.review, place if alone else -1
        alike.setdefault(key, []).append(one)
    return [made for group in alike.values() for made in _joined(group, joining, side)]


def _joined(group: list[Draft], joining: _Joining, side: str) -> list[Draft]:
    if len(group) == 1:
        return group
    said = [_query(getattr(one, side).end, joining.queries) for one in group]
    queries = [one for one in said if one is not None]
    query = joined(queries)
    end = joining.whole.of(queries) if joining.whole else None
    if end is None:
        if isinstance(query, Or) and len(query.queries) > joining.most:
            return group
        ends = [getattr(one, side) for one in group]
        end = NamedEnd(joined_name(ends), FilterEnd(query), place_of(ends))
    edges = frozenset(edge for one in group for edge in one.edges)
    why = f"{len(group)} {side}s that need the same"
    first = replace(group[0], edges=edges, why=(*united_why(group), why))
    return [replace(first, consumer=end) if side == "consumer" else replace(first, provider=end)]


def _query(end: End, queries: dict[str, Query]) -> Query | None:
    match end:
        case ClusterEnd(name):
            return queries[name]
        case FilterEnd(query):
            return query
        case _:
            return None
