"""What policies mean at a time besides what exists then: which have expired, and what DNS told."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from ringfence.inventory.resolutions import Names, Resolutions
from ringfence.model.ids import Version
from ringfence.model.policy import FqdnEnd, Workspace


@dataclass(frozen=True)
class Moment:
    """A time, epoch ns, and the addresses that names had then."""

    at_ns: int = 0
    names: Names = field(default_factory=dict)


UNTOLD = Moment()
"""Before anything was told or could expire."""


def moment(resolutions: Resolutions, at_ns: int) -> Moment:
    """What policies mean at a time, epoch ns."""
    return Moment(at_ns, resolutions.as_of(at_ns))


def patterns(versions: Iterable[tuple[Workspace, Version]]) -> Iterator[str]:
    """The names of DNS in their policies."""
    for workspace, _ in versions:
        for policy in workspace.policies:
            for end in (policy.consumer, policy.provider):
                if isinstance(end, FqdnEnd):
                    yield end.name


def expiries(versions: Iterable[tuple[Workspace, Version]]) -> Iterator[int]:
    """When their policies expire, epoch ns."""
    for workspace, _ in versions:
        for policy in workspace.policies:
            if policy.expires_ns is not None:
                yield policy.expires_ns
