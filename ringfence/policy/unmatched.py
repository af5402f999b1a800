"""What policies name that an inventory has nothing for: ends, ports of an end, exceptions.

Names of DNS and address sets are not held against it, for the inventory does not tell what they
mean.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from ringfence.inventory.snapshot import Snapshot
from ringfence.model.address import parse_address
from ringfence.model.errors import InputError
from ringfence.model.ids import PolicyId, WorkspaceName
from ringfence.model.policy import (
    ApiServerEnd,
    CidrEnd,
    End,
    FqdnEnd,
    OwnNodeEnd,
    Policy,
    ServiceEnd,
    Workspace,
)
from ringfence.model.protocol import Port, PortRange, format_protocol
from ringfence.model.ranges import spans, subtract
from ringfence.model.words import counted
from ringfence.policy.ends import API_SERVICE, ResolvedEnd, WorkloadsEnd, query_of
from ringfence.policy.finding import Finding, Oddity
from ringfence.policy.layer import OrderedRule
from ringfence.policy.order import PolicySet
from ringfence.policy.parties import Parties
from ringfence.policy.parts import declared

Rules = Mapping[tuple[WorkspaceName, PolicyId], Sequence[int]]
"""The places of the rules that each policy comes to."""


def rules_of(policies: PolicySet) -> Rules:
    """Where the rules of each policy stand, in order."""
    places: dict[tuple[WorkspaceName, PolicyId], list[int]] = {}
    for at, rule in enumerate(policies.rules):
        if name := rule.decision.policy:
            places.setdefault((rule.decision.workspace, name), []).append(at)
    return places


def unmatched(policies: PolicySet, judged: Iterable[Workspace]) -> Iterator[Finding]:
    """What the policies of some workspaces, which are among those given, name in vain."""
    parties, rules = Parties(policies), rules_of(policies)
    for workspace in judged:
        for policy in workspace.policies:
            if policy.review:
                continue
            parts = [policies.rules[at] for at in rules[workspace.name, policy.id]]
            told = [*_ends(policies, workspace, policy, parts)]
            if not told and not any(map(parties.deciding, parts)):
                scope = f"neither end is a workload of scope {workspace.scope!r}"
                told = [(Oddity.MATCHES_NOTHING, f"{scope}, so it decides nowhere")]
            for kind, why in told:
                yield Finding(kind, workspace.name, policy.id, why)


def _ends(
    policies: PolicySet, workspace: Workspace, policy: Policy, parts: Sequence[OrderedRule]
) -> Iterator[tuple[Oddity, str]]:
    if isinstance(policy.consumer, OwnNodeEnd) and isinstance(policy.provider, OwnNodeEnd):
        yield Oddity.MATCHES_NOTHING, "each end is the node of the other, and no node runs on one"
        return
    for role, end in (("consumer", policy.consumer), ("provider", policy.provider)):
        who = policies.resolve(end, policy.action, workspace)
        if isinstance(end, ServiceEnd | ApiServerEnd) and who.unknown:
            reach = "everybody" if who.anyone else "nobody"
            why = f"there is no {_service(end)}, so {policy.action} means {reach}"
            yield Oddity.NO_SUCH_SERVICE, f"{role}: {why}"
            continue
        told = [*_end(policies, workspace, end, who)]
        if role == "provider" and not told:
            told = [*_ports(policy, end, who, policies.snapshot)]
        elif isinstance(end, ApiServerEnd) and not any(_somebody(one.consumer) for one in parts):
            told = [f"{_service(end)} has no endpoints"]
        for why in told:
            yield Oddity.MATCHES_NOTHING, f"{role}: {why}"


def _end(policies: PolicySet, workspace: Workspace, end: End, who: ResolvedEnd) -> Iterator[str]:
    """Why an end, or an exception of it, is nothing."""
    if isinstance(end, FqdnEnd) and _is_address(end.name):
        yield f"{end.name} is an address, and no name of DNS: write `cidr: {end.name}`"
    elif isinstance(end, CidrEnd):
        if not who.ranges:
            yield "its exceptions leave no address"
        blocks = spans(end.networks)
        for one in end.exceptions:
            if subtract(blocks, spans([one])) == blocks:
                yield f"exception {one} has no address of its blocks"
    elif isinstance(end, WorkloadsEnd) and not who.items:
        snapshot = policies.snapshot
        meant = snapshot.select(query_of(end, workspace, policies.tree))
        pods = len(meant & (snapshot.workloads - snapshot.subjects))
        hosts = f"only host-network pods ({counted(pods, 'pod')}), each of which is its node"
        yield f"it matches {hosts if pods else 'no workload'}"


def _ports(policy: Policy, end: End, who: ResolvedEnd, snapshot: Snapshot) -> Iterator[str]:
    """The ports of a policy that its provider has not."""
    protocol, zero = format_protocol(policy.protocol), PortRange(0, 0)
    if not isinstance(end, ServiceEnd | ApiServerEnd):
        for port in policy.ports:
            if port == zero:
                yield "port 0 is never used"
            elif isinstance(port, str) and not _has(policy.protocol, port, who, snapshot):
                yield f"none of its workloads has a {protocol} port of the name {port!r}"
        return
    asked: Sequence[Port] = policy.ports or [PortRange(0, 65535)]
    for port in asked:
        if not _has(policy.protocol, port, who, snapshot):
            what = f"{protocol} port {port}" if policy.ports else f"{protocol} port"
            yield f"{_service(end)} has no {what}; it has {_listed(who, snapshot)}"


def _has(protocol: int | None, port: Port, who: ResolvedEnd, snapshot: Snapshot) -> bool:
    """Whether a Service of the end has the port, or by name one of its workloads."""
    if isinstance(port, str):
        return any(declared(protocol, {port}, who, snapshot))
    ports = (one for at in who.services if (it := snapshot.items[at].service) for one in it.ports)
    return any(one.port in port and protocol in (None, one.protocol) for one in ports)


def _listed(who: ResolvedEnd, snapshot: Snapshot) -> str:
    ports = {one for at in who.services if (it := snapshot.items[at].service) for one in it.ports}
    named = sorted((format_protocol(one.protocol), one.port, one.name) for one in ports)
    told = (f"{kind} {port}{f' ({name})' if name else ''}" for kind, port, name in named)
    return ", ".join(told) or "none"


def _service(end: ServiceEnd | ApiServerEnd) -> str:
    named = end if isinstance(end, ServiceEnd) else API_SERVICE
    where = f" in {end.kubernetes_cluster}" if end.kubernetes_cluster else ""
    return f"Service {named.namespace}/{named.name}{where}"


def _somebody(end: ResolvedEnd) -> bool:
    return bool(end.items or end.ranges or end.anyone)


def _is_address(name: str) -> bool:
    try:
        parse_address(name)
    except InputError:
        return False
    return True
