"""What an end's rules let through though its policies deny it: the inside of a widening."""

from collections.abc import Iterator

import numpy as np

from ringfence.inventory.snapshot import Snapshot
from ringfence.model.address import Address
from ringfence.model.ids import NodeName
from ringfence.model.policy import Action, Direction
from ringfence.model.verdict import EndRole, EndVerdict
from ringfence.model.workload import Item, ItemKind
from ringfence.policy.compile import Compiled
from ringfence.policy.connection import Connections
from ringfence.policy.handle import is_widened
from ringfence.policy.program import NodePolicy, Program, as_programs
from ringfence.policy.recheck import Opened, first_match


def admits(
    snapshot: Snapshot, compiled: Compiled, connections: Connections, row: int, end: EndVerdict
) -> str:
    """The handle of the rule that lets a denied connection through at its end, empty if none does.

    Of several programs each must let it through; named is a rule that admits more than it says.
    A provider may meet what a node received for a Service under an address of that node.
    """
    item = snapshot.items[snapshot.position(end.workload)]
    node = item.node if item.kind is ItemKind.POD else item.name
    policy = compiled.policies.get((item.cluster, NodeName(node)))
    programs = _programs(policy, item, end.role) if policy else []
    if policy is None or not programs:
        return ""
    direction = Direction.OUTBOUND if end.role is EndRole.CONSUMER else Direction.INBOUND
    behind = end.role is EndRole.PROVIDER
    to = (connections.provider if behind else connections.dialled)[row]
    port = (connections.provider_port if behind else connections.dialled_port)[row]
    sources = list(_sources(snapshot, connections, row, end.role))
    count = len(sources)
    judged = end.role is EndRole.CONSUMER and _translates(snapshot, item, connections, row)
    opened = Opened(
        protocol=np.full(count, connections.protocol[row], np.uint8),
        source=np.frombuffer(b"".join(sources), np.uint8).reshape(count, 16),
        destination=np.tile(to, (count, 1)),
        port=np.full(count, port, np.uint16),
        translated=np.zeros(count, np.bool_),
        reached=np.tile(connections.provider[row], (count, 1)) if judged else None,
        reached_port=np.full(count, connections.provider_port[row]) if judged else None,
    )
    met = [
        [program.rules[at] for at in first_match(policy, program.rules, direction, opened)]
        for program in programs
    ]
    for rules in zip(*met, strict=True):
        if all(rule.action is Action.ALLOW for rule in rules):
            handles: list[str] = [rule.handle for rule in rules]
            return next(filter(is_widened, handles), handles[0])
    return ""


def _translates(snapshot: Snapshot, item: Item, connections: Connections, row: int) -> bool:
    """Whether a pod's own node translates what it dials, and so judges who answers."""
    node = connections.node_item[row]
    return item.kind is ItemKind.POD and (
        node < 0
        or (snapshot.items[node].name, snapshot.items[node].cluster) == (item.node, item.cluster)
    )


def _programs(policy: NodePolicy, item: Item, role: EndRole) -> list[Program]:
    uid = item.key.rpartition("/")[2]
    pods = {pod.uid: pod for pod in policy.pods}
    binding = pods.get(uid) if item.kind is ItemKind.POD else policy.binding
    if role is EndRole.NODE:
        bound = as_programs(policy.binding.received)
    elif role is EndRole.CONSUMER:
        bound = as_programs(binding.outbound if binding else None)
    else:
        bound = as_programs(binding.inbound if binding else None)
    return [policy.programs[name] for name in bound]


def _sources(
    snapshot: Snapshot, connections: Connections, row: int, role: EndRole
) -> Iterator[Address]:
    yield Address(bytes(connections.consumer[row]))
    node = connections.node_item[row]
    if role is EndRole.PROVIDER and node >= 0:
        yield from snapshot.items[node].addresses
