"""What policies and roles are called, and the filters of joined ends."""

import pytest

from ringfence.discovery.drafts import Draft
from ringfence.discovery.ends import NamedEnd, joined
from ringfence.discovery.naming import LONGEST_NAME, joined_name, policy_ids
from ringfence.discovery.queries import stem
from ringfence.model.ids import PolicyId
from ringfence.model.keys import parse_filter
from ringfence.model.policy import ClusterEnd, OutsideEnd, ServiceEnd
from ringfence.model.protocol import TCP, UDP

PORTS = frozenset({80})


def pods(name: str, place: str = "") -> NamedEnd:
    return NamedEnd(name, ClusterEnd(name), place)


def service(name: str, place: str = "") -> NamedEnd:
    return NamedEnd(name, ServiceEnd(place, name), place)


def draft(
    consumer: NamedEnd, provider: NamedEnd, protocol: int = TCP, ports: frozenset[int] = PORTS
) -> Draft:
    return Draft(consumer, provider, protocol, ports, frozenset())


def ids(*drafts: Draft, taken: tuple[str, ...] = ()) -> list[str]:
    return [str(one) for one in policy_ids(drafts, [PolicyId(one) for one in taken])]


def test_joined_ends_are_named_by_all_of_them_where_that_is_short() -> None:
    assert joined_name([pods("orders"), pods("carts"), pods("orders")]) == "carts-and-orders"
    assert len(joined_name([pods("a" * 17), pods("b" * 18)])) == LONGEST_NAME
    assert joined_name([pods("a" * 18), pods("b" * 18)]) == "several"


def test_a_namespace_that_joined_ends_share_is_said_once() -> None:
    ends = [pods("shop-a-web", "shop-a"), pods("shop-a-cart", "shop-a"), pods("job", "shop-a")]
    assert joined_name(ends) == "shop-a-cart-and-job-and-web"
    assert joined_name([*ends, pods("shop-a-" + "x" * 20, "shop-a")]) == "several-of-shop-a"
    plain = [pods("web", "shop"), pods("cart", "shop")]
    assert joined_name(plain) == "cart-and-web"
    everywhere = [pods("a-pay", "a"), pods("b-pay", "b"), pods("c-pay", "c")]
    assert joined_name(everywhere) == "pay"


def test_a_providers_namespace_is_told_where_it_is_not_the_consumers() -> None:
    web = pods("a-web", "a")
    assert ids(draft(web, service("cart", "a"))) == ["a-web-to-cart"]
    assert ids(draft(web, pods("a-cart", "a"))) == ["a-web-to-cart"]
    assert ids(draft(web, service("cart", "b"))) == ["a-web-to-b-cart"]
    assert ids(draft(web, pods("b-cart", "b"))) == ["a-web-to-b-cart"]
    assert ids(draft(pods("web", "a"), service("cart", "b"))) == ["web-to-cart"]


OUTSIDE = NamedEnd("outside", OutsideEnd())


@pytest.mark.parametrize(
    ("drafts", "expected"),
    [
        pytest.param(
            [draft(pods("several"), service("cart", one)) for one in "abc"],
            [f"several-to-cart-in-{one}" for one in "abc"],
            id="namespace",
        ),
        pytest.param(
            [
                draft(pods("web", "a"), service("cart", "a")),
                draft(pods("web", "a"), pods("cart", "a")),
            ],
            ["web-to-cart-service", "web-to-cart-direct"],
            id="kind",
        ),
        pytest.param(
            [draft(OUTSIDE, service("web"), one) for one in (TCP, UDP)],
            ["outside-to-web-tcp", "outside-to-web-udp"],
            id="protocol",
        ),
        pytest.param(
            [
                draft(OUTSIDE, service("web"), TCP, frozenset(ports))
                for ports in ((80,), (443, 8443), ())
            ],
            ["outside-to-web-80", "outside-to-web-443-8443", "outside-to-web-any"],
            id="ports",
        ),
        pytest.param(
            [
                draft(OUTSIDE, service("web", "a")),
                draft(OUTSIDE, service("web", "b")),
                draft(OUTSIDE, pods("web", "b")),
            ],
            ["outside-to-web-in-a", "outside-to-web-in-b-service", "outside-to-web-in-b-direct"],
            id="no more than it takes",
        ),
    ],
)
def test_what_would_share_a_name_is_told_apart_by_what_differs(
    drafts: list[Draft], expected: list[str]
) -> None:
    assert ids(*drafts) == expected


def test_a_number_is_the_last_resort() -> None:
    same = draft(pods("web"), service("cart"))
    assert ids(same, same, taken=("web-to-cart",)) == ["web-to-cart-2", "web-to-cart-3"]


def test_names_made_of_addresses_are_not_shortened() -> None:
    assert stem("web-7d4b9c8f6d-x2x4v") == "web"
    for name in ("ip-10-20-0-23", "ec2-3.80.1.9", "10.0.0.7"):
        assert stem(name) == name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("redis-7.2.4-0", "redis"),
        ("nginx-1-25-3-1-7d4b9c8f6d-x2x4v", "nginx"),
        ("app-2-1-0-3-x2x4v", "app"),
        ("kafka-3-7-0-256", "kafka"),
    ],
)
def test_versions_in_names_are_no_addresses(name: str, expected: str) -> None:
    assert stem(name) == expected


def test_filters_that_differ_in_one_label_are_one() -> None:
    def of(*told: str) -> str:
        return str(joined([parse_filter(one) for one in told]))

    place, app = "kubernetes.namespace", "kubernetes.label.app"
    ab = [f'{place} = "{one}" and {app} = "db"' for one in "ab"]
    assert of(*ab) == f'{place} in ("a", "b") and {app} = "db"'
    other = f'{place} = "a" and {app} = "web"'
    assert of(*ab, other) == (
        f'{place} = "a" and {app} in ("db", "web") or {place} = "b" and {app} = "db"'
    )
    assert of(*ab, 'name matches "x.*"') == (
        f'{place} in ("a", "b") and {app} = "db" or name matches "x.*"'
    )
    assert of(f'{app} = "x"', f'{app} in ("x", "y")') == f'{app} in ("x", "y")'
    assert of(*ab, 'name = "x"').count(" or ") == 1, "of different length"
