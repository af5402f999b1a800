"""Filters over flows and drops on a real embedded ClickHouse, hostile values among them."""

import pytest

from ringfence.model.errors import InputError
from ringfence.model.query import parse
from ringfence.store.flows import FlowStore
from ringfence.store.flows.filter import OF_DROP, OF_HOP, Columns, Condition
from ringfence.store.flows.queries import denied, listed
from tests.integration.store.observed import WINDOW, insert, pod_to_service, revisions
from tests.integration.world import CARTS, DB, FRONT, Agent

FILTERS = [
    ("everything", True),
    ('consumer.kubernetes.label.name = "front-end"', True),
    ('provider.kubernetes.label.name = "front-end"', False),
    ('kubernetes.label.name = "front-end"', True),
    ('provider.kubernetes.label.name = "carts"', True),
    ('provider.kind = "service"', True),
    ('consumer.address = "10.1.1.2" and provider.address subnet "10.1.0.0/16"', True),
    ('address subnet "10.9.0.0/16"', False),
    ('address subnet "0.0.0.0/0" and not address subnet "::/0"', True),
    ("port = 80", True),
    ("port in (8080, 1)", True),
    ("port > 9000", False),
    ('protocol = "TCP" and method = "syn"', True),
    ('not protocol = "UDP" and bytes >= 900 and packets < 10', True),
    ('method in ("degree")', False),
    ("""kubernetes.label.name = "x') OR 1=1 --" """, False),
    ("""method = "syn') OR (1=1" """, False),
]


@pytest.mark.parametrize(("written", "found"), FILTERS)
async def test_filters(store: FlowStore, written: str, found: bool) -> None:
    await insert(store, *pod_to_service(CARTS))

    condition = Condition(parse(written), revisions, OF_HOP)
    rows = await store.query(
        listed(condition.sql, "last_ns"), WINDOW | condition.parameters | {"limit": 10}
    )
    assert len(rows) == (2 if found else 0), "a connection comes with all its hops, or not at all"


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("everything", True),
        ('consumer.kubernetes.label.name = "front-end" and address = "10.1.2.4"', True),
        ('provider.kubernetes.label.name = "front-end"', False),
        ('protocol = "TCP" and port = 3306', True),
        ("port = 80", False),
        ("packets = 3", False),
        ("packets > 5", True),  # all reports together
    ],
)
async def test_filters_of_drops(store: FlowStore, written: str, found: bool) -> None:
    one, two = Agent("node2"), Agent("node2")
    for agent in (one, two):
        agent.dropped(FRONT, (DB, 3306))
    await insert(store, one, two)
    condition = Condition(parse(written), revisions, OF_DROP)
    rows = await store.query(denied(condition.sql), WINDOW | condition.parameters | {"limit": 10})
    assert rows["packets"].to_pylist() == [6] * found


@pytest.mark.parametrize(
    ("columns", "written"),
    [
        (OF_HOP, 'port contains "8"'),
        (OF_HOP, "disposition > 1"),
        (OF_HOP, 'not disposition = "gone"'),
        (OF_HOP, "method > 1"),
        (OF_HOP, 'connection = "12"'),
        (OF_DROP, 'connection = "0123456789abcdef"'),
        (OF_DROP, "bytes > 1"),
        (OF_DROP, 'port = 1 or method = "syn"'),
        (OF_DROP, 'disposition = "dropped"'),
    ],
)
def test_filters_that_mean_nothing_are_refused(columns: Columns, written: str) -> None:
    with pytest.raises(InputError):
        Condition(parse(written), lambda _: [], columns, {} if columns is OF_HOP else None)
