"""Scopes: a tree of queries; a workload belongs to every scope whose full query it matches.

Named filters hang in the tree: each belongs to a scope, whose people look after it.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from ringfence.model.errors import InputError
from ringfence.model.ids import FilterName, ScopeName
from ringfence.model.protocol import PortRange
from ringfence.model.query import And, Query


@dataclass(frozen=True, slots=True)
class Scope:
    """A node of the tree. Siblings stand by `order`, then by name."""

    name: ScopeName
    parent: ScopeName | None
    query: Query
    order: int = 0


@dataclass(frozen=True, slots=True)
class PublicPorts:
    """A protocol, and ports of it, that somebody provides to everybody; no ports means all."""

    protocol: int
    ports: tuple[PortRange, ...] = ()


@dataclass(frozen=True, slots=True)
class InventoryFilter:
    """A query that policies of any workspace name.

    `restricted` leaves of it only members of the scope. `public` is what its members provide as a
    public service of the scope: it tells whoever asks for a policy, and decides nothing.
    """

    name: FilterName
    scope: ScopeName
    query: Query
    restricted: bool = False
    public: tuple[PublicPorts, ...] = ()


MOST_SCOPE_LEVELS = 100


class ScopeTree:
    """Every scope of a tenant, checked to be one tree; raises InputError where it is not."""

    def __init__(self, scopes: Iterable[Scope], filters: Iterable[InventoryFilter] = ()) -> None:
        self._scopes: dict[ScopeName, Scope] = {}
        for scope in scopes:
            if scope.name in self._scopes:
                raise InputError(f"scope {scope.name!r} is given twice")
            self._scopes[scope.name] = scope
        self._children: dict[ScopeName | None, list[Scope]] = {}
        for scope in self._scopes.values():
            if scope.parent is not None and scope.parent not in self._scopes:
                raise InputError(f"scope {scope.name!r} has parent {scope.parent!r}, which is none")
            self._children.setdefault(scope.parent, []).append(scope)
        roots = self._children.get(None, [])
        if self._scopes and len(roots) != 1:
            names = ", ".join(sorted(root.name for root in roots)) or "none"
            raise InputError(f"a scope tree has exactly one scope without a parent; here: {names}")
        self._preorder = tuple(self._walk(roots[0], 1)) if roots else ()
        if len(self._preorder) != len(self._scopes):
            lost = sorted(set(self._scopes) - {scope.name for scope in self._preorder})
            raise InputError(f"scopes {', '.join(lost)} are their own ancestors")
        self._full: dict[ScopeName, Query] = {}
        self.filters: dict[FilterName, InventoryFilter] = {}
        for one in filters:
            if one.name in self.filters:
                raise InputError(f"filter {one.name!r} is given twice")
            if one.scope not in self._scopes:
                raise InputError(
                    f"filter {one.name!r} belongs to scope {one.scope!r}, which is none"
                )
            self.filters[one.name] = one

    def _walk(self, scope: Scope, level: int) -> list[Scope]:
        if level > MOST_SCOPE_LEVELS:
            raise InputError(f"scope {scope.name!r} has over {MOST_SCOPE_LEVELS - 1} ancestors")
        walked = [scope]
        children = self._children.get(scope.name, [])
        for child in sorted(children, key=lambda child: (child.order, child.name)):
            walked += self._walk(child, level + 1)
        return walked

    def __eq__(self, other: object) -> bool:
        """Whether it has the same scopes and filters."""
        if not isinstance(other, ScopeTree):
            return NotImplemented
        return (self._preorder, self.filters) == (other._preorder, other.filters)

    def __hash__(self) -> int:
        """Of the names in it."""
        return hash(frozenset(self._scopes))

    def __getitem__(self, name: ScopeName) -> Scope:
        """The scope of that name; raises InputError."""
        if name not in self._scopes:
            raise InputError(f"there is no scope {name!r}")
        return self._scopes[name]

    def __contains__(self, name: ScopeName) -> bool:
        """Whether there is a scope of that name."""
        return name in self._scopes

    def preorder(self) -> tuple[Scope, ...]:
        """All scopes from the highest priority to the lowest: parents before their children."""
        return self._preorder

    def path(self, name: ScopeName) -> tuple[Scope, ...]:
        """The scope and its ancestors, root first."""
        scope = self[name]
        above = self.path(scope.parent) if scope.parent is not None else ()
        return (*above, scope)

    def full_query(self, name: ScopeName) -> Query:
        """The scope's own query and all its ancestors'."""
        if name not in self._full:
            queries = tuple(scope.query for scope in self.path(name))
            self._full[name] = queries[0] if len(queries) == 1 else And(queries)
        return self._full[name]

    def filter_query(self, name: FilterName) -> Query:
        """What a named filter means; raises InputError where there is none of the name."""
        if name not in self.filters:
            raise InputError(f"there is no filter {name!r}")
        one = self.filters[name]
        return And((self.full_query(one.scope), one.query)) if one.restricted else one.query
