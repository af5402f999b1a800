"""Networks against the plainest rule: of all that hold an address, the longest prefix."""

import ipaddress

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ringfence.inventory.networks import Claim, Networks
from ringfence.model.address import Address, Network, parse_address, parse_network
from ringfence.model.ids import RevisionId

V4 = ipaddress.ip_network("10.0.0.0/28")
V6 = ipaddress.ip_network("::a00:0/124")  # the same last four bytes as V4
EDGES = [
    "0.0.0.0/0", "0.0.0.0/1", "255.255.255.255/32", "::/0", "::/64", "::ffff:0:0/97", "fe00::/7",
]  # fmt: skip


def within(block: ipaddress.IPv4Network | ipaddress.IPv6Network) -> st.SearchStrategy[str]:
    """Blocks near one another, so that many lie within many."""
    width = block.max_prefixlen
    made = st.tuples(st.integers(0, 15), st.integers(width - 4, width))
    return made.map(lambda one: str(ipaddress.ip_network((block[one[0]], one[1]), strict=False)))


networks = st.one_of(within(V4), within(V6), st.sampled_from(EDGES)).map(parse_network)
addresses = st.one_of(
    st.sampled_from([str(one) for block in (V4, V6) for one in block]),
    st.sampled_from(["0.0.0.0", "128.0.0.1", "255.255.255.255", "::", "ffff::", "9.255.255.255"]),
).map(parse_address)
lives = st.tuples(networks, st.integers(0, 6), st.integers(1, 6))
spans = st.tuples(addresses, st.integers(-1, 12), st.integers(0, 4))


def slow(claims: list[Claim], address: Address, at: int) -> int:
    holding = [
        claim
        for claim in claims
        if claim.from_ns <= at < claim.to_ns
        and address in claim.network
        and claim.network.is_v4 == (address in parse_network("0.0.0.0/0"))
    ]
    return max(holding, key=lambda claim: claim.network.prefix).revision if holding else 0


@given(st.lists(lives, max_size=16), st.lists(spans, min_size=1, max_size=16))
def test_the_longest_prefix_of_the_time_holds_an_address(
    given_lives: list[tuple[Network, int, int]], asked: list[tuple[Address, int, int]]
) -> None:
    claims: list[Claim] = []
    for network, start, length in given_lives:
        claim = Claim(start, start + length, network, RevisionId(len(claims) + 1))
        overlaps = any(
            one.network == network and one.from_ns < claim.to_ns and claim.from_ns < one.to_ns
            for one in claims
        )
        if not overlaps:  # of one network there is one item at a time
            claims.append(claim)
    rows = np.array([list(address) for address, _, _ in asked], dtype=np.uint8)
    first = np.array([at for _, at, _ in asked], dtype=np.int64)
    last = first + np.array([length for _, _, length in asked], dtype=np.int64)
    found = Networks(claims).locate(rows, first, last).tolist()
    assert found == [
        slow(claims, address, at) or slow(claims, address, at + length)
        for address, at, length in asked
    ]
