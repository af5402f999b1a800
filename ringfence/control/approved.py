"""The policies that people agreed on for a scope, and what is known of each."""

from sqlalchemy.ext.asyncio import AsyncConnection

from ringfence.control.comparison import Known
from ringfence.control.continuous import KEPT_NS
from ringfence.control.policies import load_workspace, read_workspace
from ringfence.model.ids import PolicyId, ScopeName, TenantId, Version
from ringfence.model.policy import ClusterEnd, Policy, Workspace
from ringfence.model.query import Query
from ringfence.model.scope import ScopeTree
from ringfence.policy.order import Enforced as EnforcedVersion
from ringfence.store.relational.enforcement import enforced_now, enforced_sets
from ringfence.store.relational.verdicts import all_analyses, last_decided
from ringfence.store.relational.workspaces import heads, versions


async def load_approved(
    connection: AsyncConnection, tenant: TenantId, scope: ScopeName, *, latest: bool = False
) -> EnforcedVersion | None:
    """The primary workspace of a scope as it is enforced, else its latest version.

    With `latest` that one even if another is enforced; None where the scope has no workspace.
    """
    enforced = dict((await enforced_now(connection, tenant)).workspaces)
    for head in await heads(connection, tenant):
        if head.scope == scope and head.primary and head.kubernetes_cluster is None:
            version = None if latest else enforced.get(head.name)
            return await load_workspace(connection, tenant, head.name, version)
    return None


async def load_above(
    connection: AsyncConnection, tenant: TenantId, tree: ScopeTree, scope: ScopeName
) -> list[Workspace]:
    """The primary workspaces of a scope's ancestors, as of their latest versions."""
    ancestors = tree.path(scope)[:-1]
    found = [await load_approved(connection, tenant, one.name, latest=True) for one in ancestors]
    return [one[0] for one in found if one is not None]


async def known_of(
    connection: AsyncConnection, tenant: TenantId, approved: EnforcedVersion, now_ns: int
) -> dict[PolicyId, Known]:
    """What is known of each policy of a version: from all versions in a row that have it so."""
    workspace, version = approved
    since: dict[PolicyId, tuple[int, set[Version]]] = {}
    wanted = {one.id: _meaning(workspace, one) for one in workspace.policies}
    for stored in await versions(connection, tenant, workspace.name):
        if stored.version > version:
            continue
        named = f"{workspace.name}@p{stored.version}"
        held = await read_workspace(stored.document, named)
        there = {one.id: _meaning(held, one) for one in held.policies}
        wanted = {said: meaning for said, meaning in wanted.items() if there.get(said) == meaning}
        if not wanted:
            break
        for said in wanted:
            _, before = since.get(said, (0, set()))
            since[said] = stored.created_ns, {*before, stored.version}
    last = await last_decided(connection, tenant, workspace.name)
    sets = await enforced_sets(connection, tenant, (now_ns - KEPT_NS, now_ns + 1))
    asked = await all_analyses(connection, tenant)

    def watched(same: set[Version]) -> int | None:
        """Since when one of these versions is held without a break against what arrives."""
        named = {(workspace.name, one) for one in same}
        begun = [one.since_ns for one in asked if (one.workspace, one.version) in named]
        for one in reversed(sets):
            # Of what is staged nothing is told while it is.
            if not named & {*one.workspaces} or one.staged_until_ns is None:
                break
            begun.append(one.staged_until_ns or one.since_ns)
            if one.staged_until_ns:
                break
        return max(min(begun), now_ns - KEPT_NS) if begun else None

    return {
        said: Known(
            made_ns,
            watched(same),
            max((last[one, said] for one in same if (one, said) in last), default=None),
        )
        for said, (made_ns, same) in since.items()
    }


def _meaning(workspace: Workspace, policy: Policy) -> tuple[Policy, list[Query | None]]:
    """What makes a policy the same in another version."""
    queries = {one.name: one.query for one in workspace.clusters}
    ends = (policy.consumer, policy.provider)
    return policy.rule, [queries[e.cluster] if isinstance(e, ClusterEnd) else None for e in ends]
