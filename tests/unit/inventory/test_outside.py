"""What an address says by itself."""

import ipaddress

from ringfence.inventory.outside import CLOUDS, KINDS, address_types, labels_of
from ringfence.model.address import Address, format_address, parse_address


def test_types_of_known_addresses() -> None:
    for text, types in {
        "10.1.2.3": "private", "172.31.255.255": "private", "172.32.0.0": "public",
        "192.168.0.1": "private", "100.64.0.1": "private", "fd12::1": "private",
        "8.8.8.8": "public", "2001:db8::1": "public", "2606:4700::1": "public",
        "169.254.1.1": "link-local", "fe80::1": "link-local",
        "169.254.169.254": "cloud-metadata,link-local", "fd00:ec2::254": "cloud-metadata,private",
        "100.100.100.200": "cloud-metadata,private", "168.63.129.16": "cloud-metadata,public",
        "127.0.0.53": "loopback", "::1": "loopback", "224.0.0.251": "multicast",
        "ff02::fb": "multicast", "255.255.255.255": "broadcast", "0.0.0.0": "unspecified",
        "::": "unspecified",
    }.items():  # fmt: skip
        assert ",".join(address_types(parse_address(text))) == types, text
        assert labels_of(None, parse_address(text), api_server=False)["address.type"]


def test_python_knows_the_same_private_and_loopback_addresses() -> None:
    """The standard library's tables, where they mean the same."""
    networks = [*CLOUDS, *(one for networks in KINDS.values() for one in networks)]
    edges = {edge for one in networks for edge in (one.first, one.last, one.last + 1)}
    for address in (Address(edge.to_bytes(16)) for edge in edges if edge < 1 << 128):
        types, read = address_types(address), ipaddress.ip_address(format_address(address))
        assert ("multicast" in types) == read.is_multicast
        assert ("loopback" in types) == read.is_loopback
        assert ("link-local" in types) == read.is_link_local
        assert "private" not in types or not read.is_global
