"""What policies mean at a time besides what exists then.

Which have expired, what DNS told, and what address sets hold.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field

from ringfence.inventory.contents import Contents, Sets
from ringfence.inventory.resolutions import Names, Resolutions
from ringfence.model.errors import InputError
from ringfence.model.ids import AddressSetName, Version
from ringfence.model.policy import AddressSetEnd, End, FqdnEnd, Workspace
from ringfence.model.ranges import AddressRange


@dataclass(frozen=True)
class Moment:
    """A time, epoch ns, the addresses that names had then, and what address sets held."""

    at_ns: int = 0
    names: Names = field(default_factory=dict)
    sets: Sets = field(default_factory=dict)

    def held_by(self, name: AddressSetName) -> tuple[AddressRange, ...]:
        """What an address set holds; raises InputError where there is none of the name."""
        if name not in self.sets:
            raise InputError(f"there is no address set {name!r}")
        return self.sets[name]


UNTOLD = Moment()
"""Before anything was told or could expire."""


def moment(
    resolutions: Resolutions,
    contents: Contents,
    at_ns: int,
    patterns: Collection[str] | None = None,
) -> Moment:
    """What policies mean at a time, epoch ns, if they name no others of DNS than the patterns."""
    return Moment(at_ns, resolutions.as_of(at_ns, patterns), contents.as_of(at_ns))


def patterns(versions: Iterable[tuple[Workspace, Version]]) -> Iterator[str]:
    """The names of DNS in their policies."""
    return (end.name for end in _ends(versions) if isinstance(end, FqdnEnd))


def sets_named(versions: Iterable[tuple[Workspace, Version]]) -> frozenset[AddressSetName]:
    """The address sets in their policies."""
    return frozenset(end.name for end in _ends(versions) if isinstance(end, AddressSetEnd))


def _ends(versions: Iterable[tuple[Workspace, Version]]) -> Iterator[End]:
    for workspace, _ in versions:
        for policy in workspace.policies:
            yield policy.consumer
            yield policy.provider


def expiries(versions: Iterable[tuple[Workspace, Version]]) -> Iterator[int]:
    """When their policies expire, epoch ns."""
    for workspace, _ in versions:
        for policy in workspace.policies:
            if policy.expires_ns is not None:
                yield policy.expires_ns
