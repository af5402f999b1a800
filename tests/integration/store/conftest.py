"""Real stores: SQLite and PostgreSQL for what people decide, chDB for what agents observe."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from operator import methodcaller
from pathlib import Path

import pytest

from ringfence.store.flows import FlowStore, FlowStoreConfig
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
    """One for all tests of a file: opening the embedded engine is what takes time."""
    store = FlowStore(FlowStoreConfig(tmp_path_factory.mktemp("stores") / "flows"))
    asyncio.run(store.start())
    yield store
    asyncio.run(store.stop())


@pytest.fixture
async def store(opened: FlowStore) -> FlowStore:
    """An empty store of flows."""
    for table in ("flows", "drops", "batches", "flows_hourly", "drops_hourly"):
        await opened._run(opened._writer, methodcaller("command", f"TRUNCATE TABLE {table}"))
    return opened
