"""Roles: which workloads are one thing, under a name and a readable query.

What the inventory declares comes first: one owner's pods are one role, through all its versions,
and so are pods without an owner that carry the same telling labels. What declares nothing (hosts,
bare pods) is put together by what it was seen to do.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from ringfence.discovery.behaviour import Behaviour
from ringfence.discovery.closeness import busy, confidences
from ringfence.discovery.kin import kin
from ringfence.discovery.queries import (
    PREFERRED,
    Candidate,
    candidates,
    shared,
    stem,
    telling,
)
from ringfence.inventory.snapshot import NOWHERE, Snapshot
from ringfence.model import labels
from ringfence.model.policy import Cluster
from ringfence.model.protocol import WITH_PORTS
from ringfence.model.workload import Item, ItemKind

_JOB_RUN = re.compile(r"-[0-9]{6,}$")
_TEMPLATE_HASH = re.compile(r"-[bcdfghjklmnpqrstvwxz0-9]{6,10}$")
_LONGEST_TOLD = 253
"""Letters, as names in Kubernetes have at most; those of an id are several such."""
_HASH_LABEL = labels.LABEL_PREFIX + "pod-template-hash"

Unit = tuple[Any, ...]
"""What makes workloads one by declaration."""


@dataclass(frozen=True)
class Role:
    """Workloads that are one thing. `members` are positions in the snapshot."""

    cluster: Cluster
    members: BitMap
    candidates: tuple[Candidate, ...]
    """Queries that were weighed, the one of `cluster` first unless that was approved before."""
    probe_ports: tuple[tuple[int, int], ...]
    """The (protocol, port) pairs that the kubelet dials at the members, sorted."""
    approved: bool = False
    place: str = ""
    """The namespace that all members are in; empty if it is none, or several."""


class Roles:
    """The roles of every workload among some positions of a snapshot, nodes aside."""

    def __init__(
        self, snapshot: Snapshot, found: Sequence[Role], seen: Behaviour, *, declared: bool
    ) -> None:
        self.declared = declared
        """Whether all of them are declared or approved, and none is told by behaviour."""
        self._roles = sorted(found, key=lambda role: role.cluster.name)
        self._of = np.full(len(snapshot.items), NOWHERE, dtype=np.int64)
        for number, role in enumerate(self._roles):
            self._of[np.array(role.members, dtype=np.int64)] = number
        self._confidence = confidences(snapshot, self._of, seen)
        self._busy = busy(snapshot, seen)

    def __iter__(self) -> Iterator[Role]:
        """Every role, by name."""
        return iter(self._roles)

    def __len__(self) -> int:
        """How many roles there are."""
        return len(self._roles)

    def __getitem__(self, number: int) -> Role:
        """A role by its number in `numbers`."""
        return self._roles[number]

    @property
    def numbers(self) -> NDArray[np.int64]:
        """For each position of the snapshot the number of its role, NOWHERE for none."""
        return self._of

    def confidence(self, position: int) -> float:
        """How surely a member belongs to its role: 0.5 to another as well, 0 nobody can tell."""
        return float(self._confidence[position])

    def silent(self, position: int) -> bool:
        """Whether no conversation of a member was seen that says what it is."""
        return not self._busy[position]


def roles(
    snapshot: Snapshot,
    members: BitMap,
    seen: Behaviour,
    approved: Sequence[Cluster] = (),
    *,
    judged: bool = True,
) -> Roles:
    """The roles of some positions of a snapshot; the same for equal input.

    The snapshot should hold every workload of the time that `seen` tells of
    (`inventory.timeline.Timeline.between`), so that queries are true of all of them. Approved
    clusters keep their names, queries and whoever these select; the rest is put together anew.
    Unless `seen` was judged, and holds nothing that is noise, those of the undeclared are no more
    than replicas.
    """
    free = BitMap(at for at in members if _is_one(snapshot.items[at]))
    kept: list[Role] = []
    for cluster in approved:
        selected = snapshot.select(cluster.query) & free
        free -= selected
        offered = candidates(snapshot, selected) if selected else []
        kept.append(_role(snapshot, cluster, selected, offered, approved=True))
    declared: dict[Unit, BitMap] = {}
    for position in free:
        unit = _unit(snapshot.items[position])
        if unit is not None:
            declared.setdefault(unit, BitMap()).add(position)
    known = [*(role.members for role in kept), *declared.values()]
    undeclared = free - BitMap.union(BitMap(), *declared.values())
    groups = [*declared.values(), *kin(snapshot, undeclared, known, seen, judged=judged)]
    names = _names(snapshot, groups, seen, {cluster.name for cluster in approved})
    for name, group in zip(names, groups, strict=True):
        offered = candidates(snapshot, group)
        kept.append(_role(snapshot, Cluster(name, offered[0].query), group, offered))
    return Roles(snapshot, kept, seen, declared=not undeclared)


def _is_one(item: Item) -> bool:
    return item.is_workload and item.kind is not ItemKind.NODE and not item.host_network


def _role(
    snapshot: Snapshot,
    cluster: Cluster,
    members: BitMap,
    offered: Sequence[Candidate],
    *,
    approved: bool = False,
) -> Role:
    probes = {port for at in members for port in snapshot.items[at].probe_ports}
    places = {snapshot.items[at].namespace for at in members}
    place = places.pop() if len(places) == 1 else ""
    return Role(cluster, members, tuple(offered), tuple(sorted(probes)), approved, place)


def _unit(item: Item) -> Unit | None:
    """What the item declares that it is one of; None where it declares nothing."""
    kind, owner = _owner(item)
    if owner:
        return item.cluster, item.namespace, kind, owner
    told = telling(item)
    return (item.cluster, item.namespace, *sorted(told.items())) if told else None


def _owner(item: Item) -> tuple[str, str]:
    """Kind and name of the topmost owner without what is new in each version or run of it."""
    kind = (*item.labels.get(labels.OWNER_KIND, ()), "")[0]
    if item.workload_name != item.name:
        name = item.workload_name
    else:
        name = (*item.labels.get(labels.OWNER_NAME, ()), "")[0]
    if not name:  # no owner is told, but a Deployment's pod says whose it is
        version = (*item.labels.get(_HASH_LABEL, ()), "")[0]
        base, found, _ = item.name.partition(f"-{version}-")
        return ("", base) if version and found else ("", "")
    if kind == "Job":
        name = _JOB_RUN.sub("", name)
    elif kind == "ReplicaSet":
        name = _TEMPLATE_HASH.sub("", name)
    return kind, name


def _names(
    snapshot: Snapshot, groups: Sequence[BitMap], seen: Behaviour, taken: set[str]
) -> list[str]:
    """A name for each group, made longer where two would share it."""
    firsts = [snapshot.items[group.min()] for group in groups]
    served = _served(seen)
    plain = [_name(snapshot, group, served) for group in groups]
    spaced = [_joined(one.namespace, name) for one, name in zip(firsts, plain, strict=True)]
    full = [_joined(one.cluster, name) for one, name in zip(firsts, spaced, strict=True)]
    chosen = list(plain)
    for longer in (spaced, full):
        count = Counter(chosen)
        chosen = [
            long if count[name] > 1 or name in taken else name
            for name, long in zip(chosen, longer, strict=True)
        ]
    used, given = set(taken), []
    for name in chosen:
        number = 1
        while (unique := f"{name}-{number}" if number > 1 else name) in used:
            number += 1
        used.add(unique)
        given.append(unique)
    return given


def _joined(*parts: str) -> str:
    return "-".join(part for part in parts if part)


def _name(snapshot: Snapshot, group: BitMap, served: Mapping[int, tuple[str, int]]) -> str:
    """By the owner, a label, what the items' own names share, or what they serve: `mongod-27017`,
    `hosts-8080` where no process is known.
    """
    items = [snapshot.items[position] for position in group]
    owner = _owner(items[0])[1]
    if owner:
        return owner
    common = shared(items)
    for name in PREFERRED:
        if _is_plain(value := common.get(labels.LABEL_PREFIX + name, "")):
            return value
    if len(items) == 1 and items[0].name:
        return items[0].name
    stems = {stem(item.name) for item in items}
    if len(stems) == 1 and len(only := stems.pop()) > 1:
        return only
    kind = f"{items[0].kind}s"
    process, port = next((served[at] for at in group if at in served), ("", 0))
    return f"{process if _is_plain(process) else kind}-{port}" if port else kind


def _is_plain(told: str) -> bool:
    """Whether it can be part of a name; what labels and processes say may be anything."""
    return told.isprintable() and 0 < len(told) <= _LONGEST_TOLD


def _served(seen: Behaviour) -> dict[int, tuple[str, int]]:
    """Who serves what most of the time: the process, empty if it is not known, and the port."""
    with_ports = np.nonzero(np.isin(seen.protocol, list(WITH_PORTS)))[0]
    order = with_ports[np.argsort(-seen.slots[with_ports], kind="stable")]
    providers, first = np.unique(seen.provider[order], return_index=True)
    told = {}
    for provider, row in zip(providers.tolist(), order[first].tolist(), strict=True):
        told[provider] = seen.processes[seen.process[row]], int(seen.port[row])
    return told
