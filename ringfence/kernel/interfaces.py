"""The interfaces of the node's own network namespace, and word when they change.

Capture attaches to them, a veth's other end tells which pod it belongs to, and all their
addresses together are the *node addresses* of a policy.
"""

import asyncio
import errno
import os
import socket
import struct
from collections import defaultdict
from collections.abc import AsyncGenerator, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ringfence.kernel.errors import NamespaceError, NetlinkError
from ringfence.kernel.netlink import ACK, DUMP, ask, attributes
from ringfence.kernel.netns import run_in
from ringfence.kernel.tunnel import DecodeAs, Tunnel
from ringfence.model.address import V4_MAPPED, Address, parse_network

_RTM_GETLINK, _RTM_GETADDR, _RTM_GETNSID = 18, 22, 90
_LINK = struct.Struct("=BxHiII")  # ifinfomsg: family, type, index, flags, change
_IFLA_IFNAME, _IFLA_LINK, _IFLA_MASTER, _IFLA_LINKINFO, _IFLA_LINK_NETNSID = 3, 5, 10, 18, 37
_IFLA_INFO_KIND, _IFLA_INFO_DATA = 1, 2
_PORT_OF = {Tunnel.VXLAN: 15, Tunnel.GENEVE: 5}  # IFLA_VXLAN_PORT, IFLA_GENEVE_PORT
_IFLA_VXLAN_GPE = 27
_ADDRESS = struct.Struct("=BBBBI")  # ifaddrmsg: family, prefix length, flags, scope, index
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_IFA_F_PERMANENT = 0x80
_RT_SCOPE_UNIVERSE = 0
_GENERIC = struct.Struct("=Bxxx")  # rtgenmsg
_NETNSA_NSID, _NETNSA_FD = 1, 3
_NUMBER = struct.Struct("=I")
_IPV4_SIZE = 4
_IFF_UP = 1
_CHANGES = 0x1 | 0x10 | 0x100  # RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR
_NO_ID = 0xFFFFFFFF  # NETNSA_NSID_NOT_ASSIGNED
_LINK_LOCAL = tuple(parse_network(text) for text in ("169.254.0.0/16", "fe80::/10"))
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
    in_network: bool = False
    """Whether an address that was given to it has others of its network around it.

    Link-local ones do not count, nor those that whoever is at the other end advertised (RFC 4862).
    """
    tunnel: DecodeAs | None = None
    """Of a VXLAN or Geneve device, the UDP port of the packets outside."""
    master: int | None = None
    """The bridge, or what else it is a port of, by ifindex."""


def list_interfaces() -> tuple[Interface, ...]:
    """Every interface of the calling thread's namespace, by ifindex. Raises NetlinkError."""
    addresses, in_network = defaultdict(set), set()
    for answer in _list(_RTM_GETADDR, _ADDRESS.pack(socket.AF_UNSPEC, 0, 0, 0, 0)):
        _, prefix_length, flags, scope, ifindex = _ADDRESS.unpack_from(answer)
        told = attributes(answer[_ADDRESS.size :])
        local = told.get(_IFA_LOCAL) or told[_IFA_ADDRESS]
        v4 = len(local) == _IPV4_SIZE
        addresses[ifindex].add(Address(V4_MAPPED + local if v4 else local))
        given = v4 or flags & _IFA_F_PERMANENT
        if given and scope == _RT_SCOPE_UNIVERSE and prefix_length < 8 * len(local):
            in_network.add(ifindex)
    interfaces = [
        _interface(answer, addresses, in_network)
        for answer in _list(_RTM_GETLINK, _LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0))
    ]
    return tuple(sorted(interfaces, key=lambda interface: interface.ifindex))


def link_local_addresses(netns_path: Path) -> frozenset[Address]:
    """The addresses of a namespace that mean it on one link alone; raises KernelError."""
    return frozenset(
        address
        for interface in run_in(netns_path, list_interfaces)
        for address in interface.addresses
        if any(address in network for network in _LINK_LOCAL)
    )


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
            current = list_interfaces()
            if current != last:
                yield current
                last = current
            await _wait(loop, news)


def netns_id(netns_path: Path) -> int | None:
    """The id by which this namespace knows another, as `Interface.peer_netns_id` has it.

    None if it has no id here: no interface of ours has its peer there.
    """
    try:
        fd = os.open(netns_path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise NamespaceError(f"no network namespace at {netns_path}: {error.strerror}") from error
    try:
        asked = _GENERIC.pack(socket.AF_UNSPEC) + struct.pack("=HHI", 8, _NETNSA_FD, fd)
        (answer,) = ask(socket.NETLINK_ROUTE, _RTM_GETNSID, ACK, asked)
    finally:
        os.close(fd)
    found = _number(attributes(answer[_GENERIC.size :])[_NETNSA_NSID])
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


def _list(kind: int, request: bytes) -> Iterator[bytes]:
    return ask(socket.NETLINK_ROUTE, kind, DUMP, request, steady=True)


def _interface(
    answer: bytes, addresses: Mapping[int, set[Address]], in_network: Collection[int]
) -> Interface:
    _, _, ifindex, flags, _ = _LINK.unpack_from(answer)
    told = attributes(answer[_LINK.size :])
    details = attributes(told.get(_IFLA_LINKINFO, b""))
    kind = _text(details.get(_IFLA_INFO_KIND, b""))
    master = told.get(_IFLA_MASTER)
    peer, netns = told.get(_IFLA_LINK), told.get(_IFLA_LINK_NETNSID)
    return Interface(
        ifindex=ifindex,
        name=_text(told[_IFLA_IFNAME]),
        kind=kind,
        up=bool(flags & _IFF_UP),
        peer_ifindex=_number(peer) if peer else None,
        peer_netns_id=_number(netns) if netns else None,
        addresses=frozenset(addresses.get(ifindex, ())),
        in_network=ifindex in in_network,
        tunnel=_tunnel(kind, attributes(details.get(_IFLA_INFO_DATA, b""))),
        master=_number(master) if master else None,
    )


def _tunnel(kind: str, data: Mapping[int, bytes]) -> DecodeAs | None:
    for tunnel, attribute in _PORT_OF.items():
        if kind == tunnel.name.lower() and attribute in data:
            gpe = tunnel is Tunnel.VXLAN and _IFLA_VXLAN_GPE in data
            port = int.from_bytes(data[attribute], "big")
            return DecodeAs(port, Tunnel.VXLAN_GPE if gpe else tunnel)
    return None


def _number(value: bytes) -> int:
    found: int = _NUMBER.unpack(value)[0]
    return found


def _text(value: bytes) -> str:
    """As it can be told to others; a name may have any bytes."""
    return value.rstrip(b"\0").decode(errors="replace")
