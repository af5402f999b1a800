"""What a node dials at a port of its own that leads elsewhere, as the kernel has it."""

import asyncio
import json
from typing import Any

import pyarrow as pa
import pytest

from ringfence.control.analysis import History, judge
from ringfence.control.judged import JudgedBy
from ringfence.flows.recorded import _records
from ringfence.flows.table_values import TableValues
from ringfence.inventory.recorded import read_inventory
from ringfence.inventory.resolutions import Resolutions
from ringfence.model.ids import Version
from ringfence.model.scope import ScopeTree
from ringfence.model.verdict import EndRole
from ringfence.policy.document import parse_documents

NODE, WEB, OTHER, FRONT = "192.0.2.1", "10.244.1.10", "10.244.2.21", "10.244.2.20"
NOON = "2030-01-01T12:00:00Z"
POLICIES = """
apiVersion: ringfence.io/v1alpha1
kind: Scope
metadata: {name: nodes}
spec: {query: 'kind = "node"'}
---
apiVersion: ringfence.io/v1alpha1
kind: Workspace
metadata: {name: nodes}
spec:
  scope: nodes
  catchAll: {inbound: ALLOW, outbound: DENY}
  policies:
  - id: out
    action: ALLOW
    consumer: {scope: nodes}
    provider: {filter: 'name = "END"'}
    protocol: TCP
    ports: [8080]
"""


def inventory() -> str:
    pods: list[dict[str, Any]] = [
        {"kind": "pod", "namespace": "shop", "name": name, "addresses": [address], "node": "node1"}
        for name, address in (("web", WEB), ("other", OTHER), ("front", FRONT))
    ]
    backends = [
        {"service_port": "http", "protocol": "TCP", "address": address, "port": 8080}
        for address in (WEB, OTHER)
    ]
    port = {"name": "http", "protocol": "TCP", "port": 80, "node_port": 31001}
    service = {"type": "NodePort", "ports": [port], "backends": backends}
    items: list[dict[str, Any]] = [
        {"kind": "node", "name": "node1", "addresses": [NODE]},
        *pods,
        {"kind": "service", "namespace": "shop", "name": "both", "addresses": ["10.100.0.8"],
         "service": service},
    ]  # fmt: skip
    return json.dumps([one | {"kubernetes_cluster": "lab"} for one in items])


@pytest.mark.parametrize(("end", "escapes"), [("front", []), ("web", [OTHER])])
def test_it_escapes_only_where_rules_mean_some_backends(end: str, escapes: list[str]) -> None:
    """By loopback it passes, and is judged once translated where rules mean some of them only."""
    held = read_inventory(inventory(), "inventory.json")
    documents = parse_documents(POLICIES.replace("END", end), "f")
    judged_by = JudgedBy(
        ScopeTree(documents.scopes), tuple((one, Version(1)) for one in documents.workspaces)
    )
    rows = [
        {"first": NOON, "last": NOON, "consumer_address": NODE, "provider_address": to,
         "protocol": "TCP", "port": 8080, "dialled_address": NODE, "dialled_port": 31001}
        for to in (WEB, OTHER)
    ]  # fmt: skip
    seen = _records(TableValues(pa.Table.from_pylist(rows), "f"), "f", held.timeline)
    history = History(held.timeline, Resolutions())
    judged = asyncio.run(judge(seen, history, held.until_ns, judged_by))
    denied = [to for to, allowed in zip((WEB, OTHER), judged.allowed.tolist(), strict=True)
              if not allowed]  # fmt: skip
    assert denied == escapes
    for row, to in enumerate((WEB, OTHER)):
        if to not in escapes and end == "front":
            assert judged.deciding[row][EndRole.CONSUMER].rule == "itself"
