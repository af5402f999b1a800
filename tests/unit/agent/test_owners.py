"""Sockets of namespaces, before anybody's connections are held against them."""

import numpy as np
import pytest

from ringfence.agent.owners import _level, expand
from ringfence.kernel.processes import container_ids
from ringfence.kernel.sockets import SOCKET_DTYPE
from ringfence.model.address import format_address, parse_address
from ringfence.model.protocol import TCP

V4, V6, ID, OUTER = "10.0.0.1", "fd00::1", "0f" * 32, "a1" * 32


def test_a_wildcard_listens_on_each_address_of_its_family() -> None:
    bound = [("0.0.0.0", 80, True), ("::", 81, True), ("127.0.0.1", 5, True), ("::", 9, False)]
    table = np.zeros(len(bound), SOCKET_DTYPE)
    for row, (address, port, listens) in zip(table, bound, strict=True):
        row["protocol"], row["local_port"], row["listens"] = TCP, port, listens
        row["local"] = list(parse_address(address))
    found = expand(table, [parse_address(V4), parse_address(V6)])
    told = {(format_address(row["local"].tobytes()), int(row["local_port"])) for row in found}
    assert told == {(V4, 80), (V6, 81), ("127.0.0.1", 5), ("::", 9)}


def test_a_cgroup_names_containers_in_every_runtimes_way() -> None:
    slice_ = "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod12.slice"
    for line, ids in (
        (f"0::{slice_}/cri-containerd-{ID}.scope", (ID,)),
        (f"0::{slice_}/crio-{ID}.scope/container", (ID,)),
        (f"4:memory:/node1/kubepods/burstable/pod12/{ID}\n0::/", (ID,)),
        (f"0::/docker/{OUTER}/kubelet/kubepods/pod12/{ID}", (OUTER, ID)),
        ("0::/system.slice/sshd.service", ()),
        ("0::/\n", ()),
    ):
        assert container_ids(line) == ids


@pytest.mark.parametrize(
    ("wants", "level"),
    [([3, 40, 50], 8), ([20, 1, 1], 18), ([3, 9, 8], 9), ([9, 9, 9], 6), ([], 0)],
)
def test_of_twenty_places_who_wants_less_than_the_rest_gets_all(
    wants: list[int], level: int
) -> None:
    assert _level(wants, 20) == level
