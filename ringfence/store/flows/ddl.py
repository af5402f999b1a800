"""The statements that make and change tables, on one server or over a ClickHouse cluster.

On a cluster a table `flows` is `Distributed` over `flows_local`, which every shard has, replicated.
A node's rows stay together on one shard, so that an insertion that is tried again is split as
before, and each shard knows its piece again.
"""

import re

from ringfence.store.errors import StoreError
from ringfence.store.flows.tables import RollUp, Table

_REMEMBERED_INSERTIONS = 10_000
"""Blocks whose tokens a table remembers: one that comes again within these is a duplicate."""
_SETTINGS = (
    # Every column of a part that is being written has a buffer of this size, four times it by
    # default. A session's setting of that name would not hold: the table's goes before it.
    f"max_compress_block_size = {256 << 10}",
    # Counted anew in every merge, a fifth of its price, and no question of ours is planned by them.
    "auto_statistics_types = ''",
    # Merging is most of what a row costs: fewer, wider merges rewrite it less often.
    "min_parts_to_merge_at_once = 8",
)
"""Of every table; a ClickHouse server must know them, as 26.9 does."""
COMMENT = "schema "
"""What a table's comment says its version after."""
_SHARD = "sipHash64(tenant, kubernetes_cluster, node)"


class Ddl:
    """Writes statements; `cluster` is the ClickHouse cluster's name, empty for a single server.

    Each table says in its comment which `version` of the schema it is of.
    """

    def __init__(self, cluster: str, version: int) -> None:
        if cluster and not re.fullmatch(r"[\w.-]+", cluster, re.ASCII):
            raise StoreError(f"{cluster!r} cannot be the name of a ClickHouse cluster")
        self._cluster, self._version = cluster, version
        self._on = f" ON CLUSTER '{cluster}'" if cluster else ""

    def stored(self, name: str) -> str:
        """The table that holds the rows of the table of that name."""
        return f"{name}_local" if self._cluster else name

    def create(self, table: Table, suffix: str = "") -> list[str]:
        """Make a table where there is none; with a suffix, one beside it that is alike.

        A `Distributed` table has no rows, and is made anew: its columns are to be the stored ones.
        """
        name, stored = table.name + suffix, self.stored(table.name + suffix)
        columns = ",\n".join(f"    {column} {kind}" for column, kind in table.columns.items())
        replicated, window = ("Replicated", "") if self._cluster else ("", "non_")
        made = f"""CREATE TABLE IF NOT EXISTS {stored}{self._on} (
{columns}
)
ENGINE = {replicated}{table.merging}MergeTree ORDER BY ({table.order})
PARTITION BY {table.partition}
TTL {table.ttl}
SETTINGS {window}replicated_deduplication_window = {_REMEMBERED_INSERTIONS}, \
ttl_only_drop_parts = 1, {", ".join(_SETTINGS)}
COMMENT '{COMMENT}{self._version}'"""
        if not self._cluster:
            return [made]
        over = f"""CREATE OR REPLACE TABLE {name}{self._on} AS {stored}
ENGINE = Distributed('{self._cluster}', currentDatabase(), {stored}, {_SHARD})"""
        return [made, over]

    def drop(self, table: Table, suffix: str = "") -> list[str]:
        """Take a table away, rows and all."""
        name = table.name + suffix
        return [
            f"DROP TABLE IF EXISTS {one}{self._on} SYNC SETTINGS max_table_size_to_drop = 0"
            for one in dict.fromkeys([name, self.stored(name)])
        ]

    def take_place(self, table: Table, suffix: str, *, taken: bool) -> list[str]:
        """Have the rows beside a table be its own, at once; `taken` if it has some already."""
        own, other = self.stored(table.name), self.stored(table.name + suffix)
        if taken:
            return [f"EXCHANGE TABLES {own} AND {other}{self._on}"]
        return [f"RENAME TABLE {other} TO {own}{self._on}"]

    def add_column(self, table: Table, column: str) -> list[str]:
        """Give a table a column that it lacks."""
        kind = table.columns[column]
        return [
            f"ALTER TABLE {one}{self._on} ADD COLUMN IF NOT EXISTS {column} {kind}"
            for one in dict.fromkeys([self.stored(table.name), table.name])
        ]

    def modify_ttl(self, table: Table) -> list[str]:
        """Have rows go at another age, those that are there as well."""
        return [f"ALTER TABLE {self.stored(table.name)}{self._on} MODIFY TTL {table.ttl}"]

    def modify_settings(self, table: Table, engine: str) -> list[str]:
        """Have a table of this engine, as ClickHouse writes it out, work with today's settings."""
        lacking = [setting for setting in _SETTINGS if f" {setting}" not in engine]
        altered = f"ALTER TABLE {self.stored(table.name)}{self._on} MODIFY SETTING "
        return [altered + ", ".join(lacking)] if lacking else []

    def view(self, roll_up: RollUp) -> list[str]:
        """Have a roll-up follow its source from now on, by today's rule."""
        name, into = f"{roll_up.source}_to_hourly", self.stored(roll_up.table.name)
        select = roll_up.select.format(source=self.stored(roll_up.source))
        return [
            f"CREATE MATERIALIZED VIEW IF NOT EXISTS {name}{self._on} TO {into} AS {select}",
            self.modify_query(name, select),
        ]

    def modify_query(self, view: str, select: str) -> str:
        """Have a view fill its table by another rule."""
        return f"ALTER TABLE {view}{self._on} MODIFY QUERY {select}"

    def drop_view(self, roll_up: RollUp) -> list[str]:
        """Have a roll-up follow its source no longer."""
        return [f"DROP VIEW IF EXISTS {roll_up.source}_to_hourly{self._on} SYNC"]
