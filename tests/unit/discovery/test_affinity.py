"""An edge fits where its consumer calls others, and its socket is used by others."""

from types import SimpleNamespace
from typing import Any

import numpy as np

from ringfence.discovery.affinity import affinity

WEB, API, USERS, CONFIG, STORE = range(5)
KNOWN = [
    (WEB, API, 80),
    (WEB, USERS, 80),
    (WEB, CONFIG, 88),
    (API, CONFIG, 88),
    (API, STORE, 33),
    (USERS, CONFIG, 88),
]


def fit(*asked: tuple[int, int, int]) -> list[float]:
    consumer, provider, port = np.array([*KNOWN, *asked], dtype=np.int64).T
    observed: Any = SimpleNamespace(
        consumer=consumer,
        provider=provider,
        port=port,
        protocol=np.full(len(port), 6),
        peers=Peers(),
    )
    known = np.arange(len(port)) < len(KNOWN)
    return [float(one) for one in affinity(observed, known)[len(KNOWN) :]]


class Peers(list[int]):
    def __init__(self) -> None:
        super().__init__(range(5))

    def which(self, *_: type) -> np.ndarray[Any, Any]:
        return np.zeros(5, dtype=bool)


def test_callers_call_and_what_is_used_is_used() -> None:
    caller, silent, seldom = fit((API, CONFIG, 89), (STORE, CONFIG, 89), (API, USERS, 80))
    assert caller > silent
    popular, unpopular = fit((API, CONFIG, 88), (API, USERS, 80))
    assert popular > unpopular == seldom


def test_the_way_back_fits_less() -> None:
    back, beside = fit((USERS, WEB, 99), (USERS, STORE, 99))
    assert back < beside - 0.5


def test_where_nothing_is_known_nothing_is_said() -> None:
    observed: Any = SimpleNamespace(
        consumer=np.array([0]), provider=np.array([1]), port=np.array([80]),
        protocol=np.array([6]), peers=Peers(),
    )  # fmt: skip
    assert abs(affinity(observed, np.array([False]))[0]) < 0.01
