"""Some connections of many, and which Service a socket is."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from ringfence.flows.connections import Records, ServiceSockets
from ringfence.inventory.timeline import Timeline
from ringfence.model.ids import ClusterId
from ringfence.model.protocol import TCP, UDP
from ringfence.model.workload import ServicePort
from tests.integration.world import CLUSTER, START, address, node, service

OTHER = ClusterId("other")
NODES = (
    node("node1", "192.0.2.1", "192.0.2.2"),
    replace(node("node2", "192.0.2.3"), cluster=OTHER),
)
SERVICES = (
    service("shop", "10.100.0.1", ServicePort("http", TCP, 80, 30080)),
    replace(service("bank", "10.100.0.2", ServicePort("http", TCP, 80, 30081)), cluster=OTHER),
)


@pytest.mark.parametrize(
    ("at", "protocol", "port", "name"),
    [
        ("10.100.0.1", TCP, 80, "shop"),
        ("10.100.0.1", UDP, 80, None),
        ("10.100.0.1", TCP, 30080, None),
        ("192.0.2.2", TCP, 30080, "shop"),
        ("192.0.2.3", TCP, 30080, None),
        ("192.0.2.3", TCP, 30081, "bank"),
        ("192.0.2.1", UDP, 30080, None),
        ("192.0.2.9", TCP, 30080, None),
    ],
)
def test_node_ports_are_those_of_the_nodes_of_a_cluster(
    at: str, protocol: int, port: int, name: str | None
) -> None:
    history = Timeline()
    history.replace(START, CLUSTER, [*NODES, *SERVICES])
    item = ServiceSockets(history.latest()).at(address(at), protocol, port, CLUSTER)
    assert (item.name if item else None) == name


def test_all_of_the_connections_are_taken_without_a_copy() -> None:
    table = pa.table({"protocol": [TCP, UDP]})
    seen = Records(table, np.zeros(2, np.uint64), np.zeros(2, np.bool_))
    assert seen.take(np.array([True, True])) is seen
    assert seen.take(np.array([False, True])).table["protocol"].to_pylist() == [UDP]
    assert len(seen.take(np.array([False, False]))) == 0
    assert len(seen.take(np.array([1, 1]))) == 2
    assert seen.only(["protocol", "process"]).table.column_names == ["protocol"]
