"""Which versions of the workspaces above a version is judged beside, before they are enforced.

What all scopes need, as DNS, stands in the workspace of an ancestor (`discovery.ancestors`). A
version of one that is under analysis, and that nothing newer is enforced of, is to come with those
below it, so they are judged as if it were enforced.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncConnection

from ringfence.control.policies import load_tree, load_version
from ringfence.model.ids import TenantId, Version, WorkspaceName
from ringfence.model.policy import Action, Workspace
from ringfence.model.protocol import UDP
from ringfence.policy.kubernetes.imported import ImportedWorkspace
from ringfence.store.relational.enforcement import Enforced, enforced_now
from ringfence.store.relational.verdicts import Named, all_analyses
from ringfence.store.relational.workspaces import heads

_DNS = 53
NOTES = "What is judged beside it, and what to do where something above it is missing."


@dataclass(frozen=True, slots=True)
class Beside:
    """Versions of ancestors' workspaces, the topmost first, and what a person should know."""

    versions: tuple[Named, ...] = ()
    notes: tuple[str, ...] = ()


async def load_beside(
    connection: AsyncConnection,
    tenant: TenantId,
    name: WorkspaceName,
    version: Version | None = None,
    *,
    given: Collection[WorkspaceName] = (),
    enforced: Enforced | None = None,
    analysed: Iterable[Named] | None = None,
) -> Beside:
    """What a version, the latest for None, is judged beside; raises NotFoundError.

    `given` are workspaces that somebody named himself. Enforced and under analysis is what is so
    now, unless another set and other versions are given.
    """
    workspace, _ = await load_version(connection, tenant, name, version, even_deleted=True)
    tree = await load_tree(connection, tenant)
    if isinstance(workspace, ImportedWorkspace) or workspace.scope not in tree:
        return Beside()
    held = dict((enforced or await enforced_now(connection, tenant)).workspaces)
    if analysed is None:
        found = await all_analyses(connection, tenant)
        analysed = [(one.workspace, one.version) for one in found]
    latest: dict[WorkspaceName, Version] = {}
    for one, number in analysed:
        latest[one] = max(number, latest.get(one, number))
    by_scope = {
        head.scope: head.name
        for head in await heads(connection, tenant)
        if head.primary and head.kubernetes_cluster is None
    }
    ancestors = [scope.name for scope in tree.path(workspace.scope)[:-1]]
    above = [by_scope[scope] for scope in ancestors if scope in by_scope]
    asked = [one for one in above if one not in given]
    versions = [
        (one, latest[one]) for one in asked if one in latest and latest[one] > held.get(one, 0)
    ]
    idle = [one for one in asked if one not in held and one not in latest]
    notes = [
        f"judged as if {one}@p{number}, which is under analysis above it, were enforced too"
        for one, number in versions
    ]
    notes += _of_idle(workspace, idle)
    if ancestors and not above and _denies_dns(workspace):
        notes.append(
            f"{name} has no policy for DNS, and no scope above {workspace.scope} has a workspace "
            f"where one could stand: `ringfence discover {workspace.scope} --begin` proposes it"
        )
    return Beside(tuple(versions), tuple(notes))


async def deleted_above(
    connection: AsyncConnection, tenant: TenantId, name: WorkspaceName, analysed: Iterable[Named]
) -> list[Named]:
    """Of versions that were under analysis, those of workspaces above that are there no more.

    As long as they were there, `name` was judged beside them.
    """
    workspace, _ = await load_version(connection, tenant, name)
    tree = await load_tree(connection, tenant)
    if isinstance(workspace, ImportedWorkspace) or workspace.scope not in tree:
        return []
    ancestors = {scope.name for scope in tree.path(workspace.scope)[:-1]}
    there = {head.name for head in await heads(connection, tenant)}
    found = []
    for named in dict.fromkeys(one for one in analysed if one[0] not in there):
        other, _ = await load_version(connection, tenant, *named, even_deleted=True)
        if isinstance(other, Workspace) and other.primary and other.scope in ancestors:
            found.append(named)
    return found


def _of_idle(workspace: Workspace, idle: Iterable[WorkspaceName]) -> Iterator[str]:
    for one in idle:
        yield (
            f"workspace {one} above it is neither enforced nor under analysis: what {one} alone "
            f"allows, such as DNS, counts as denied by {workspace.name}; judge it too by "
            f"`ringfence analysis start {one}`"
        )


def _denies_dns(workspace: Workspace) -> bool:
    """Whether what it governs may ask nobody for names."""
    return workspace.catch_all.outbound is Action.DENY and not any(
        one.action is Action.ALLOW
        and one.protocol in {None, UDP}
        and (not one.ports or any(isinstance(it, str) or _DNS in it for it in one.ports))
        for one in workspace.policies
    )
