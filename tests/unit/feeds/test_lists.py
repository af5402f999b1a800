"""Where the URL of a list may lead."""

import pytest

from ringfence.feeds.errors import FeedError
from ringfence.feeds.lists import fetch_list, may_fetch_from
from ringfence.model.address import host_network, parse_address, parse_network

INSIDE = [
    "127.0.0.1", "10.1.2.3", "192.168.0.9", "172.16.0.1", "100.64.0.1", "169.254.169.254",
    "168.63.129.16", "0.0.0.0", "224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fc00::1",
    "fd00:ec2::254", "ff02::1", "::ffff:10.0.0.1", "::10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::",
    "2001:0:a00:1::", "::ffff:0:a9fe:a9fe", "192.0.0.1", "192.0.0.192", "192.88.99.1",
    "240.0.0.1", "198.19.0.1", "fec0::1", "100::1", "4000::1", "5f00::1", "2001:2::1",
    "2a00::5efe:a00:1", "2a00::200:5efe:a00:1",
]  # fmt: skip


@pytest.mark.parametrize("address", INSIDE)
def test_what_is_not_public_needs_a_word_of_the_operator(address: str) -> None:
    asked = parse_address(address)
    assert not may_fetch_from(asked, ())
    assert not may_fetch_from(asked, [parse_network("203.0.113.0/24")])
    assert may_fetch_from(asked, [host_network(asked)])


@pytest.mark.parametrize("address", ["203.0.113.9", "8.8.8.8", "2a00:1450::1"])
def test_what_is_public_may_be_asked(address: str) -> None:
    assert may_fetch_from(parse_address(address), ())


def test_all_of_ipv6_is_no_address_of_ipv4() -> None:
    assert not may_fetch_from(parse_address("127.0.0.1"), [parse_network("::/0")])


@pytest.mark.parametrize(
    "url", ["https://999.1.1.1/", "https://[v1.x]/", "https://\u2603.example/", "https://a..b/"]
)
async def test_a_url_that_cannot_be_asked_is_told(url: str) -> None:
    with pytest.raises(FeedError):
        await fetch_list(url, ())


async def test_a_name_that_idna_refuses_is_a_name() -> None:
    with pytest.raises(FeedError, match=r"localhost is .*no public address"):
        await fetch_list("https://localhost/", ())
    with pytest.raises(FeedError, match=r"xn--a\.invalid has no address"):
        await fetch_list("https://xn--a.invalid/", ())
