"""Golden tests: `pytest tests/golden --update` writes what is expected anew; read the diff."""

from collections.abc import Callable
from pathlib import Path

import pytest

Golden = Callable[[str, str], None]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update", action="store_true", help="rewrite the expected files")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Golden:
    """Compare a text with the file of that name in the folder `expected` beside the test."""

    def compare(name: str, text: str) -> None:
        expected: Path = request.path.parent / "expected" / name
        if request.config.getoption("--update"):
            expected.parent.mkdir(exist_ok=True)
            expected.write_text(text)
        assert text == expected.read_text()

    return compare
