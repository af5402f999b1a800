"""An hour of the shop's traffic: who called whom is told right, whatever the agents missed."""

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ringfence.control.labelling import Report
from ringfence.flows.orient import Orientations, conversations
from ringfence.inventory.timeline import Timeline
from ringfence.model.address import Address, format_address
from ringfence.model.protocol import TCP
from ringfence.store.flows import FlowStore
from ringfence.store.flows.queries import HOPS, hourly
from ringfence.store.flows.store import BatchKey
from ringfence.wire import batch
from tests.integration import shop_hour
from tests.integration.shop_hour import NODES, WINDOW_NS, WINDOWS
from tests.integration.store.observed import keep
from tests.integration.world import CLUSTER, START, node, pod

RESTARTS = {"node1": (2, 4, 6, 61, 150), "node2": (3, 5, 7, 60, 121, 122)}
"""The windows at which an agent starts anew and remembers no direction."""
DIRECTED = 8
"""From this window on the agents have heard from the control plane which ports are declared."""
AT_ONCE = 30
UNTIL = {"tenant": "default", "since": START, "until": START + 3600 * 10**9}


def history() -> Timeline:
    told = Timeline()
    pods = [pod(f"pod-{number}", *each) for number, each in enumerate(shop_hour.PODS.items())]
    nodes = [node(name, shop_hour.NODE_ADDRESS[name], shop_hour.GATEWAY[name]) for name in NODES]
    told.replace(START - 60 * 10**9, CLUSTER, [*nodes, *pods])
    return told


def told_of(row: dict[str, Any]) -> shop_hour.Told:
    consumer, provider = (format_address(Address(row[end])) for end in ("consumer", "provider"))
    return row["protocol"], consumer, provider, row["provider_port"]


def told(table: pa.Table) -> set[shop_hour.Told]:
    return set(map(told_of, table.to_pylist()))


async def test_no_reconnect_makes_a_service_of_an_ephemeral_port(store: FlowStore) -> None:
    """Connections from before the first window, sockets now known and now not, agents anew."""
    random = np.random.default_rng(4)
    connections, known_then = shop_hour.Connections(random), history()
    orientations = {name: Orientations() for name in NODES}
    waiting = []
    for window in range(WINDOWS):
        start = START + window * WINDOW_NS
        for name in NODES:
            if window in RESTARTS[name]:
                orientations[name] = Orientations()
            columns = conversations(
                shop_hour.records(connections, name, window, start),
                shop_hour.pod_interfaces(name),
                shop_hour.listening(name, random),
                shop_hour.DECLARED if window >= DIRECTED else frozenset(),
                orientations[name],
            ).columns()
            key = BatchKey("default", CLUSTER, name, f"{window}", start, start + WINDOW_NS)
            flows = batch.table(batch.FLOWS, columns)
            waiting.append(Report(key, flows, batch.DROPS.empty_table()))
        if (window + 1) % AT_ONCE == 0:
            await keep(store, *waiting, history=known_then)
            waiting = []

    right = set[shop_hour.Told]().union(*(each.told for each in shop_hour.EDGES))
    distinct = "SELECT DISTINCT protocol, consumer, provider, provider_port FROM flows"
    assert told(await store.query(distinct, {})) == right
    hops = await store.query(HOPS, UNTIL)
    assert told(hops) == right
    assert told(await store.query(hourly(HOPS), UNTIL)) == right
    within = connections.edge[connections.first >= 0]
    opened = Counter[shop_hour.Told]()
    for number, each in enumerate(shop_hour.EDGES):
        opened += Counter(dict.fromkeys(each.told, int((within == number).sum())))
    for hop in hops.filter(pc.equal(hops["protocol"], TCP)).to_pylist():
        opened[told_of(hop)] -= hop["opened"]
    assert not any(opened[one] for one in right if one[0] == TCP)
