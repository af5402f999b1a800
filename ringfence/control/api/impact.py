"""What enforcing a version means: whom it governs, and what of the traffic it would block."""

from collections import Counter

from pydantic import BaseModel, Field

from ringfence.control.alerts import format_rules, format_traffic
from ringfence.control.policies import load_tree, load_workspace
from ringfence.control.services import Services
from ringfence.control.tallies import fold, role_name
from ringfence.control.times import format_time
from ringfence.model.flow import Category
from ringfence.model.ids import TenantId, Version, WorkspaceName
from ringfence.model.policy import Action
from ringfence.model.tally import Cause, Tally
from ringfence.policy.ends import members
from ringfence.store.relational.verdicts import told_since

MOST_BLOCKED = 100
"""Kinds of conversations that are told of, those with the most conversations first."""


class GovernedView(BaseModel):
    """A workload that a version governs, and how many pods or hosts it has."""

    name: str
    members: int


class BlockedView(BaseModel):
    """Conversations of one kind that passed and that a version denies."""

    consumer: str
    provider: str
    protocol: str
    port: str
    denied_by: list[str]
    conversations: int
    last: str


class ImpactView(BaseModel):
    """Whom a version governs, and what it would have blocked while it was under analysis."""

    governed: list[GovernedView]
    seconds: int = Field(description="The time that `blocked` tells of, up to now.")
    analysed: bool = Field(description="Whether it is under analysis: else nothing is known.")
    conversations: int = Field(description="Of all that it would have blocked.")
    blocked: list[BlockedView]
    untold: int = Field(description="Kinds of conversations that there was no room to tell.")


async def impact_of(
    services: Services,
    tenant: TenantId,
    named: tuple[WorkspaceName, Version],
    seconds: int,
    *,
    analysed: bool,
) -> ImpactView:
    """The impact of a version, by the analysis of the last seconds."""
    now_ns, snapshot = services.clock(), services.inventory.timeline.latest()
    async with services.database.read() as connection:
        tree = await load_tree(connection, tenant)
        workspace, _ = await load_workspace(connection, tenant, *named)
        told = await told_since(
            connection, tenant, now_ns - seconds * 10**9, now_ns, named,
            categories=(Category.ESCAPED,),
        )  # fmt: skip
    within = members(tree, snapshot, workspace.scope) & snapshot.subjects
    governed = Counter(role_name(snapshot.items[at]) for at in within)
    by_cause: dict[Cause, Tally] = {}
    for one in told:
        fold(by_cause, one.tally)
    tallies = sorted(by_cause.values(), key=lambda one: (-one.conversations, repr(one.cause)))
    return ImpactView(
        governed=[GovernedView(name=name, members=governed[name]) for name in sorted(governed)],
        seconds=seconds,
        analysed=analysed,
        conversations=sum(one.conversations for one in tallies),
        blocked=list(map(_blocked, tallies[:MOST_BLOCKED])),
        untold=max(len(tallies) - MOST_BLOCKED, 0),
    )


def _blocked(one: Tally) -> BlockedView:
    protocol, port = format_traffic(one.cause)
    rules = [rule for _, rule in one.cause.rules]
    return BlockedView(
        consumer=one.cause.consumer,
        provider=one.cause.provider,
        protocol=protocol,
        port=port,
        denied_by=format_rules(rule for rule in rules if rule.action is Action.DENY),
        conversations=one.conversations,
        last=format_time(one.last_ns),
    )
