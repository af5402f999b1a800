"""Kernel tests: real namespaces, real packets, as root."""

import os
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from ringfence.agent.mechanisms import MECHANISMS, Mechanism
from ringfence.kernel.bpf import object_path
from ringfence.kernel.capture import FlowCapture
from tests.footprint import assert_nothing_stays, of_session
from tests.kernel.netns import SESSION
from tests.kernel.world import World, world_in

ROOT = Path(__file__).parents[2]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.kernel)


@pytest.fixture(scope="session", autouse=True)
def _prepared() -> None:
    if os.geteuid() != 0:
        pytest.exit("the kernel tests make network namespaces: run them as root", returncode=1)
    subprocess.run(["make", "-s", "-C", ROOT / "bpf"], check=True)


@pytest.fixture(scope="session", autouse=True)
def _nothing_stays(_prepared: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Whatever the tests made is gone in the end, whether they passed or not."""
    os.environ["RINGFENCE_TEST_SESSION"] = SESSION  # every process that a test starts inherits it
    measure = partial(of_session, SESSION, tmp_path_factory.getbasetemp())
    before = measure()
    yield
    assert_nothing_stays(before, measure)


@pytest.fixture
def capture() -> Iterator[FlowCapture]:
    """An open capture, attached to nothing yet."""
    capture = FlowCapture(object_path("flow"))
    capture.open()
    yield capture
    capture.close()


@pytest.fixture(params=list(MECHANISMS))
def mechanism(request: pytest.FixtureRequest) -> Mechanism:
    """Each of the mechanisms that rules are written in."""
    return MECHANISMS[request.param]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Everything that an agent needs, without the agent."""
    with world_in(tmp_path) as made:
        yield made
