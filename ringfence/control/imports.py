"""Imports the policies of a Kubernetes cluster, or of manifests, as a read-only workspace."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncConnection

from ringfence.control.audit import Author
from ringfence.control.errors import ConflictError, NotFoundError
from ringfence.control.policies import load_version
from ringfence.control.services import Services
from ringfence.inventory.snapshot import Snapshot
from ringfence.model.errors import InputError
from ringfence.model.ids import ClusterId, ScopeName, TenantId, Version, WorkspaceName
from ringfence.model.words import named
from ringfence.policy.difference import PartDifference
from ringfence.policy.errors import ManifestError
from ringfence.policy.kubernetes.documents import Folder
from ringfence.policy.kubernetes.held import HeldPolicy, held_in, hold
from ringfence.policy.kubernetes.imported import (
    ImportedWorkspace,
    imported_difference,
    manifest_texts,
)
from ringfence.store.relational.workspaces import WorkspaceHead, add_version, heads, last_versions


@dataclass(frozen=True, slots=True)
class Import:
    """What an import made; the version stays where nothing `changed`."""

    workspace: ImportedWorkspace
    version: Version
    changed: tuple[PartDifference, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Source:
    """Where policies come from: files, (name, text), or the inventory of the cluster for None.

    `cluster` is empty for the only one that there is.
    """

    cluster: ClusterId
    files: tuple[tuple[str, str], ...] | None = None


async def import_policies(
    services: Services, name: WorkspaceName, source: Source, author: Author, *, dry_run: bool
) -> Import:
    """Make what the source says the latest version of a workspace, if it is not already.

    Raises InputError, NotFoundError, and ConflictError for a workspace that holds something else.
    """
    snapshot, tenant = services.inventory.timeline.latest(), author.principal.tenant
    cluster = known_cluster(snapshot, source.cluster)
    given, warnings = await asyncio.to_thread(_read, snapshot, name, cluster, source)
    async with services.database.write() as connection:
        held, latest = await _held(connection, tenant, given)
        changed = imported_difference(held, given)
        if held is not None and not changed:
            return Import(given, latest, (), warnings)
        version = Version(latest + 1)
        if not dry_run:
            now_ns = services.clock()
            actor = author.principal.actor
            head = WorkspaceHead(name, ScopeName(""), False, version, actor, now_ns, cluster)
            await add_version(connection, tenant, head, given.document)
            what = f"imported Workspace {name} (p{version})"
            difference = "\n".join(map(str, changed))
            await author.note(connection, now_ns, what, difference, about=f"workspace/{name}")
    return Import(given, version, changed, warnings)


def _read(
    snapshot: Snapshot, name: WorkspaceName, cluster: ClusterId, source: Source
) -> tuple[ImportedWorkspace, tuple[str, ...]]:
    """The policies of the source, and what is to be said of them."""
    if source.files is None:
        policies = held_in(snapshot, cluster)
        return ImportedWorkspace(name, cluster, policies), problems(policies)
    folder = Folder()
    try:
        for file, text in source.files:
            folder.add(file, text.encode())
        texts = manifest_texts(folder.manifests)
    except ManifestError as error:
        raise InputError(str(error)) from error
    if not texts:
        raise InputError("expected a policy of Kubernetes among the manifests, and found none")
    return ImportedWorkspace(name, cluster, hold(texts)), tuple(dict.fromkeys(folder.warnings))


def problems(policies: Iterable[HeldPolicy]) -> tuple[str, ...]:
    """A line for each policy that cannot be read."""
    return tuple(
        f"{one.policy.display}: cannot be read, so that it allows nothing: {one.problem}"
        for one in policies
        if one.problem
    )


def known_cluster(snapshot: Snapshot, wanted: ClusterId) -> ClusterId:
    """The Kubernetes cluster of the inventory that is meant, the only one for an empty name.

    Raises NotFoundError and InputError.
    """
    known = sorted({item.cluster for item in snapshot.items if item.cluster})
    if wanted in known:
        return wanted
    there = f"there is {named(known)}" if known else "there is none yet: is a connector running?"
    if wanted:
        raise NotFoundError(f"the inventory has no Kubernetes cluster {wanted!r}; {there}")
    if len(known) != 1:
        raise InputError(f"name the Kubernetes cluster with --cluster; {there}")
    return known[0]


async def _held(
    connection: AsyncConnection, tenant: TenantId, given: ImportedWorkspace
) -> tuple[ImportedWorkspace | None, Version]:
    """What the workspace holds by now, and its version, 0 for none."""
    if given.name not in await last_versions(connection, tenant):
        return None, Version(0)
    there = given.name in {head.name for head in await heads(connection, tenant)}
    held, version = (
        await load_version(connection, tenant, given.name) if there else (None, Version(0))
    )
    if not isinstance(held, ImportedWorkspace):
        raise ConflictError(
            f"workspace {given.name!r} has, or had, policies of Ringfence: choose another name"
        )
    if held.cluster != given.cluster:
        raise ConflictError(
            f"workspace {given.name!r} holds the policies of Kubernetes cluster "
            f"{held.cluster!r}: choose another name for those of {given.cluster!r}"
        )
    return held, version
