"""How surely each workload belongs to its role: its closeness to it against the next role's."""

import numpy as np
from numpy.typing import NDArray

from ringfence.discovery.behaviour import DIRECT, Behaviour, Mask, Numbers, characteristic, distinct
from ringfence.discovery.queries import telling
from ringfence.inventory.snapshot import NOWHERE, Snapshot
from ringfence.model import labels

_COMMON = 16
"""What so many roles share tells none of them from the others."""


def busy(snapshot: Snapshot, seen: Behaviour) -> Mask:
    """Whether a conversation was seen of each position that says what it is; probes do not."""
    own = _own(snapshot, seen)
    found = np.zeros(_peers(own, len(snapshot.items)), dtype=np.bool_)
    found[own.consumer] = found[own.provider] = True
    return found[: len(snapshot.items)]


def _own(snapshot: Snapshot, seen: Behaviour) -> Behaviour:
    by_nodes = np.isin(seen.consumer, np.array(snapshot.nodes, dtype=np.int64))
    return seen.only(characteristic(snapshot, seen) & ~by_nodes)


def confidences(snapshot: Snapshot, role: Numbers, seen: Behaviour) -> NDArray[np.float64]:
    """For each position of the snapshot own ÷ (own + next), 0 where it has no role.

    0 has who declares nothing and was not seen to do anything, too: its role is a guess.
    `role` has each position's role, NOWHERE for none. Closeness is the cosine between what an item
    does and declares and what its role's members do and declare on the average, each trait
    weighed by how few roles have it.
    """
    item, trait = _traits(snapshot, role, seen)
    confidence = np.zeros(len(role))
    confidence[item] = 0.5
    if not len(item):
        return confidence
    size = np.bincount(role[role != NOWHERE])
    group, of_group, count = _per_role(role[item], trait)
    having = np.bincount(of_group, minlength=int(trait.max()) + 1)
    weight = np.log1p(len(size) / np.maximum(having, 1))
    share = count / size[group]
    item_norm = np.sqrt(np.bincount(item, weights=weight[trait], minlength=len(role)))
    role_norm = np.sqrt(np.bincount(group, weights=weight[of_group] * share**2))
    # Each trait of an item meets each role that has it, and these stand together.
    rare = having[trait] <= _COMMON
    begin = np.searchsorted(of_group, trait[rare])
    times = having[trait[rare]]
    at = np.repeat(begin - np.cumsum(times) + times, times) + np.arange(times.sum())
    pair = np.repeat(item[rare], times) * len(size) + group[at]
    pairs, which = np.unique(pair, return_inverse=True)
    dot = np.bincount(which, weights=weight[of_group[at]] * share[at])
    who, whose = pairs // len(size), pairs % len(size)
    close = dot / (item_norm[who] * role_norm[whose])
    own = np.zeros(len(role))
    mine = role[who] == whose
    own[who[mine]] = close[mine]
    other = np.zeros(len(role))
    np.maximum.at(other, who[~mine], close[~mine])
    known = own + other > 0
    confidence[known] = (own / np.maximum(own + other, 1e-9))[known]
    return confidence


def _per_role(role: Numbers, trait: Numbers) -> tuple[Numbers, Numbers, Numbers]:
    """Role, trait and how many of the role's items have it, sorted by trait."""
    row, which = distinct(trait, role)
    return role[row], trait[row], np.bincount(which)


def _traits(snapshot: Snapshot, role: Numbers, seen: Behaviour) -> tuple[Numbers, Numbers]:
    """Distinct (position, number of a trait) of the items that have a role."""
    count, seen = len(snapshot.items), _own(snapshot, seen)
    whose = np.concatenate([role, np.full(_peers(seen, count) - count, NOWHERE)])

    def named(peer: Numbers) -> Numbers:
        return np.where(whose[peer] != NOWHERE, whose[peer] + len(whose), peer)

    reached = np.where(seen.front != DIRECT, -2 - seen.front, named(seen.provider))
    same = np.zeros_like(seen.port)
    what = seen.protocol << 16 | seen.port
    uses, used_by, serves, runs = same, same + 1, same + 2, same + 3
    columns = [
        (seen.consumer, uses, reached, what),
        (seen.provider, used_by, named(seen.consumer), what),
        (seen.provider, serves, same, what),
        (seen.provider, runs, seen.process, what),
        _declared(snapshot, role),
    ]
    item, kind, peer, how = (np.concatenate(parts) for parts in zip(*columns, strict=True))
    ours = whose[item] != NOWHERE
    trait = distinct(kind[ours], peer[ours], how[ours])[1]
    row = distinct(item[ours], trait)[0]
    return item[ours][row], trait[row]


def _peers(seen: Behaviour, least: int) -> int:
    ends = (seen.consumer, seen.provider)
    return max(least, *(int(end.max(initial=-1)) + 1 for end in ends))


def _declared(snapshot: Snapshot, role: Numbers) -> tuple[Numbers, Numbers, Numbers, Numbers]:
    """The telling labels and owners of items with a role, as traits."""
    numbers: dict[tuple[str, ...], int] = {}
    found = []
    for position in np.nonzero(role != NOWHERE)[0].tolist():
        item = snapshot.items[position]
        owner = (labels.OWNER_NAME, item.workload_name, item.namespace, item.cluster)
        own = [owner] if item.workload_name not in ("", item.name) else []
        told = (*telling(item).items(), *own)
        found += [(position, numbers.setdefault(one, len(numbers))) for one in told]
    pairs = np.array(found, dtype=np.int64).reshape(-1, 2)
    same = np.zeros(len(pairs), dtype=np.int64)
    return pairs[:, 0], same + 4, pairs[:, 1], same
