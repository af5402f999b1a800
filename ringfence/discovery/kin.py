"""Workloads that declare nothing, put together by what they do."""

from collections.abc import Sequence

from pyroaring import BitMap

from ringfence.discovery.behaviour import Behaviour
from ringfence.inventory.snapshot import Snapshot


def kin(
    snapshot: Snapshot,  # noqa: ARG001
    undeclared: BitMap,
    known: Sequence[BitMap],  # noqa: ARG001
    seen: Behaviour,  # noqa: ARG001
) -> list[BitMap]:
    """Each stands for itself."""
    return [BitMap([position]) for position in undeclared]
