"""The rules of a workload: those that its policies became, and what the kernel made of them."""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from ringfence.control.auth import PrincipalDep
from ringfence.control.errors import NotFoundError
from ringfence.control.policies import load_judged_by
from ringfence.control.services import ServicesDep
from ringfence.control.trial import is_elsewhere, judged_before
from ringfence.model.errors import InputError
from ringfence.model.icmp import NAMES as ICMP_NAMES
from ringfence.model.icmp import IcmpType, format_icmp_type
from ringfence.model.policy import Action, Direction
from ringfence.model.protocol import PortRange, format_protocol
from ringfence.policy.backends.iptables_told import finder
from ringfence.policy.backends.nftables_told import is_lookup, judges_at, stands_for
from ringfence.policy.compile import compile_policies
from ringfence.policy.handle import tell_handle
from ringfence.policy.hypothetical import find_workload
from ringfence.policy.listed import ListedRule, Listing, Members, listed
from ringfence.policy.program import NodePolicy, Rule
from ringfence.store.relational.trials import load_trial
from ringfence.wire.generated.agent_pb2 import Inspected, KernelRule

router = APIRouter(tags=["rules"])


class MembersResponse(BaseModel):
    """Who a set of addresses holds: the first by name, or as blocks where no workload is."""

    set: str
    first: list[str]
    count: int = Field(description="How many there are.")


class KernelRuleResponse(BaseModel):
    """A rule as nft or `iptables-save -c` prints it; packets, bytes: null where nothing counts."""

    chain: str
    handle: int
    text: str
    packets: int | None
    bytes: int | None


class RuleResponse(BaseModel):
    """One rule of a workload at its place in order; null peers and local mean any address.

    `program` counts from 1, one for each layer that governs the workload, and each must allow; 0
    are fail-safes. `hook` prerouting is what a node receives for Services. Null `packets` mean that
    the kernel was not asked, or that no rule of its own stands for this one. Where lookups stand
    for a rule that widens, they are those of all such rules of its policy.
    """

    direction: Direction
    hook: str
    program: int
    place: int
    action: Action
    rejects: bool = Field(description="Of a DENY: whether it answers.")
    traffic: str
    peers: MembersResponse | None
    local: MembersResponse | None
    policy: str
    handle: str
    widenings: list[str] = Field(description="What it admits beyond its policy.")
    packets: int | None
    kernel: list[KernelRuleResponse]


class RulesResponse(BaseModel):
    """All rules of one workload.

    `lookups` are the kernel's rules that stand for many of these. `problem` is why the kernel could
    not be asked, null if it was or was not to be.
    """

    workload: str
    kubernetes_cluster: str
    node: str
    rules: list[RuleResponse]
    notes: list[str]
    lookups: list[KernelRuleResponse]
    problem: str | None


class RulesQuery(BaseModel):
    """Whose rules."""

    workload: str
    live: bool = Field(default=False, description="Also ask its node's agent for the kernel's.")


