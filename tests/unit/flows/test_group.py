"""Sums by what ends were called, on columns as the store gives them."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pytest

from ringfence.flows.graph import draw
from ringfence.flows.group import (
    SUMS,
    GroupKey,
    group,
    needed,
    parse_end_keys,
    parse_group_keys,
    ranked,
)
from ringfence.model.address import parse_address
from ringfence.model.errors import InputError
from ringfence.model.flow import Sort
from ringfence.model.protocol import TCP, UDP
from tests.integration.world import node, pod

ITEMS = {
    1: pod("carts-1", "10.0.0.1", "n"),
    2: pod("carts-2", "10.0.0.2", "n"),
    3: node("n"),
    0: None,
}
OUTSIDE = "203.0.113.9"


def sums(*rows: tuple[Any, ...]) -> pa.Table:
    """From (consumer revision, provider revision, provider address, protocol, port, bytes)."""
    told = [
        {
            "consumer_revision": consumer,
            "consumer_address": parse_address("::" if consumer else OUTSIDE),
            "provider_revision": provider,
            "provider_address": parse_address(address),
            "protocol": protocol,
            "port": port,
            **dict.fromkeys(SUMS, 1),
            "forward_bytes": count,
            "first_ns": count,
            "last_ns": count,
        }
        for consumer, provider, address, protocol, port, count in rows
    ]
    kinds = {"consumer_revision": pa.uint64(), "provider_revision": pa.uint64()}
    kinds |= dict.fromkeys(("consumer_address", "provider_address"), pa.binary(16))
    kinds |= {"protocol": pa.uint8(), "port": pa.uint16()}
    kinds |= dict.fromkeys(SUMS, pa.uint64()) | dict.fromkeys(("first_ns", "last_ns"), pa.int64())
    return pa.Table.from_pylist(told, schema=pa.schema(list(kinds.items())))


ROWS = sums(
    (1, 3, "::", TCP, 80, 5),
    (2, 3, "::", TCP, 80, 7),
    (2, 0, OUTSIDE, UDP, 53, 100),
    (0, 2, "::", TCP, 80, 1),
)


def told(by: str) -> list[tuple[object, ...]]:
    keys = parse_group_keys(by)
    rows = ranked(group(ROWS, keys, ITEMS), Sort.BYTES, 10).to_pylist()
    return [(*(row[str(key)] for key in keys), row["forward_bytes"]) for row in rows]


def test_replicas_are_one_workload() -> None:
    assert told("consumer.workload") == [("sock-shop/carts", 112), (None, 1)]
    assert told("Consumer.name, protocol") == [
        ("carts-2", "UDP", 100),
        ("carts-2", "TCP", 7),
        ("carts-1", "TCP", 5),
        (None, "TCP", 1),
    ]


def test_no_label_no_item_and_an_empty_label_differ() -> None:
    empty = {**ITEMS, 1: None, 3: pod("a-1", "10.0.0.3", "n")}
    empty[3].labels["kubernetes.label.app"] = ("",)  # type: ignore[index, union-attr]
    keys = parse_group_keys("provider.kubernetes.label.app")
    rows = group(ROWS, keys, empty).to_pylist()
    seen = {(row["provider.kubernetes.label.app"], row["provider outside"]) for row in rows}
    assert seen == {("", None), (None, OUTSIDE), (None, None)}


def test_times_span_the_group() -> None:
    (row,) = (
        group(ROWS, parse_group_keys("provider.kubernetes.cluster,port"), ITEMS)
        .slice(0, 1)
        .to_pylist()
    )
    assert (row["first_ns"], row["last_ns"], row["connections"]) == (1, 7, 3)


@pytest.mark.parametrize(
    ("by", "said"),
    [
        ("", "there is no key ''"),
        ("workload", "did you mean dialled.workload"),
        ("consumer.kubernetes.labels.app", "did you mean consumer.kubernetes.label.app?"),
        ("prot", "did you mean port?"),
        ("consumer.port", "there is no key"),
    ],
)
def test_keys_that_mean_nothing_are_refused(by: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_group_keys(by)
    assert said in str(caught.value)


def test_addresses_are_asked_for_where_they_tell_something() -> None:
    keys = (GroupKey("consumer", "workload"), GroupKey("provider", "address"), GroupKey("", "port"))
    apart = needed(keys, merge_outside=False)
    assert apart.columns == [
        "consumer_revision", "consumer_address", "provider_revision", "provider_address", "port"
    ]  # fmt: skip
    assert apart.whole_addresses == {"provider_address"}
    assert "consumer_address" not in needed(keys, merge_outside=True).columns


def drawn(rows: pa.Table, labels: Sequence[str], limit: int = 10) -> Any:
    keys = [GroupKey(end, label) for end in ("consumer", "provider") for label in labels]
    keys += [GroupKey("", "protocol"), GroupKey("", "port")]
    return draw(group(rows, keys, ITEMS), labels, Sort.BYTES, limit)


def test_a_graph_joins_the_same_node_at_both_ends() -> None:
    graph = drawn(ROWS, parse_end_keys("kubernetes.cluster,workload"))
    names = [node.outside or node.group["workload"] for node in graph.nodes]
    assert names == ["sock-shop/carts", OUTSIDE, "n"]
    assert [(edge.consumer, edge.provider, edge.sums["forward_bytes"]) for edge in graph.edges] == [
        (0, 1, 100),
        (0, 2, 12),
        (1, 0, 1),
    ]
    assert [[(port["protocol"], port["port"]) for port in edge.ports] for edge in graph.edges] == [
        [("UDP", 53)],
        [("TCP", 80)],
        [("TCP", 80)],
    ]


def test_a_scan_of_ports_stays_one_edge_with_its_greatest_ports() -> None:
    scan = sums(
        *((1, 3, "::", TCP, port, port) for port in range(1, 1001)), (1, 2, "::", UDP, 53, 1)
    )
    first, second = drawn(scan, ("name",)).edges
    assert first.total_ports == 1000
    assert [port["port"] for port in first.ports] == list(range(1000, 990, -1))
    assert (second.total_ports, second.ports[0]["port"]) == (1, 53)
    limited = drawn(scan, ("name",), limit=1)
    assert (limited.total, len(limited.edges), len(limited.nodes)) == (2, 1, 2)


def test_no_flows_make_no_graph() -> None:
    assert drawn(sums(), ("workload",)).nodes == []
    assert len(group(sums(), parse_group_keys("consumer.workload,port"), {})) == 0
