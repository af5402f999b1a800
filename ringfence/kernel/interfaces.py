"""The interfaces of the node's own network namespace, and word when they change.

Capture attaches to them, a veth's other end tells which pod it belongs to, and all their
addresses together are the *node addresses* of a policy.
"""

import asyncio
import errno
import os
import socket
from collections import defaultdict
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyroute2 import AsyncIPRoute
from pyroute2.netlink.exceptions import NetlinkError as PyrouteError

from ringfence.kernel.errors import NamespaceError, NetlinkError
from ringfence.kernel.tunnel import DecodeAs, Tunnel
from ringfence.model.address import Address, parse_address

_IFF_UP = 1
_CHANGES = 0x1 | 0x10 | 0x100  # RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR
_NO_ID = 0xFFFFFFFF  # NETNSA_NSID_NOT_ASSIGNED
_SETTLE = 0.05  # seconds; adding a pod makes a burst of messages


@dataclass(frozen=True, slots=True)
class Interface:
    """A network interface as the namespace sees it now."""

    ifindex: int
    name: str
    kind: str
    """The driver's kind: `veth`, `bridge`, `vxlan`, …; empty for hardware and loopback."""
    up: bool
    peer_ifindex: int | None
    """For a veth or a stacked device, the other end or the one below."""
    peer_netns_id: int | None
    """The namespace of `peer_ifindex` by its local id (`netns_id`); None if it is this one."""
    addresses: frozenset[Address]
    tunnel: DecodeAs | None = None
    """Of a VXLAN or Geneve device, the UDP port of the packets outside."""


async def list_interfaces() -> tuple[Interface, ...]:
    """Every interface of the calling thread's namespace, by ifindex. Raises NetlinkError."""
    try:
        async with AsyncIPRoute() as route:
            addresses = defaultdict(set)
            async for message in await route.addr("dump"):
                local = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
                addresses[message["index"]].add(parse_address(local))
            return tuple(
                sorted(
                    [
                        _interface(message, frozenset(addresses[message["index"]]))
                        async for message in await route.link("dump")
                    ],
                    key=lambda interface: interface.ifindex,
                )
            )
    except PyrouteError as error:
        raise NetlinkError(f"cannot list the network interfaces: {error}") from error


async def watch_interfaces() -> AsyncGenerator[tuple[Interface, ...], None]:
    """Every interface now, and again, whole, each time something about them has changed.

    Ends only when it is closed. A burst of changes gives one answer; none is missed, because
    each answer is read after the news that caused it.
    """
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as news:
        news.setblocking(False)
        news.bind((0, _CHANGES))
        last: tuple[Interface, ...] | None = None
        while True:
            current = await list_interfaces()
            if current != last:
                yield current
                last = current
            await _wait(loop, news)


async def netns_id(netns_path: Path) -> int | None:
    """The id by which this namespace knows another, as `Interface.peer_netns_id` has it.

    None if it has no id here: no interface of ours has its peer there.
    """
    try:
        fd = os.open(netns_path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise NamespaceError(f"no network namespace at {netns_path}: {error.strerror}") from error
    try:
        async with AsyncIPRoute() as route:
            found: int = (await route.get_netnsid(fd=fd))["nsid"]
    except PyrouteError as error:
        raise NetlinkError(f"cannot identify the namespace {netns_path}: {error}") from error
    finally:
        os.close(fd)
    return None if found == _NO_ID else found


async def _wait(loop: asyncio.AbstractEventLoop, news: socket.socket) -> None:
    """Return when there is news, after the burst it belongs to; what it says is not read."""
    try:
        await loop.sock_recv(news, 1 << 16)
        await asyncio.sleep(_SETTLE)
        while True:
            news.recv(1 << 16)
    except BlockingIOError:
        return
    except OSError as error:
        if error.errno != errno.ENOBUFS:  # news was lost, which is news enough
            raise NetlinkError(f"cannot watch the network interfaces: {error}") from error


def _interface(message: Any, addresses: frozenset[Address]) -> Interface:
    details = message.get_attr("IFLA_LINKINFO")
    return Interface(
        ifindex=message["index"],
        name=message.get_attr("IFLA_IFNAME"),
        kind=(details and details.get_attr("IFLA_INFO_KIND")) or "",
        up=bool(message["flags"] & _IFF_UP),
        peer_ifindex=message.get_attr("IFLA_LINK"),
        peer_netns_id=message.get_attr("IFLA_LINK_NETNSID"),
        addresses=addresses,
        tunnel=_tunnel(details),
    )


def _tunnel(details: Any) -> DecodeAs | None:
    data = details and details.get_attr("IFLA_INFO_DATA")
    for tunnel in Tunnel:
        if data and details.get_attr("IFLA_INFO_KIND") == tunnel.name.lower():
            return DecodeAs(data.get_attr(f"IFLA_{tunnel.name}_PORT"), tunnel)
    return None
