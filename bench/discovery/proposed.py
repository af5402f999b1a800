"""What discovery makes of the files of a simulation."""

import json
from dataclasses import dataclass
from pathlib import Path

from bench.discovery.files import Document
from ringfence.cli.recorded import recorded_flows, recorded_inventory
from ringfence.control.discover import discover
from ringfence.control.discovered import report
from ringfence.inventory.recorded import read_items
from ringfence.inventory.timeline import Timeline
from ringfence.model.ids import ScopeName, WorkspaceName
from ringfence.model.query import Everything
from ringfence.model.scope import Scope, ScopeTree
from ringfence.model.workload import Item
from ringfence.policy.document import Documents, format_documents

ALL = ScopeName("all")
TREE = ScopeTree([Scope(ALL, None, Everything())])


@dataclass(frozen=True)
class Proposal:
    text: str
    """The workspace as YAML."""
    told: Document
    """As `ringfence discover -o json` has it; empty where there is none."""
    timeline: Timeline


def discovered(inventory_file: Path, flows_file: Path) -> Proposal:
    timeline = recorded_inventory(inventory_file).timeline
    found = discover(recorded_flows(flows_file, timeline), timeline, TREE, ALL, WorkspaceName(ALL))
    text = format_documents(Documents(workspaces=(found.workspace,)))
    return Proposal(text, report(found), timeline)


def items_of(documents: list[Document]) -> list[Item]:
    """The items of an inventory's lives, in order, each under a key of its own."""
    apart = [
        {name: value for name, value in one.items() if name not in ("from", "to")}
        | {"key": f"{at:06}"}
        for at, one in enumerate(documents)
    ]
    return read_items(json.dumps(apart), "inventory")
