"""Real stores: relational ones, SQLite and PostgreSQL, and the embedded flow store."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from operator import methodcaller
from pathlib import Path

import pytest

from ringfence.store.flows.store import FlowStore, embedded
from ringfence.store.relational.database import Database


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database; each test runs on both."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'control.db'}"
    return str(request.getfixturevalue("postgresql_url"))


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    """A database with today's schema."""
    made = Database(url)
    await made.start()
    yield made
    await made.stop()


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlowStore]:
    """One for all tests of a module: opening the embedded engine is what takes time."""
    store = FlowStore(embedded(tmp_path_factory.mktemp("flows")))
    asyncio.run(store.start())
    yield store
    asyncio.run(store.stop())


@pytest.fixture
async def store(opened: FlowStore) -> FlowStore:
    """The flow store, empty."""
    for table in ("flows", "drops", "batches"):
        await opened._run(methodcaller("command", f"TRUNCATE TABLE {table}"))
    return opened
