"""The node's interfaces, listed and watched."""

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Callable

import pytest

from ringfence.kernel.capture import FlowCapture
from ringfence.kernel.errors import NetlinkError
from ringfence.kernel.interfaces import Interface, list_interfaces, netns_id, watch_interfaces
from ringfence.kernel.netlink import DUMP, exchange
from ringfence.model.address import parse_address
from tests.kernel.netns import Node, ip, namespace, node_with_pods


def listed(node: Node) -> dict[str, Interface]:
    found = node.call(list_interfaces)
    return {interface.name: interface for interface in found}


def test_a_veth_leads_to_its_pod_and_all_addresses_are_told() -> None:
    with node_with_pods(2) as node, namespace("stranger") as stranger:
        ip("-n", node.name, "link", "add", "br0", "type", "bridge")
        ip("-n", node.name, "addr", "add", "192.0.2.1/32", "dev", "veth1")
        found = listed(node)
        assert set(found) == {"lo", "veth1", "veth2", "br0"}
        assert (found["br0"].kind, found["br0"].up) == ("bridge", False)
        ids = set()
        for pod in node.pods:
            veth = found[pod.host_device]
            assert (veth.kind, veth.up, veth.ifindex) == ("veth", True, pod.host_ifindex)
            assert veth.peer_ifindex == pod.ifindex("eth0")
            here = node.call(lambda path=pod.path: netns_id(path))  # type: ignore[misc]
            assert here == veth.peer_netns_id is not None
            ids.add(here)
        assert len(ids) == 2
        assert found["veth1"].addresses == set(
            map(parse_address, ("10.99.1.1", "192.0.2.1", "fd00:99:1::1", "fe80::1"))
        )
        assert node.call(lambda: netns_id(stranger.path)) is None


@pytest.mark.parametrize(
    ("address", "in_network"),
    [
        ("192.0.2.1/24", True),
        ("192.0.2.1/24 valid_lft 1000 preferred_lft 1000", True),
        ("2001:db8::1/64", True),
        ("192.0.2.1/32", False),
        ("2001:db8::1/128", False),
        ("fe80::1/64", False),
        ("2001:db8::1/64 valid_lft 1000 preferred_lft 1000", False),
    ],
)
def test_an_interface_is_in_a_network_by_what_was_given_to_it(
    address: str, in_network: bool
) -> None:
    with node_with_pods(0) as node:
        link = ("-n", node.name, "link")
        ip(*link, "add", "v0", "type", "veth", "peer", "name", "v1")
        ip("-n", node.name, "addr", "add", *address.split(), "dev", "v0")
        found = listed(node)
    assert found["v0"].in_network == in_network
    assert not found["v1"].in_network


def test_a_name_of_any_bytes_can_be_told_and_captured(capture: FlowCapture) -> None:
    with node_with_pods(0) as node:
        ip("-n", node.name, "link", "add", os.fsdecode(b"x\xff"), "type", "bridge")
        device = listed(node)["x\ufffd"]
        node.call(lambda: capture.attach(device.ifindex))
        assert capture.attached == {device.ifindex}


async def follow(changes: list[Callable[[], object]]) -> list[dict[str, Interface]]:
    """The first answer, then the one that each change brings, within 2 seconds."""
    stream = watch_interfaces()
    answers = [{i.name: i for i in await anext(stream)}]
    for change in changes:
        await asyncio.to_thread(change)
        answers.append({i.name: i for i in await asyncio.wait_for(anext(stream), 2)})
    await stream.aclose()
    return answers


def test_arrivals_addresses_and_departures_are_noticed() -> None:
    with node_with_pods(0) as node:
        link = ("-n", node.name, "link")
        changes: list[Callable[[], object]] = [
            lambda: ip(*link, "add", "v0", "type", "veth", "peer", "name", "v1"),
            lambda: ip("-n", node.name, "addr", "add", "192.0.2.7/24", "dev", "v0"),
            lambda: ip(*link, "delete", "v0"),
        ]
        first, added, addressed, removed = node.call(lambda: asyncio.run(follow(changes)))
    assert set(first) == set(removed) == {"lo"}
    assert set(added) == {"lo", "v0", "v1"}
    assert added["v0"].peer_ifindex == added["v1"].ifindex
    assert added["v0"].peer_netns_id is None
    assert addressed["v0"].addresses == {parse_address("192.0.2.7")}


@pytest.mark.parametrize(("flags", "whole"), [(0x2, True), (0x2 | 0x10, False)])
def test_a_listing_that_a_change_came_in_between_is_refused(flags: int, whole: bool) -> None:
    """NLM_F_DUMP_INTR, which the kernel sets when it pleases, from a peer that we play."""
    ours, kernels = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, kernels:
        kernels.send(struct.pack("=IHHII4s", 20, 16, flags, 1, 0, b"link"))
        kernels.send(struct.pack("=IHHIIi", 20, 3, flags, 1, 0, 0))
        refused = contextlib.nullcontext() if whole else pytest.raises(NetlinkError, match="change")
        with refused:
            assert list(exchange(ours, 18, DUMP, b"", steady=True)) == [b"link"]
