"""Lists of addresses as others publish them, and what is refused of them."""

import pytest

from ringfence.model.address_set import (
    MOST_RANGES,
    format_range,
    parse_every,
    parse_range,
    parse_url,
    read_list,
)
from ringfence.model.errors import InputError

DROP = """\
\ufeff; Spamhaus DROP List 2026/11/22
1.10.16.0/20 ; SBL256894
1.10.33.0-1.10.33.7 # a range

  2001:db8::1
2001:db8::2-2001:db8::ff
"""


def held(text: str) -> list[str]:
    return list(map(format_range, read_list(text)))


def test_the_forms_of_lists() -> None:
    assert held(DROP) == ["1.10.16.0/20", "1.10.33.0/29", "2001:db8::1-2001:db8::ff"]
    assert held('["192.0.2.9", "192.0.2.8"]') == ["192.0.2.8/31"]
    assert held("192.0.2.1\r\n192.0.2.1\r\n") == ["192.0.2.1"]
    assert held("192.0.2.1 # x\x0c8.8.8.0/24\r8.8.8.8\u20288.8.4.4") == ["192.0.2.1"]
    low, high = "::-::fffe:ffff:ffff", "::1:0:0:0-ff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"
    assert held("::/8") == [low, high], "no address of IPv4 is in a block of IPv6"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no address in it"),
        ("# only words\n", "no address in it"),
        ("[]", "no address in it"),
        ("[1]", "entry 1: '1' is not a CIDR block"),
        ("[", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("10.0.0.0/8\n\n<html>", "line 3: '<html>' is not a CIDR block"),
        ("10.0.0.1/8", "line 1: '10.0.0.1/8' is not a CIDR block: .*write 10.0.0.0/8"),
        ("10.0.0.9-10.0.0.1", "line 1: .*is no range"),
        ("10.0.0.9-2001:db8::1", "line 1: .*is no range"),
        ("::-::ffff:1.2.3.4", "line 1: .*is no range"),
        ("0.0.0.0/0", "half or more of all IPv4"),
        ("0.0.0.0/1", "half or more of all IPv4"),
        ("2000::/4\n3000::/4", "half or more of all IPv6"),
        ("8000::/1", "half or more of all IPv6"),
        ("4000::/2\n8000::/1", "half or more of all IPv6"),
        ("\n".join(f"10.{n >> 8 & 255}.{n & 255}.1\n10.{n >> 8 & 255}.{n & 255}.3"
                   for n in range(MOST_RANGES // 2 + 1)), "32,770 ranges are more than"),
        (f"1.1.1.0{' ' * 300}-1.1.1.255", "line 1: '1.1.1.0 .* is longer than 256"),
        (f'["10.0.0.1{" " * 300}/8"]', "entry 1: '10.0.0.1 .* is longer than 256"),
        ("1.2.3.4\r8.8.8.8", "line 1: "),
        ("a::\n" * (4 * MOST_RANGES + 1), "more than 131,072 entries"),
    ],
)  # fmt: skip
def test_what_is_refused(text: str, why: str) -> None:
    with pytest.raises(InputError, match=why):
        read_list(text)


def test_a_page_that_is_no_list_is_told_in_short() -> None:
    with pytest.raises(InputError) as refused:
        read_list("<p>nothing</p>\n" * 50_000)
    assert len(str(refused.value)) < 2_000


@pytest.mark.parametrize(
    "text", ["10.0.0.0/8", "192.0.2.1", "192.0.2.1-192.0.2.9", "2001:db8::/32"]
)
def test_ranges_read_back(text: str) -> None:
    assert format_range(parse_range(text)) == text


@pytest.mark.parametrize(
    "url",
    ["ftp://example.org/", "https:///x", "example.org", "https://a b/", "https://u:p@example.org/",
     "https://example.org/#x", "http://example.org:99999/", "http://[::1/",
     "https://e/" + "x" * 2048, "http://example.org/\r\nHost: x",
     "https://999.1.1.1/", "https://1.2.3.04/", "https://[v1.x]/", "https://[1.2.3.4]/",
     "https://\u2603.example/", "https://\uff11.1.1.1/", "https://a%41/", "https://a\\b/"],
)  # fmt: skip
def test_urls_that_are_refused(url: str) -> None:
    with pytest.raises(InputError):
        parse_url(url)


@pytest.mark.parametrize("text", ["", "4m", "8d", "1w", "-5m", "1.5h", "h"])
def test_intervals_have_bounds(text: str) -> None:
    with pytest.raises(InputError):
        parse_every(text)
