"""Fewer policies that say the same: what differs at one end only is joined.

1. each port has a policy of its own;
2. the ports between two ends stand in one;
3. consumers of the same ports of one provider stand in one, by a filter that is true of them alone;
4. providers on the same ports for one consumer likewise;
5. as 4, and filters of any length are taken.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from ringfence.discovery.drafts import Draft, united_why
from ringfence.discovery.ends import NamedEnd, joined, joined_name
from ringfence.discovery.roles import Role
from ringfence.model.policy import ClusterEnd, End, FilterEnd
from ringfence.model.query import Or, Query

LEVELS = (1, 2, 3, 4, 5)
_JOIN_CONSUMERS, _JOIN_PROVIDERS = 3, 4
_MOST_PARTS = 4
"""A filter of more alternatives is no longer read at a glance."""


def compress(drafts: Sequence[Draft], roles: Iterable[Role], level: int) -> list[Draft]:
    """The drafts, joined as far as the level goes; what they allow together stays the same."""
    if level == 1:
        return [
            replace(one, ports=frozenset({port}), why=(*one.why, "each port by itself"))
            for one in drafts
            for port in sorted(one.ports)
        ] + [one for one in drafts if not one.ports]
    queries = {role.cluster.name: role.cluster.query for role in roles}
    found = list(drafts)
    most = len(found) if level == LEVELS[-1] else _MOST_PARTS
    if level >= _JOIN_CONSUMERS:
        found = _join(found, queries, "consumer", most)
    if level >= _JOIN_PROVIDERS:
        found = _join(found, queries, "provider", most)
    return found


def _join(drafts: Sequence[Draft], queries: dict[str, Query], side: str, most: int) -> list[Draft]:
    other = "provider" if side == "consumer" else "consumer"
    alike: dict[tuple[object, ...], list[Draft]] = {}
    for place, one in enumerate(drafts):
        alone = _query(getattr(one, side).end, queries) is None or one.review
        key = getattr(one, other), one.protocol, one.ports, one.review, place if alone else -1
        alike.setdefault(key, []).append(one)
    return [made for group in alike.values() for made in _joined(group, queries, side, most)]


def _joined(group: list[Draft], queries: dict[str, Query], side: str, most: int) -> list[Draft]:
    if len(group) == 1:
        return group
    said = [_query(getattr(one, side).end, queries) for one in group]
    query = joined([one for one in said if one is not None])
    if isinstance(query, Or) and len(query.queries) > most:
        return group
    end = NamedEnd(joined_name(getattr(one, side).name for one in group), FilterEnd(query))
    edges = frozenset(edge for one in group for edge in one.edges)
    why = f"{len(group)} {side}s that need the same are joined"
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
