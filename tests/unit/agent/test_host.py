"""What the agent asks of its host, and what it makes of what the host says."""

import os
from pathlib import Path

import pytest

from ringfence.agent import host
from ringfence.agent.capture import expand
from ringfence.agent.errors import HostError
from ringfence.kernel.sockets import Listener
from ringfence.model.address import V4_MAPPED, Address, parse_address
from ringfence.model.protocol import TCP


@pytest.mark.parametrize(
    ("effective", "missing"),
    [
        ("000001ffffffffff", []),
        ("000000c000201000", []),
        ("0000008000201000", ["PERFMON"]),
        ("0000000000001000", ["SYS_ADMIN", "PERFMON", "BPF"]),
    ],
)
def test_missing_capabilities_are_named(effective: str, missing: list[str]) -> None:
    status = f"Name:\tpython\nCapPrm:\tffffffffffffffff\nCapEff:\t{effective}\n"
    assert host.missing_capabilities(status) == missing


def test_the_lock_keeps_a_second_agent_out(tmp_path: Path) -> None:
    held = host.lock(tmp_path)
    with pytest.raises(HostError, match="another agent"):
        host.lock(tmp_path)
    os.close(held)
    os.close(host.lock(tmp_path))


def test_a_wildcard_listens_on_each_address_of_its_family() -> None:
    v4, v6 = parse_address("10.0.0.1"), parse_address("fd00::1")
    any_v4, any_v6 = Address(V4_MAPPED + bytes(4)), Address(bytes(16))
    exact = Listener(TCP, parse_address("127.0.0.1"), 5)
    assert expand([Listener(TCP, any_v4, 80), Listener(TCP, any_v6, 81), exact], [v4, v6]) == {
        Listener(TCP, v4, 80),
        Listener(TCP, v6, 81),
        exact,
    }
