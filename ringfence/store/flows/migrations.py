"""Brings a flow store to today's schema: versions, missing columns, changed retention.

A table of an older version is copied into one of today's layout, which then takes its place at
once; its comment, which says the version, comes with it. Whatever is cut short is done again from
its start, and finds all rows where they were. The copy does not know again what was inserted into
the older table, so an insertion in progress is finished before.
"""

# ruff: noqa: S608 -- only names of tables and columns of our own are put together

from collections.abc import Callable, Iterable
from typing import Any

from ringfence.store.errors import StoreError
from ringfence.store.flows.ddl import COMMENT, Ddl
from ringfence.store.flows.tables import Retention, Table, roll_ups, tables

VERSION = 4
"""1 had rows in order of time, no roll-ups, and no version in the comment; 2 did not tell when the
window of a row ended; 3 had the hours and days of the server's time zone, and those hours stay."""
_NEXT = "_next"


def prepare(client: Any, retention: Retention, cluster: str, finish: Callable[[Any], None]) -> None:
    """Make what is missing and change what differs; raises StoreError if the store is newer.

    `finish` is to insert what was cut short, and is called before older tables are copied.
    """
    ddl = Ddl(cluster, VERSION)
    versions = _versions(client)
    newest = max(versions.values(), default=VERSION)
    if newest > VERSION:
        raise StoreError(
            f"the flow store has schema {newest}, this program knows {VERSION}: "
            "run the release that wrote it, or a later one"
        )
    rolled = roll_ups(retention)
    every = [*tables(retention), *(roll_up.table for roll_up in rolled)]
    older = [table for table in every if versions.get(ddl.stored(table.name), VERSION) < VERSION]
    if older:
        _run(client, _views_anew(client, ddl))
        finish(client)
        for roll_up in rolled:
            _run(client, ddl.drop_view(roll_up))
    for table in older:
        kept = [name for name in _columns(client, table.name) if name in _inserted(table)]
        names = ", ".join(kept)
        _take_in(client, ddl, table, names, f"SELECT {names} FROM {table.name}", taken=True)
    for table in tables(retention):
        _adapt(client, ddl, table)
    for roll_up in rolled:
        # In a new store there are no rows to add up.
        if versions and ddl.stored(roll_up.table.name) not in versions:
            rows = roll_up.select.format(source=roll_up.source)
            names = ", ".join(_inserted(roll_up.table))
            _take_in(client, ddl, roll_up.table, names, rows, taken=False)
        _adapt(client, ddl, roll_up.table)
        _run(client, ddl.view(roll_up))


def _versions(client: Any) -> dict[str, int]:
    """The version of every table."""
    found = client.query(
        "SELECT name, comment FROM system.tables WHERE database = currentDatabase()"
    ).result_rows
    return {
        name: int(comment.removeprefix(COMMENT)) if comment.startswith(COMMENT) else 1
        for name, comment in found
    }


def _views_anew(client: Any, ddl: Ddl) -> Iterable[str]:
    """Have each roll-up follow its source by the rule it has, told anew.

    ClickHouse knows what a view wrote after MODIFY QUERY only from one that was told so again,
    not from one that is as loaded from disk.
    """
    views = client.query(
        "SELECT name, as_select FROM system.tables"
        " WHERE database = currentDatabase() AND endsWith(name, '_to_hourly')"
    ).result_rows
    return [ddl.modify_query(name, select) for name, select in views]


def _take_in(client: Any, ddl: Ddl, table: Table, names: str, rows: str, *, taken: bool) -> None:
    """Make a table of these rows alone; `taken` if there is one of its name already."""
    _run(client, ddl.drop(table, _NEXT))
    _run(client, ddl.create(table, _NEXT))
    client.command(f"INSERT INTO {table.name}{_NEXT} ({names}) {rows}")
    _run(client, ddl.take_place(table, _NEXT, taken=taken))
    _run(client, ddl.drop(table, _NEXT))


def _adapt(client: Any, ddl: Ddl, table: Table) -> None:
    """Make what is missing of a table, keep rows for as long as they are to be, and tune."""
    _run(client, ddl.drop(table, _NEXT))  # which a copy that was cut short may have left
    _run(client, ddl.create(table))
    known = _columns(client, ddl.stored(table.name))
    for column in table.columns:
        if column not in known:
            _run(client, ddl.add_column(table, column))
    (engine,) = client.query(
        "SELECT engine_full FROM system.tables"
        " WHERE database = currentDatabase() AND name = {name:String}",
        parameters={"name": ddl.stored(table.name)},
    ).first_row
    if f" TTL {table.ttl} " not in engine:
        _run(client, ddl.modify_ttl(table))
    _run(client, ddl.modify_settings(table, engine))


def _columns(client: Any, table: str) -> list[str]:
    found = client.query(
        "SELECT name FROM system.columns"
        " WHERE database = currentDatabase() AND table = {table:String} ORDER BY position",
        parameters={"table": table},
    ).result_rows
    return [name for (name,) in found]


def _inserted(table: Table) -> list[str]:
    """The columns that are not computed."""
    computed = {"MATERIALIZED", "ALIAS"}
    return [name for name, kind in table.columns.items() if computed.isdisjoint(kind.split())]


def _run(client: Any, statements: Iterable[str]) -> None:
    for statement in statements:
        client.command(statement)
