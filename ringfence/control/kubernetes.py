"""Which Kubernetes clusters' own policies are enforced, as they stand there at any moment."""

import asyncio
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncConnection

from ringfence.control.audit import Author
from ringfence.control.compilation import compile_nodes
from ringfence.control.errors import ConflictError
from ringfence.control.imports import known_cluster, problems
from ringfence.control.judged import live_layer
from ringfence.control.services import Services
from ringfence.control.trial import Asked, begun_of_cluster, refusal_on_trial, told_of
from ringfence.inventory.snapshot import Snapshot
from ringfence.model.ids import ClusterId, TenantId
from ringfence.model.policy import Action
from ringfence.model.scope import ScopeTree
from ringfence.model.words import counted
from ringfence.policy.kubernetes.held import held_in
from ringfence.policy.order import PolicySet
from ringfence.store.relational.enforcement import enforced_now
from ringfence.store.relational.kubernetes import (
    add_enforced_cluster,
    enforced_clusters,
    remove_enforced_cluster,
)
from ringfence.store.relational.trials import begin_trial, load_trial


@dataclass(frozen=True, slots=True)
class KubernetesPlan:
    """What enforcing a cluster's policies, or no more doing so, changes: nothing without `changes`.

    `pods` are those that some policy denies something.
    """

    changes: tuple[str, ...]
    pods: tuple[str, ...]
    warnings: tuple[str, ...]


async def enforce_cluster(
    services: Services,
    wanted: ClusterId,
    author: Author,
    asked: Asked | None = None,
    *,
    off: bool,
    dry_run: bool,
) -> KubernetesPlan:
    """Enforce the policies of a Kubernetes cluster, or, with `off`, no more.

    `asked` for a trial, it is taken back unless somebody confirms it. On return the nodes'
    directives are worked out. Raises NotFoundError, and ConflictError where a trial is in the way.
    """
    snapshot, tenant = services.inventory.timeline.latest(), author.principal.tenant
    async with services.database.read() as connection:
        held = await enforced_clusters(connection, tenant)
        await _refuse_on_trial(connection, tenant, wanted, asked)
    # What is enforced can be ended though nobody knows the cluster any more.
    cluster = wanted if off and wanted in held else known_cluster(snapshot, wanted)
    plan = await asyncio.to_thread(_plan, services, snapshot, cluster, off=off)
    if (cluster in held) is not off:
        if asked:
            raise ConflictError("it is so already: there is nothing to try")
        return KubernetesPlan((), plan.pods, plan.warnings)
    if dry_run:
        return plan
    now_ns, actor = services.clock(), author.principal.actor
    async with services.database.write() as connection:
        await _refuse_on_trial(connection, tenant, cluster, asked)
        if asked:
            current = await enforced_now(connection, tenant)
            trial = begun_of_cluster(asked, cluster, current, now_ns)
            await begin_trial(connection, tenant, trial)
        if off:
            await remove_enforced_cluster(connection, tenant, cluster)
        else:
            await add_enforced_cluster(connection, tenant, cluster, actor, now_ns)
        what = f"{plan.changes[0]}{told_of(asked)}"
        await author.note(connection, now_ns, what, about="enforcement")
    await services.enforcement.refresh()
    return plan


async def _refuse_on_trial(
    connection: AsyncConnection, tenant: TenantId, cluster: ClusterId, asked: Asked | None
) -> None:
    """Raise ConflictError where the cluster is on trial, or another trial is asked for."""
    trial = await load_trial(connection, tenant)
    if trial and (asked or trial.cluster == cluster):
        raise ConflictError(refusal_on_trial(trial))


def _plan(
    services: Services, snapshot: Snapshot, cluster: ClusterId, *, off: bool
) -> KubernetesPlan:
    policies, layer = held_in(snapshot, cluster), live_layer(snapshot, cluster)
    denied = {at for rule in layer.rules if rule.action is Action.DENY for at in rule.members}
    pods = tuple(sorted(snapshot.items[at].display for at in denied))
    verb = "no longer enforced" if off else "enforced"
    held = counted(len(policies), "policy", "policies")
    change = f"Kubernetes cluster {cluster}: its {held} {verb}"
    if off:
        return KubernetesPlan((change,), pods, ())
    alone = PolicySet(snapshot, ScopeTree(()), ())
    compilation = compile_nodes(alone, services.enforcement.surroundings, (layer,))
    ties = (f"of one tier and priority, so that names decide: {', '.join(t)}" for t in layer.ties)
    return KubernetesPlan((change,), pods, (*problems(policies), *ties, *compilation.warnings))
