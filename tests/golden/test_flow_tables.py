"""The flow store's tables as ClickHouse is told of them, embedded and on a cluster."""

import pytest

from ringfence.store.flows.ddl import Ddl
from ringfence.store.flows.migrations import VERSION
from ringfence.store.flows.tables import Retention, roll_ups, tables
from tests.golden.conftest import Golden


@pytest.mark.parametrize(("cluster", "name"), [("", "embedded"), ("flows-prod", "cluster")])
def test_tables(golden: Golden, cluster: str, name: str) -> None:
    ddl, retention = Ddl(cluster, VERSION), Retention()
    statements = [one for table in tables(retention) for one in ddl.create(table)]
    for roll_up in roll_ups(retention):
        statements += ddl.create(roll_up.table) + ddl.view(roll_up)
    flows = tables(retention)[0]
    statements += [
        *ddl.modify_ttl(flows),
        *ddl.add_column(flows, "opened"),
        *ddl.take_place(flows, "_next", taken=True),
        *ddl.take_place(flows, "_next", taken=False),
        *ddl.drop(flows, "_next"),
    ]
    golden(f"flow-tables-{name}.sql", ";\n\n".join(statements) + ";\n")
