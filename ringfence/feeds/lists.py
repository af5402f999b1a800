"""Lists of addresses behind URLs that users of the control plane write.

Whoever may write such a URL has the control plane connect where it points: an API of the machine
itself, a cloud's metadata service, a database of the network inside (server-side request forgery).
So a URL leads to public addresses only, and besides to networks that the operator named; the
address that was judged is the one that is dialled, so that DNS cannot say something else in
between; redirects are not followed; proxies and credentials of the environment are not used; and
of what comes back no more is told than where it redirects to and the first lines that are no
addresses.
"""

import asyncio
import socket
import ssl
from collections.abc import Collection

import httpx

from ringfence.feeds.errors import FeedError
from ringfence.inventory.outside import PUBLIC, address_types
from ringfence.model.address import (
    Address,
    Network,
    format_address,
    is_v4,
    parse_address,
    parse_network,
)
from ringfence.model.address_set import MOST_BYTES

_SECONDS = 30.0
"""For all of it."""
_UNICAST = (parse_network("0.0.0.0/0"), parse_network("2000::/3"))
"""Of IPv6, what is given out to be reached from everywhere (RFC 4291, section 2.4)."""
_SPECIAL = tuple(
    map(
        parse_network,
        (
            # IANA's special-purpose registries (RFC 6890): protocol assignments, 6to4 relays,
            # benchmarks, what is reserved; the documentation's leads nowhere and may be asked.
            *("192.0.0.0/24", "192.88.99.0/24", "198.18.0.0/15", "240.0.0.0/4", "2001::/23"),
            # Which stand for those of IPv4 in them, perhaps private ones: RFC 3056 (6to4); Teredo
            # (RFC 4380) is in 2001::/23.
            "2002::/16",
        ),
    )
)
_ISATAP = (0x5EFE, 0x200_5EFE)
"""In the upper half of an interface's identifier, ahead of an address of IPv4: RFC 5214, 6.1."""


async def fetch_list(url: str, networks: Collection[Network]) -> str:
    """The text behind a URL; raises FeedError.

    Its host's address must be public, or in one of the networks.
    """
    try:
        async with asyncio.timeout(_SECONDS):
            target = httpx.URL(url)
            address = await _address_of(target, networks)
            return await _get(target, address)
    except TimeoutError as error:
        raise FeedError(f"no answer in {_SECONDS:.0f} s") from error
    except httpx.RemoteProtocolError as error:  # its text quotes the answer
        raise FeedError("what answers there does not speak HTTP as it should") from error
    except (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError) as error:
        raise FeedError(f"not reached: {str(error) or type(error).__name__}") from error


def may_fetch_from(address: Address, networks: Collection[Network]) -> bool:
    """Whether a URL may lead there."""
    if any(network.is_v4 == is_v4(address) and address in network for network in networks):
        return True
    return (
        any(address in one for one in _UNICAST)
        and address_types(address) == (PUBLIC,)
        and not any(address in one for one in _SPECIAL)
        and (is_v4(address) or int.from_bytes(address[8:12]) not in _ISATAP)
    )


async def _address_of(url: httpx.URL, networks: Collection[Network]) -> Address:
    """The first address of the URL's host that may be asked."""
    loop, host = asyncio.get_running_loop(), url.raw_host.decode("ascii")
    try:
        answers = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise FeedError(f"{host} has no address: {error}") from error
    found = [parse_address(str(one[4][0]).partition("%")[0]) for one in answers]
    for address in found:
        if may_fetch_from(address, networks):
            return address
    told = format_address(found[0]) if found else "none"
    raise FeedError(
        f"{host} is {told}, which is no public address and in no --fetch-network of the server"
    )


async def _get(url: httpx.URL, address: Address) -> str:
    context = await asyncio.to_thread(ssl.create_default_context)  # reads all certificates
    async with (
        httpx.AsyncClient(verify=context, trust_env=False) as client,
        client.stream(
            "GET",
            url.copy_with(host=format_address(address)),
            headers={
                "Host": url.netloc.decode("ascii"),
                "Accept-Encoding": "identity",  # so that what is counted is what there is
                "User-Agent": "ringfence",
            },
            extensions={"sni_hostname": url.raw_host.decode("ascii")},
            timeout=_SECONDS,
            follow_redirects=False,
        ) as response,
    ):
        if response.is_redirect:
            where = response.headers.get("Location", "")[:200]
            raise FeedError(f"it is elsewhere, and redirects are not followed: write {where!r}")
        if response.status_code != httpx.codes.OK:
            raise FeedError(f"the server answered {response.status_code}, not 200")
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise FeedError("the server answered in an encoding that was not asked for")
        return await _text(response)


async def _text(response: httpx.Response) -> str:
    content = bytearray()
    async for part in response.aiter_raw():
        content += part
        if len(content) > MOST_BYTES:
            raise FeedError(f"it is longer than {MOST_BYTES:,} bytes")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise FeedError("it is not UTF-8 text") from error
