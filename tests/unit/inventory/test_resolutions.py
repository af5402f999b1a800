"""What a name means when: from its answer on, for its TTL, and no longer for a flood of others."""

from ringfence.inventory.resolutions import IN_USE_NS, KEPT_NS, Resolution, Resolutions
from ringfence.model.address import parse_address
from ringfence.model.fqdn import fqdn_matches

API = "api.example.org"
ONE, TWO = parse_address("203.0.113.1"), parse_address("2001:db8::2")
SECOND = 10**9


def told(name: str, address: bytes, start: int, end: int, teller: str = "n1") -> Resolution:
    return Resolution(name, address, start * SECOND, end * SECOND, teller)  # type: ignore[arg-type]


def test_an_address_has_its_name_for_its_time() -> None:
    known = Resolutions()
    assert known.learn(told(API, ONE, 10, 20)) == told(API, ONE, 10, 20)
    assert known.learn(told(API, ONE, 12, 18)) is None
    assert known.learn(told(API, TWO, 15, 40))
    assert [known.as_of(at * SECOND) for at in (9, 10, 15, 20, 40)] == [
        {},
        {API: {ONE}},
        {API: {ONE, TWO}},
        {API: {TWO}},
        {},
    ]
    assert known.learn(told(API, ONE, 18, 30)) == told(API, ONE, 10, 30)
    assert known.learn(told(API, ONE, 50, 60)) == told(API, ONE, 50, 60)
    assert sorted(known.instants(["*.example.org"])) == [n * SECOND for n in (15, 40, 50, 60)]
    assert not [*known.instants(["example.org", "*.api.example.org"])]
    assert known.as_of(25 * SECOND, ["*.example.org"]) == known.as_of(25 * SECOND)
    assert known.as_of(25 * SECOND, ["example.org"]) == known.as_of(25 * SECOND, []) == {}


def test_what_is_used_keeps_its_name_and_nothing_gets_one_so() -> None:
    known = Resolutions()
    known.learn(told(API, ONE, 10, 20))
    assert known.used(API, TWO, 15 * SECOND) is None
    assert known.used("other.example.org", ONE, 15 * SECOND) is None
    used = known.used(API, ONE, 19 * SECOND)
    assert used
    assert used.until_ns == 19 * SECOND + IN_USE_NS
    assert known.used(API, ONE, used.until_ns + IN_USE_NS) is None


def test_a_flood_is_refused_and_takes_nothing_away() -> None:
    known = Resolutions(most_of_name=2, most_of_teller=4)
    known.learn(told(API, ONE, 10, 20))
    for number in range(5):
        known.learn(told(API, parse_address(f"203.0.113.{number + 9}"), 11, 20, "n2"))
        known.learn(told(f"n{number}.flood", TWO, 11, 20, "n2"))
    assert known.refused == 4 + 2
    assert ONE in known.as_of(12 * SECOND)[API]
    assert known.learn(told("calm.example.org", TWO, 12, 20, "n1"))
    assert known.learn(told("n9.flood", TWO, 19, 40, "n2")) is None
    assert known.learn(told("n9.flood", TWO, 20, 40, "n2")), "what is over makes room"
    over = known.forget(21 * SECOND)
    assert len(over) == 2, "the earlier half of the four"
    assert len(known.forget(20 * SECOND + KEPT_NS)) == 4


def test_a_name_that_changes_its_address_all_day_keeps_its_last_ones() -> None:
    known = Resolutions(most_of_name=4)
    for minute in range(100):
        address = parse_address(f"203.0.113.{minute}")
        assert known.learn(told(API, address, minute * 60, minute * 60 + 90))
        assert address in known.as_of(minute * 60 * SECOND)[API]
    assert not known.refused
    displaced = known.forget(99 * 60 * SECOND)
    assert parse_address("203.0.113.0") in [one.address for one in displaced]


def test_what_made_room_and_is_told_again_is_not_forgotten() -> None:
    known = Resolutions(most_of_name=1)
    for address, start in ((ONE, 10), (TWO, 20), (ONE, 30)):
        assert known.learn(told(API, address, start, start + 5))
    assert [one.address for one in known.forget(31 * SECOND)] == [TWO]


def test_the_wildcard_is_one_label() -> None:
    names = ["a.example.org", "example.org", "a.b.example.org", "aexample.org", "a\\.x.example.org"]
    assert [fqdn_matches("*.example.org", name) for name in names] == [
        True, False, False, False, False,
    ]  # fmt: skip
