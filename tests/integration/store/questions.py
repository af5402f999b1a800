"""Every question of the product to the flow store, over connections of all kinds."""

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from ringfence.control.labelling import Report
from ringfence.model.flow import Disposition
from ringfence.model.protocol import UDP
from ringfence.store.flows import FlowStore
from ringfence.store.flows.conversations import (
    CONVERSATIONS,
    HOUR_CONVERSATIONS,
    SLOT_CONVERSATIONS,
    summed,
)
from ringfence.store.flows.exported import CLUSTERS, EXPORTED, exported
from ringfence.store.flows.queries import (
    DROP_REPORTS,
    HOPS,
    OBSERVATIONS,
    SOME_HOPS,
    THROUGH,
    TUNNELS,
    WINDOWS,
    denied,
    hourly,
    listed,
)
from tests.integration.store.observed import (
    POD,
    node_port_elsewhere,
    pod_to_outside,
    pod_to_pod_across,
    pod_to_service,
    through_an_overlay,
)
from tests.integration.world import (
    CARTS,
    CARTS2,
    DB,
    FRONT,
    NODE1,
    NODE2,
    SECOND,
    START,
    Agent,
)

WINDOW = {"tenant": "default", "since": START - SECOND, "until": START + 6 * 3600 * SECOND}
_HOUR_NS = 3600 * SECOND
_DAY_NS = 24 * _HOUR_NS
_TUNNEL = (UDP, NODE1, NODE2, 4789)
_KEYS = ["consumer_revision", "consumer_address", "provider_address", "protocol", "port"]
QUESTIONS = {
    "hops": HOPS,
    "hops by the hour": hourly(HOPS),
    "some hops": SOME_HOPS,
    "tunnels": TUNNELS,
    "conversations": CONVERSATIONS,
    "conversations by the hour": hourly(CONVERSATIONS),
    "conversations slot by slot": SLOT_CONVERSATIONS,
    "conversations hour by hour": HOUR_CONVERSATIONS,
    "sums": summed("true", _KEYS, set()),
    "sums by the hour": hourly(summed("true", _KEYS, set())),
    "list": listed("true", "last_ns"),
    "list by the hour": hourly(listed("true", "forward_bytes")),
    "next page": listed("true", "forward_bytes", after=True),
    "observations": OBSERVATIONS,
    "drop reports": DROP_REPORTS,
    "denied": denied("true"),
    "through": THROUGH,
    "windows": WINDOWS,
    "clusters": CLUSTERS,
}


def reports() -> list[Report]:
    """What the agents of two nodes tell of one window, and of another one hours later."""
    paths = (
        pod_to_pod_across(),
        pod_to_service(CARTS2),
        pod_to_outside(),
        node_port_elsewhere(),
        through_an_overlay(None),
    )
    agents = [agent for agents in paths for agent in agents]
    one, two = Agent("node1"), Agent("node2")
    for port in (40000, 40001):
        one.saw(POD, 7, FRONT, (CARTS, 8080), consumer_port=port, consumer_pid=port)
    one.dropped(FRONT, (DB, 3306), direction="outbound")
    two.dropped(FRONT, (DB, 3306))
    agents += [one, two]
    # Of observers that saw as much in as good a place either could count.
    for number, row in enumerate(row for agent in agents for row in agent.flows):
        row["forward_packets"] += number
    told = [agent.report(f"b{at}") for at, agent in enumerate(agents)]
    return [*told, *_later_reports()]


def _later_reports() -> list[Report]:
    """Of a window in an hour's first half, in which the agent of node1 is back."""
    start = START // _HOUR_NS * _HOUR_NS + 4 * _HOUR_NS + 600 * SECOND
    made = [agent.report(f"later {agent.node}") for agent in pod_to_service(CARTS2)]
    return [
        replace(one, key=replace(one.key, start_ns=start, end_ns=start + 15 * SECOND))
        for one in made
    ]


def aged_reports() -> list[Report]:
    """What they tell of ten days ago: one conversation a node."""
    end = time.time_ns() - 10 * _DAY_NS
    made = []
    for name in ("node1", "node2"):
        agent = Agent(name)
        agent.saw(POD, 7, FRONT, (CARTS, 8080), first_ns=end - SECOND, last_ns=end - 1)
        report = agent.report(f"aged {name}")
        key = replace(report.key, start_ns=end - SECOND, end_ns=end)
        made.append(replace(report, key=key))
    return made


async def answers(store: FlowStore) -> dict[str, list[str]]:
    """All questions with their answers, each row as text, in an order of its own."""
    hops = await store.query(HOPS, WINDOW)
    parameters = WINDOW | {
        "limit": 1000,
        "silent": 300 * SECOND,
        "every": 300 * SECOND,
        "tunnels": [_TUNNEL],
        "connections": sorted(set(hops["connection"].to_pylist())),
        "after_weight": 500,
        "after_connection": 0,
    }
    told = {
        name: _as_text((await store.query(question, parameters)).to_pylist())
        for name, question in QUESTIONS.items()
    }
    window = WINDOW | {"clusters": ["lab"], "agents": ["lab/node1", "lab/node2"]}
    parts = store.streams.rows(exported(dict.fromkeys(Disposition, "true")), window, EXPORTED)
    told["export"] = sorted([row.tobytes().hex() async for part in parts for row in part])
    return told


def _as_text(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    return sorted(
        json.dumps(
            {
                name: sorted(value) if isinstance(value, list) else value
                for name, value in row.items()
            },
            default=repr,
        )
        for row in rows
    )
