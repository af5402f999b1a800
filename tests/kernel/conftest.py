"""Kernel tests: real namespaces, real packets, as root."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ringfence.kernel.bpf import object_path
from ringfence.kernel.capture import FlowCapture

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


@pytest.fixture
def capture() -> Iterator[FlowCapture]:
    """An open capture, attached to nothing yet."""
    capture = FlowCapture(object_path("flow"))
    capture.open()
    yield capture
    capture.close()
