"""Works out what enforcing other workspaces would mean, by documents that may change meanwhile."""

import asyncio
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from sqlalchemy.ext.asyncio import AsyncConnection

from ringfence.control.compilation import compile_nodes
from ringfence.control.errors import ConflictError, NotFoundError
from ringfence.control.inventory import Inventory
from ringfence.control.plan import Plan, affected, describe_changes, in_force, refusal
from ringfence.control.policies import (
    load_enforced,
    load_shared,
    load_tree,
    load_workspace,
)
from ringfence.control.trial import Asked, refusal_on_trial
from ringfence.model.ids import TenantId, Version, WorkspaceName
from ringfence.model.override import Override
from ringfence.policy.document import Documents
from ringfence.policy.nodes import Surroundings
from ringfence.policy.order import PolicySet
from ringfence.store.relational.database import Database
from ringfence.store.relational.enforcement import Enforced, enforced_now
from ringfence.store.relational.quarantines import load_quarantines
from ringfence.store.relational.trials import load_trial

Wanted = Sequence[tuple[WorkspaceName, Version | None]]
"""Workspaces to enforce, the latest version for None."""


class Planning:
    """Plans changes of the enforced set, and tells whether a plan still holds."""

    def __init__(
        self,
        database: Database,
        tenant: TenantId,
        inventory: Inventory,
        surroundings: Surroundings,
    ) -> None:
        self._database, self._tenant = database, tenant
        self._inventory, self._surroundings = inventory, surroundings

    async def plan(
        self,
        wanted: Wanted,
        overrides: Collection[Override],
        expected: int | None,
        asked: Asked | None,
    ) -> tuple[Enforced, Plan, Documents]:
        """What is enforced now, what this changes, and of which documents it was worked out.

        All rules may go at any time, and a trial of them too; unless that is `asked` to be a trial.
        """
        async with self._database.read() as connection:
            tree = await load_tree(connection, self._tenant)
            current = await enforced_now(connection, self._tenant)
            if expected not in (None, current.revision):
                raise ConflictError(
                    f"{current.actor} enforced something else meanwhile: run it again to see the "
                    "new plan"
                )
            old = await load_enforced(connection, self._tenant)
            apart = await load_quarantines(connection, self._tenant)
            trial = await load_trial(connection, self._tenant)
            wanted = sorted(set(wanted), key=lambda pair: pair[0])
            new = [await load_workspace(connection, self._tenant, *pair) for pair in wanted]
            pairs = tuple((workspace.name, version) for workspace, version in new)
            named = await self._load(connection, pairs)
        snapshot = self._inventory.timeline.latest()
        moment = self._inventory.now()

        def work() -> Plan:
            before, problem = in_force(snapshot, tree, old, moment, apart)
            after = PolicySet(snapshot, tree, new, moment, apart)
            changes = tuple(describe_changes(old, new))
            none = not pairs and asked is None
            ends = none and trial is not None and trial.cluster is None
            return Plan(
                revision=current.revision + bool(changes),
                workspaces=pairs,
                changes=changes,
                workloads=affected(before, after),
                warnings=(
                    *([problem] if problem else []),
                    *(["this ends the trial under way"] if ends else []),
                    *compile_nodes(after, self._surroundings).warnings,
                ),
                refused=refusal(after, overrides) or ("" if none else refusal_on_trial(trial)),
            )

        return current, await asyncio.to_thread(work), named

    async def refuse_changed(
        self,
        connection: AsyncConnection,
        pairs: Sequence[tuple[WorkspaceName, Version]],
        named: Documents,
    ) -> None:
        """Raise ConflictError where the versions, or what they can name, are not these any more."""
        try:
            same = not pairs or await self._load(connection, pairs) == named
        except NotFoundError:
            same = False
        if not same:
            raise ConflictError(
                "what is to be enforced, or what it names, was changed meanwhile: run it again to "
                "see the new plan"
            )

    async def _load(
        self, connection: AsyncConnection, pairs: Iterable[tuple[WorkspaceName, Version]]
    ) -> Documents:
        """The versions, and all documents that they can name; raises NotFoundError."""
        found = [await load_workspace(connection, self._tenant, *pair) for pair in pairs]
        shared = await load_shared(connection, self._tenant)
        return replace(shared, workspaces=tuple(workspace for workspace, _ in found))
