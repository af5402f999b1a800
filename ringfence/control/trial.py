"""What a change of what is enforced that is on trial means: for nodes, and for other changes."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from ringfence.control.agents import NodeKey
from ringfence.control.judged import JudgedBy
from ringfence.control.policies import load_set, load_tree
from ringfence.model.duration import format_duration
from ringfence.model.ids import ClusterId, NodeName, TenantId
from ringfence.model.words import named
from ringfence.model.workload import Item, ItemKind
from ringfence.policy.order import Enforced as EnforcedVersion
from ringfence.store.relational.enforcement import Enforced, enforced_at
from ringfence.store.relational.trials import Trial

_GRACE_NS = 5 * 10**9
"""An agent goes back by itself only so long after the control plane should have told it to."""
_STAGED_GRACE_NS = 60 * 10**9
"""The same of a staged trial: at its end the control plane first looks at what was seen."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A trial as a person asks for it: staged at `nodes`, or to be confirmed."""

    for_ns: int
    nodes: tuple[NodeKey, ...] | None = None
    threshold: float | None = None


def begun(asked: Asked, fresh: Enforced, current: Enforced) -> Trial:
    """The trial of a set that is enforced now, in place of the current one."""
    times = fresh.since_ns, fresh.since_ns + asked.for_ns
    return Trial(fresh.revision, current.revision, *times, asked.nodes, asked.threshold)


def begun_of_cluster(asked: Asked, cluster: ClusterId, current: Enforced, now_ns: int) -> Trial:
    """The trial of whether a Kubernetes cluster's policies are enforced, beside the current set."""
    times = now_ns, now_ns + asked.for_ns
    return Trial(current.revision, current.revision, *times, cluster=cluster)


def told_of(asked: Asked | None) -> str:
    """What the audit trail says of it."""
    if asked is None:
        return ""
    where = f" at {named(['/'.join(node) for node in asked.nodes])}" if asked.nodes else ""
    return f" on trial{where}, for {format_duration(asked.for_ns // 10**9)}"


@dataclass(frozen=True, slots=True)
class Task:
    """What a node has to do: enforce a policy, as JSON; empty for none.

    From `fallback_ns` on it is to enforce `fallback` instead; None where the policy is to stay.
    """

    policy: bytes
    fallback: bytes | None = None
    fallback_ns: int = 0


def tasks(
    policies: Mapping[NodeKey, bytes], before: Mapping[NodeKey, bytes], trial: Trial | None
) -> dict[NodeKey, Task]:
    """What each node has to do, of what it would by the enforced set and by the one before."""
    if trial is None:
        return {node: Task(policy) for node, policy in policies.items()}
    until_ns = trial.until_ns + (_GRACE_NS if trial.nodes is None else _STAGED_GRACE_NS)
    found = {}
    for node in {*policies, *before}:
        old = before.get(node, b"")
        on_trial = trial.nodes is None or node in trial.nodes
        found[node] = Task(policies.get(node, b""), old, until_ns) if on_trial else Task(old)
    return found


def is_elsewhere(trial: Trial | None, item: Item) -> bool:
    """Whether a workload's node still has the set of before a staged trial."""
    staged_at = trial.nodes if trial else None
    return staged_at is not None and (item.cluster, _place(item)) not in staged_at


def told_elsewhere(trial: Trial, item: Item, before: Iterable[EnforcedVersion]) -> str:
    """A note on a workload whose node still has the set of before a staged trial."""
    still = named([f"{workspace.name}@p{version}" for workspace, version in before]) or "nothing"
    return f"{_place(item)} is outside the stage of {trial.what}: it still enforces {still}"


def _place(item: Item) -> NodeName:
    return NodeName(item.node if item.kind is ItemKind.POD else item.name)


async def load_before(
    connection: AsyncConnection, tenant: TenantId, trial: Trial | None
) -> tuple[EnforcedVersion, ...]:
    """The workspace versions to which a trial of a set may go back; none without one."""
    if trial is None or trial.cluster is not None:
        return ()
    return await load_set(connection, tenant, await enforced_at(connection, tenant, trial.previous))


async def judged_before(
    connection: AsyncConnection, tenant: TenantId, judged_by: JudgedBy, trial: Trial | None
) -> JudgedBy:
    """The same as before a trial; with no workspaces where nothing is on trial."""
    if trial is not None and trial.cluster is not None:
        live = tuple(sorted({*judged_by.live} ^ {trial.cluster}))
        return replace(judged_by, live=live)
    workspaces = await load_before(connection, tenant, trial)
    tree = await load_tree(connection, tenant) if workspaces else judged_by.tree
    return replace(judged_by, tree=tree, workspaces=workspaces)


def refusal_on_trial(trial: Trial | None) -> str:
    """Why nothing else may be enforced meanwhile, empty where nothing is on trial."""
    if trial is None:
        return ""
    until = datetime.fromtimestamp(trial.until_ns // 10**9, UTC).strftime("%H:%M:%S UTC")
    return (
        f"{trial.what} is on trial until {until}: keep it with `ringfence confirm`, "
        "or go back with `ringfence revert`, first"
    )
