"""Which name a client's connection gets."""

import numpy as np
from numpy.typing import NDArray

from ringfence.flows.dns import Resolved
from ringfence.flows.names import KEPT_NS, Names
from ringfence.model.address import Address, parse_address

ONE, OTHER, TOO, AWAY = (parse_address(f"10.0.0.{i}") for i in range(1, 5))
SITE, SECOND, THIRD = (parse_address(text) for text in ("192.0.2.0", "2001:db8::", "2001:db8::1"))
HERE = {ONE, OTHER, TOO}
T0 = 10**18


def rows(*addresses: Address) -> NDArray[np.uint8]:
    return np.frombuffer(b"".join(addresses), dtype=np.uint8).reshape(-1, 16)


def of(names: Names, client: Address, site: Address, at_ns: int = T0) -> str:
    (name,) = names.of(rows(client), rows(site), HERE, at_ns).tolist()
    return str(name)


def told(name: str, *addresses: Address, ttl: int = 5) -> Resolved:
    return Resolved(name, addresses, ttl)


def test_a_clients_own_answer_counts_and_the_last_of_several() -> None:
    names = Names()
    names.learn(ONE, T0, told("a", SITE, SECOND))
    names.learn(OTHER, T0 + 1, told("b", SITE))
    assert [of(names, who, SITE) for who in (ONE, OTHER)] == ["a", "b"]
    names.learn(ONE, T0 + 2, told("c", SITE))
    found = names.of(rows(ONE, OTHER, ONE), rows(SITE, SITE, SECOND), HERE, T0)
    assert found.tolist() == ["c", "b", "a"]
    assert len(names.of(rows(), rows(), HERE, T0)) == 0


def test_without_an_answer_of_its_own_a_client_of_the_node_has_anothers_of_the_node() -> None:
    names = Names()
    assert not of(names, ONE, SITE)
    names.learn(OTHER, T0, told("b", SITE))
    names.learn(AWAY, T0 + 1, told("c", SITE, SECOND))
    assert [of(names, ONE, site) for site in (SITE, SECOND)] == ["b", ""]
    assert [of(names, AWAY, site) for site in (SITE, SECOND)] == ["c", "c"]
    names.learn(OTHER, T0 + 2, told("d", SECOND))
    names.learn(OTHER, T0 + 3, told("e", THIRD))
    names.learn(TOO, T0 + 4, told("f", SECOND))
    assert [of(names, ONE, site) for site in (SITE, SECOND, THIRD)] == ["b", "f", "e"]


def test_a_name_is_kept_an_hour_after_it_was_told_or_used_or_its_ttl() -> None:
    names = Names()
    names.learn(ONE, T0, told("a", SITE))
    names.learn(ONE, T0, told("b", SECOND, ttl=86_400))
    used = T0 + KEPT_NS - 1
    assert of(names, ONE, SITE, used) == "a"
    assert of(names, ONE, SITE, used + KEPT_NS - 1) == "a"
    assert not of(names, ONE, SITE, used + 2 * KEPT_NS)
    assert of(names, ONE, SECOND, T0 + 86_399 * 10**9) == "b"


def test_what_there_is_no_room_for_is_counted_the_oldest_first() -> None:
    names = Names(most=2)
    for number, site in enumerate((SITE, SECOND, AWAY)):
        names.learn(ONE, T0 + number, told(f"n{number}", site))
        of(names, ONE, SITE)
    assert names.forgotten == 1
    assert [of(names, ONE, site) for site in (SITE, SECOND, AWAY)] == ["n0", "", "n2"]
    names.learn(ONE, T0 + 3 * KEPT_NS, told("late", OTHER))
    assert names.forgotten == 1  # what was old is no loss


def test_a_client_that_asks_much_pushes_out_its_own_names_alone() -> None:
    names = Names(most=5, most_each=3)
    names.learn(OTHER, T0, told("other", SITE))
    flood = [parse_address(f"192.0.2.{number}") for number in range(1, 90)]
    names.learn(ONE, T0 + 1, told("flood", *flood))
    assert names.forgotten == 86
    assert of(names, OTHER, SITE) == "other"
    assert [of(names, ONE, site) for site in flood] == [""] * 86 + ["flood"] * 3
    names.learn(TOO, T0 + 2, told("last", SITE, SECOND))
    assert names.forgotten == 87
    assert [of(names, who, SITE) for who in (OTHER, TOO)] == ["last", "last"]
    assert [of(names, ONE, site) for site in flood[-3:]] == ["flood"] * 3
