"""The door to the relational database: connections, transactions and the schema's upgrade."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from ringfence.store.errors import StaleError, StoreError

_DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg"}
_WAIT_SECONDS = 60.0
"""How long one writer waits for another."""
_WRITERS = 0x72696E6766656E63
"""The key of the advisory lock that writers hold: an application chooses one of its own."""


class Database:
    """One relational database; `url` is `sqlite:///FILE` or `postgresql://USER@HOST/NAME`."""

    def __init__(self, url: str) -> None:
        try:
            parsed = make_url(url)
        except (ArgumentError, ValueError):
            # Neither the URL nor the cause is told: there may be a password in both.
            raise StoreError(
                "the database URL cannot be read: write postgresql://USER:PASSWORD@HOST/NAME, "
                "with %40, %2F and %3A for @, / and : in the password"
            ) from None
        if parsed.drivername not in _DRIVERS:
            kinds = " or ".join(_DRIVERS)
            raise StoreError(f"a database of kind {parsed.drivername!r}: use {kinds}")
        self._url = parsed.set(drivername=_DRIVERS[parsed.drivername])
        self._engine: AsyncEngine | None = None
        self._writers = asyncio.Lock()

    async def start(self) -> None:
        """Connect and bring the schema up to date; raises StoreError."""
        sqlite = self._url.get_backend_name() == "sqlite"
        engine = create_async_engine(
            self._url,
            pool_pre_ping=True,
            connect_args={"timeout": _WAIT_SECONDS} if sqlite else {},
        )
        if sqlite:
            _touch(Path(self._url.database or ""))
            event.listen(engine.sync_engine, "connect", _prepare_sqlite)
            event.listen(engine.sync_engine, "begin", _begin_sqlite)
        else:
            event.listen(engine.sync_engine, "begin", _begin_postgresql)
        self._engine = engine
        try:
            async with engine.connect() as connection:
                await connection.execution_options(writes=True)
                await connection.run_sync(upgrade)
                await connection.commit()
        except (OSError, SQLAlchemyError) as error:
            await self.stop()
            # Options after the question mark may hold a password as well.
            where = self._url.set(query={}).render_as_string(hide_password=True)
            raise StoreError(
                f"the database {where} cannot be used: {_reason(error)}; "
                "check that it runs and that the user may log in and create tables"
            ) from error

    async def stop(self) -> None:
        """Close every connection."""
        if self._engine is not None:
            await self._engine.dispose()
            self._engine = None

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """One transaction that only reads, all of it as of one instant."""
        async with self._connect(writes=False) as connection:
            yield connection

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """One transaction, committed if the block ends well; raises StaleError on a collision.

        One writer at a time: what it decides from what it reads still holds when it writes. Those
        that wait hold no connection, which readers need. Raises StoreError where it takes too long.
        """
        try:
            await asyncio.wait_for(self._writers.acquire(), _WAIT_SECONDS)
        except TimeoutError as error:
            raise StoreError("the database is busy with other changes; try again") from error
        try:
            async with self._connect(writes=True) as connection:
                try:
                    yield connection
                    await connection.commit()
                except IntegrityError as error:
                    reason = "this was changed by somebody else just now; try again"
                    raise StaleError(reason) from error
        finally:
            self._writers.release()

    @asynccontextmanager
    async def _connect(self, *, writes: bool) -> AsyncIterator[AsyncConnection]:
        if self._engine is None:
            raise StoreError("the database is not started")
        try:
            async with self._engine.connect() as connection:
                yield await connection.execution_options(writes=writes)
        except (SQLAlchemyError, OSError) as error:
            raise StoreError(f"the database failed: {_reason(error)}") from error


def upgrade(connection: Connection) -> None:
    """Run the migrations that the database has not seen."""
    config = Config()
    config.set_main_option(
        "script_location", str(files("ringfence.store.relational") / "migrations")
    )
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _touch(file: Path) -> None:
    """Find out that a file cannot be used before the driver does, which then leaves a thread."""
    try:
        file.open("ab").close()
    except OSError as error:
        raise StoreError(f"the database {file} cannot be used: {error.strerror}") from error


def _prepare_sqlite(connection: Any, _: object) -> None:
    connection.isolation_level = None  # or the driver would begin transactions of its own
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    """A writer takes the write lock at once: it waits for another, and never loses to it later."""
    writes = connection.get_execution_options().get("writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _begin_postgresql(connection: Connection) -> None:
    """The same: a writer waits for the lock, and each of its statements sees what came before.

    Under REPEATABLE READ it would see what was there before it waited. That is for readers.
    """
    if connection.get_execution_options().get("writes"):
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = {round(_WAIT_SECONDS * 1000)}")
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_WRITERS})")
    else:
        connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")


def _reason(error: Exception) -> str:
    cause = error.orig if isinstance(error, DBAPIError) and error.orig else error
    return str(cause).strip() or type(cause).__name__