@router.get("/rules")
async def rules(
    services: ServicesDep, principal: PrincipalDep, asked: Annotated[RulesQuery, Query()]
) -> RulesResponse:
    """List a workload's rules by what is enforced at its node now."""
    async with services.database.read() as connection:
        judged_by = await load_judged_by(connection, principal.tenant)
        trial = await load_trial(connection, principal.tenant)
        before = await judged_before(connection, principal.tenant, judged_by, trial)
    snapshot = services.inventory.timeline.latest()
    moment = services.inventory.now()
    try:
        position, notes = find_workload(snapshot, asked.workload)
    except InputError as error:
        raise NotFoundError(str(error)) from error
    if trial and is_elsewhere(trial, snapshot.items[position]):
        judged_by = before
        notes = (*notes, f"revision {trial.revision} is on trial at other nodes only")

    def work() -> tuple[Listing, NodePolicy | None]:
        policy_set = judged_by.ringfence(snapshot, moment)
        kubernetes = tuple(judged_by.kubernetes(snapshot))
        around = services.enforcement.surroundings
        compiled = compile_policies(policy_set, around.control_plane, around.access, kubernetes)
        found = listed(snapshot, compiled, position)
        return found, compiled.policies.get((found.item.cluster, found.node))

    found, policy = await asyncio.to_thread(work)
    live = Inspected()
    if asked.live:
        live = await services.inspections.ask((found.item.cluster, found.node), found.uid)
    kernel = await asyncio.to_thread(lambda: list(beside(found.rules, live.rules, policy)))
    return RulesResponse(
        workload=found.item.display,
        kubernetes_cluster=found.item.cluster,
        node=found.node,
        rules=[
            _rule(rule, held, admitted(rule, live.rules))
            for rule, held in zip(found.rules, kernel, strict=True)
        ],
        notes=[*notes, *found.widenings],
        lookups=[kernel_rule(one) for one in live.rules if is_lookup(one.text)],
        problem=live.problem or None,
    )


def beside(
    rules: Iterable[ListedRule], kernel: Sequence[KernelRule], policy: NodePolicy | None
) -> Iterator[list[KernelRule]]:
    """For each rule of a policy the kernel's that stand for it alone.

    One for each family at most; of iptables more, where it has more ports than one line asks.
    """
    iptables = finder(policy) if policy else None
    by_handle: dict[str, list[KernelRule]] = {}
    for found in kernel:
        by_handle.setdefault(found.comment, []).append(found)
    for one in rules:
        yield [
            found
            for found in by_handle.get(one.rule.handle, ())
            if stands_for(one.rule, one.hook, found.chain, found.comment, found.text)
            or (iptables and iptables(one.rule, one.hook, found.chain, found.text))
        ]


def admitted(one: ListedRule, kernel: Iterable[KernelRule]) -> list[int]:
    """What the lookups at a rule's hook counted for its policy, where it admits more than that."""
    handle = one.rule.handle
    return [
        found.admitted[handle]
        for found in kernel
        if handle in found.admitted and judges_at(one.hook, found.chain)
    ]


def _rule(one: ListedRule, kernel: Sequence[KernelRule], in_lookups: Sequence[int]) -> RuleResponse:
    counted = [*(found.packets for found in kernel if found.counted), *in_lookups]
    return RuleResponse(
        direction=one.direction,
        hook=one.hook,
        program=one.program,
        place=one.place,
        action=one.rule.action,
        rejects=one.rule.rejects,
        traffic=_traffic(one.rule),
        peers=_members(one.peers),
        local=_members(one.local),
        policy=tell_handle(one.rule.handle),
        handle=one.rule.handle,
        widenings=list(one.widenings),
        packets=sum(counted) if counted else None,
        kernel=[kernel_rule(found) for found in kernel],
    )


def _traffic(rule: Rule) -> str:
    """Protocol and ports; of ICMP its messages."""
    written = (
        _message(rule.protocol, ports) if rule.protocol in ICMP_NAMES else str(ports)
        for ports in rule.ports
    )
    return " ".join(filter(None, (format_protocol(rule.protocol), ",".join(written))))


def _message(protocol: int | None, ports: PortRange) -> str:
    code = ports.first & 0xFF if ports.first == ports.last else None
    return format_icmp_type(protocol, IcmpType(ports.first >> 8, code))


def _members(held: Members | None) -> MembersResponse | None:
    if held is None:
        return None
    return MembersResponse(set=held.set, first=list(held.first), count=held.count)


def kernel_rule(found: KernelRule) -> KernelRuleResponse:
    """A rule of the kernel as the API tells it."""
    return KernelRuleResponse(
        chain=found.chain,
        handle=found.handle,
        text=found.text,
        packets=found.packets if found.counted else None,
        bytes=found.bytes if found.counted else None,
    )
