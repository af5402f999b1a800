"""What an address says by itself."""

import ipaddress
from dataclasses import replace

from ringfence.inventory.as_known import FOREVER
from ringfence.inventory.outside import (
    KINDS,
    MOST_API_SERVERS,
    ApiServer,
    address_types,
    labels_of,
)
from ringfence.inventory.timeline import Timeline
from ringfence.model.address import Address, format_address, parse_address
from ringfence.model.ids import item_key
from ringfence.model.protocol import TCP
from ringfence.model.workload import Item, ItemKind, ServicePort
from tests.integration.world import CLUSTER, service


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
    networks = [one for networks in KINDS.values() for one in networks]
    edges = {edge for one in networks for edge in (one.first, one.last, one.last + 1)}
    for address in (Address(edge.to_bytes(16)) for edge in edges if edge < 1 << 128):
        types, read = address_types(address), ipaddress.ip_address(format_address(address))
        assert ("multicast" in types) == read.is_multicast
        assert ("loopback" in types) == read.is_loopback
        assert ("link-local" in types) == read.is_link_local
        assert "private" not in types or not read.is_global


def api_service(*addresses: str) -> Item:
    port = ServicePort("https", TCP, 443)
    made = service("kubernetes", "10.96.0.1", port, *((one, 6443) for one in addresses))
    return replace(made, namespace="default")


def test_api_servers_are_told_by_their_times() -> None:
    timeline, (one, two) = Timeline(), ("192.0.2.50", "192.0.2.51")
    timeline.observe(10, api_service(one))
    timeline.observe(20, replace(api_service(one), labels={"changed": ("yes",)}))
    timeline.observe(30, api_service(two))
    other = item_key(CLUSTER, ItemKind.SERVICE, "other")
    timeline.observe(40, replace(api_service("8.8.8.8"), key=other, namespace="shop"))
    at = {
        ApiServer(CLUSTER, parse_address(one), 10, 30),
        ApiServer(CLUSTER, parse_address(two), 30, FOREVER),
    }
    assert {*timeline.api_servers().known} == at, "the same of another namespace is none"
    timeline.gone(50, api_service(two).key)
    assert timeline.api_servers().answered(CLUSTER, parse_address(two), 49)
    assert not timeline.api_servers().answered(CLUSTER, parse_address(two), 50)


def test_a_connector_cannot_make_up_any_number_of_api_servers() -> None:
    timeline = Timeline()
    timeline.observe(10, api_service(*(f"10.0.{n >> 8}.{n & 255}" for n in range(1000))))
    assert len(timeline.api_servers().known) == MOST_API_SERVERS
