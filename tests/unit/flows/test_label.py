"""Rows of several agents, labelled together."""

import numpy as np
import pyarrow as pa

from ringfence.flows.label import Agents, Rank, label_flows
from ringfence.inventory.timeline import Timeline
from ringfence.model.address import parse_address
from ringfence.model.flow import Observer
from ringfence.model.ids import ClusterId, item_key
from ringfence.model.workload import Item, ItemKind
from ringfence.wire import batch

EAST, WEST = ClusterId("east"), ClusterId("west")
POD, OTHER = parse_address("10.1.0.2"), parse_address("203.0.113.9")


def test_each_row_is_placed_by_the_agent_that_reported_it() -> None:
    """Kubernetes clusters have nodes of the same name, and may use the same addresses."""
    timeline = Timeline()
    key = item_key(EAST, ItemKind.POD, "a")
    timeline.observe(1, Item(key, ItemKind.POD, EAST, "shop", "a", (POD,), {}, "node1"))
    row = {field.name: 0 for field in batch.FLOWS} | {
        "observer": Observer.POD, "consumer": POD, "provider": OTHER, "method": "syn",
        "provider_dns_name": "",
        "original_consumer": bytes(16), "original_provider": bytes(16),
        "tunnel_consumer": bytes(16), "tunnel_provider": bytes(16),
        "first_ns": 2, "last_ns": 3,
    }  # fmt: skip
    flows = pa.Table.from_pylist([row] * 4, schema=batch.FLOWS)
    agents = Agents(
        [("t", EAST, "node1"), ("t", EAST, "node2"), ("t", WEST, "node1")], np.array([0, 1, 2, 0])
    )
    labelled = {
        name: list(column.tolist()) for name, column in label_flows(flows, timeline, agents).items()
    }
    assert labelled["kubernetes_cluster"] == ["east", "east", "west", "east"]
    assert labelled["node"] == ["node1", "node2", "node1", "node1"]
    assert labelled["consumer_item"] == [key] * 4
    assert labelled["provider_item"] == [""] * 4
    assert labelled["consumer_node"] == ["node1", "node1", "", "node1"]
    elsewhere = Rank.ELSEWHERE
    assert labelled["rank"] == [Rank.CONSUMER, elsewhere, elsewhere, Rank.CONSUMER]
    assert labelled["at_consumer"] == [True, False, False, True]
