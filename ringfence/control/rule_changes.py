"""The exact rules that another enforced set would write, workload by workload."""

import asyncio
import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

from ringfence.control.agents import NodeKey
from ringfence.control.judged import JudgedBy
from ringfence.control.policies import load_judged_by, load_tree, load_workspace
from ringfence.control.services import Services
from ringfence.model.ids import TenantId, Version, WorkspaceName
from ringfence.policy.backends.interface import Ruleset, UnsupportedError
from ringfence.policy.backends.nftables import Nftables
from ringfence.policy.compile import compiler_of
from ringfence.policy.program import NodePolicy

_CONTEXT = 2
"""Lines around each change."""


@dataclass(frozen=True, slots=True)
class RuleChange:
    """How the rules of one workload would differ, as a unified diff of nft commands."""

    node: NodeKey
    workload: str
    """`namespace/name` of a pod, or the node's own name."""
    difference: tuple[str, ...]


async def planned_changes(
    services: Services, tenant: TenantId, pairs: Iterable[tuple[WorkspaceName, Version]]
) -> list[RuleChange]:
    """What enforcing these versions, and no others, would change; raises NotFoundError."""
    async with services.database.read() as connection:
        now = await load_judged_by(connection, tenant)
        tree = await load_tree(connection, tenant)
        versions = [await load_workspace(connection, tenant, *pair) for pair in pairs]
    planned = replace(now, tree=tree, workspaces=tuple(versions))
    snapshot, moment = services.inventory.timeline.latest(), services.inventory.now()
    surroundings = services.enforcement.surroundings

    def work() -> list[RuleChange]:
        def policies(by: JudgedBy) -> Mapping[NodeKey, NodePolicy]:
            policy_set = by.ringfence(snapshot, moment)
            return compiler_of(policy_set, surroundings, by.kubernetes(snapshot)).nodes.policies

        return list(rule_changes(policies(now), policies(planned)))

    return await asyncio.to_thread(work)


def rule_changes(
    now: Mapping[NodeKey, NodePolicy], planned: Mapping[NodeKey, NodePolicy]
) -> Iterator[RuleChange]:
    """One for each workload of which the rules differ, by node and name."""
    for node in sorted({*now, *planned}):
        before, after = (_texts(policies.get(node)) for policies in (now, planned))
        for workload in sorted({*before, *after}):
            was, will = before.get(workload, []), after.get(workload, [])
            if was != will:
                diff = difflib.unified_diff(was, will, "now", "planned", "", "", _CONTEXT, "")
                yield RuleChange(node, workload, tuple(diff))


def _texts(policy: NodePolicy | None) -> dict[str, list[str]]:
    """The rules of each workload of a node, line by line; none of what nothing governs."""
    if policy is None:
        return {}
    backend = Nftables()
    found = {
        f"{pod.namespace}/{pod.name}": _lines(backend, partial(backend.render_pod, policy, pod))
        for pod in policy.pods
    }
    found[policy.node] = _lines(backend, partial(backend.render_node, policy))
    return {workload: lines for workload, lines in found.items() if lines}


def _lines(backend: Nftables, render: Callable[[], Ruleset]) -> list[str]:
    try:
        ruleset = render()
    except UnsupportedError as error:
        return [f"# cannot be written: {error}"]
    return backend.text(ruleset).splitlines() if ruleset.frame else []
