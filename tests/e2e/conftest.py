"""End-to-end tests share one lab, which they start and take away."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ringfence.lab.processes import Process
from tests.e2e.cluster import COMMAND, Lab, ringfence, until
from tests.footprint import Footprint, assert_nothing_stays, of_host

_STATE = Path("/run/ringfence-lab/state.json")
# Before there are agents, who would see what the lab's own tests do; then the shop as it is alone.
# At the end, for its lab takes the place of the one that the others share.
_ORDER = {"test_lab.py": -2, "test_main_job.py": -1, "test_overlay.py": 1}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.e2e)
            item.add_marker(pytest.mark.timeout(300))
    items.sort(key=lambda item: _ORDER.get(item.path.name, 0))


@pytest.fixture(scope="session")
def clean_host() -> Footprint:
    """What is on the host while there is no lab."""
    if os.geteuid() != 0:
        pytest.exit("the end-to-end tests start a cluster: run them as root", returncode=1)
    ringfence("lab", "down", "--all")
    return of_host()


@pytest.fixture(scope="session")
def killed_lab(clean_host: Footprint) -> list[Process]:
    """Processes of a lab whose `up` was killed while nodes were starting."""
    with subprocess.Popen([COMMAND, "lab", "up", "--bare"], stderr=subprocess.DEVNULL) as command:
        until("a kubelet runs", _has_kubelet, 120)
        command.kill()
    return _processes()


def _has_kubelet() -> bool:
    return any(process.name.endswith("/kubelet") for process in _processes())


def _processes() -> list[Process]:
    """Those that the lab has recorded."""
    recorded = json.loads(_STATE.read_text())["processes"] if _STATE.exists() else []
    return [Process(**p) for p in recorded]


@pytest.fixture(scope="session")
def lab(clean_host: Footprint, killed_lab: list[Process]) -> Iterator[Lab]:
    """The lab with its shop, started over the remains of a killed one.

    In the end it must leave nothing on the host.
    """
    try:
        assert any(p.alive for p in killed_lab)
        ringfence("lab", "up")
        yield Lab()
    finally:
        ringfence("lab", "down", "--all")
    assert_nothing_stays(clean_host, of_host)


@pytest.fixture(scope="session")
def installed(lab: Lab) -> Lab:
    """The lab with Ringfence in it."""
    ringfence("lab", "install")
    return lab
