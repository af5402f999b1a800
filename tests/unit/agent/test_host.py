"""What the agent asks of its host, and what it makes of what the host says."""

import os
from pathlib import Path

import pytest

from ringfence.agent import host
from ringfence.agent.errors import HostError


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
