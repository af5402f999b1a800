"""Keys that are equal, and keys that only share a hash."""

import numpy as np
import pytest

from ringfence.flows import keys, orientations
from ringfence.flows.keys import Bytes, group, join, spots
from ringfence.flows.orientations import KNOWN, UNKNOWN, Orientations

RANDOM = np.random.default_rng(1)
MANY = join(RANDOM.integers(0, 2, (500, 5)).astype(np.uint8), RANDOM.integers(0, 3, 500))


def collide(some: Bytes) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    return np.zeros(len(some), dtype=np.uint64)


@pytest.mark.parametrize("colliding", [False, True])
@pytest.mark.parametrize("some", [MANY, MANY[:1], MANY[:0]])
def test_groups_are_of_equal_keys_whatever_their_hashes(
    monkeypatch: pytest.MonkeyPatch, some: Bytes, colliding: bool
) -> None:
    if colliding:
        monkeypatch.setattr(keys, "hashed", collide)
    groups = group(some)
    assert len(groups.one) == len(np.unique(some))
    assert (some[groups.one][groups.which] == some).all()
    assert groups.sizes.tolist() == np.bincount(groups.which, minlength=0).tolist()
    assert sorted(groups.order.tolist()) == list(range(len(some)))


def test_zero_bytes_at_the_end_of_a_key_count() -> None:
    assert len(group(join(np.array([[1, 0], [1, 0], [0, 1]], dtype=np.uint8))).one) == 2


def test_spots_tell_where_and_that_not() -> None:
    ordered = np.array([3, 5, 9])
    assert spots(np.array([9, 4, 3, 10]), ordered).tolist() == [2, -1, 0, -1]
    assert spots(np.array([9]), ordered[:0]).tolist() == [-1]


def test_what_is_known_of_one_tuple_is_never_told_of_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(orientations, "hashed", collide)
    state = Orientations()
    mine, another = (join(np.full((1, 41), value, dtype=np.uint8)) for value in (1, 2))
    learnt = np.array([(1, 0, True, True, 7)], dtype=KNOWN)
    state.remember(mine, learnt)
    assert state.lookup(mine) == learnt
    assert state.lookup(another) == UNKNOWN
