"""What is odd about policies: none of it is an error, all of it is worth a look.

Everything is decided on one inventory and a set of workspaces read in their order, never by
comparing text.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from ringfence.model.ids import PolicyId, Version, WorkspaceName
from ringfence.model.policy import (
    Action,
    AddressSetEnd,
    ClusterEnd,
    End,
    FilterEnd,
    FqdnEnd,
    NamedFilterEnd,
    OwnNodeEnd,
    Policy,
    ScopeEnd,
    ServiceEnd,
    Workspace,
)
from ringfence.model.protocol import WITH_PORTS, PortRange
from ringfence.model.query import And
from ringfence.model.words import counted
from ringfence.policy.ends import ResolvedEnd
from ringfence.policy.fields import format_instant
from ringfence.policy.layer import OrderedRule
from ringfence.policy.needless import Needless, needless
from ringfence.policy.order import Enforced, PolicySet
from ringfence.policy.parties import Parties


class Oddity(StrEnum):
    """The kinds of findings."""

    SHADOWED = "shadowed"
    CONTRADICTORY = "contradictory"
    REDUNDANT = "redundant"
    TOO_BROAD = "too-broad"
    UNUSED = "unused"
    EXPIRED = "expired"
    EXPIRING = "expiring"
    MATCHES_NOTHING = "matches-nothing"
    NO_SUCH_SERVICE = "no-such-service"


ODDITIES = {
    Oddity.SHADOWED: "Policies that are read before decide all its connections, as it says.",
    Oddity.CONTRADICTORY: "Policies before decide all its connections, and not as it says.",
    Oddity.REDUNDANT: "What would decide in its place says the same.",
    Oddity.TOO_BROAD: "It allows any port to or from everybody.",
    Oddity.UNUSED: "No connection was observed that it decides.",
    Oddity.EXPIRED: "It counts no more.",
    Oddity.EXPIRING: "Soon it counts no more.",
    Oddity.MATCHES_NOTHING: "One of its ends is nobody.",
    Oddity.NO_SUCH_SERVICE: "The inventory has no such Service.",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """Something odd about a policy; `others` are policies, WORKSPACE/POLICY, that make it so."""

    kind: Oddity
    workspace: WorkspaceName
    policy: PolicyId
    why: str
    others: tuple[str, ...] = ()


_Told = tuple[Oddity, str, tuple[str, ...]]


def lint(
    policies: PolicySet, about: Collection[WorkspaceName], *, known: bool = True
) -> list[Finding]:
    """What is odd about the policies of some workspaces among all that are given.

    By workspace, and in the order in which each one lists its policies. `known` is whether the
    inventory is a real one: that of `policy.universe` tells neither whom there is, nor what else
    would decide.
    """
    rules: dict[tuple[WorkspaceName, PolicyId], list[OrderedRule]] = {}
    alone: list[int] = []
    for at, rule in enumerate(policies.rules):
        decision = rule.decision
        if decision.policy is not None and decision.workspace in about:
            parts = rules.setdefault((decision.workspace, decision.policy), [])
            parts.append(rule)
            alone = [*alone, at] if len(parts) == 1 else alone[:-1]
    parties = Parties(policies)
    unneeded = needless(policies, alone)
    why = {one.rule.decision.place: one for one in unneeded if known or one.shadowed}
    found: list[Finding] = []
    for workspace, _ in sorted(policies.enforced, key=lambda one: one[0].name):
        for policy in workspace.policies if workspace.name in about else ():
            parts = rules[workspace.name, policy.id]
            rule = parts[0]
            told: list[_Told] = []
            if known:
                told += _nobody(policies, workspace, policy, rule)
            if not told and (one := why.get(rule.decision.place)):
                told.append(_needless(one))
            elif not told and known and not any(map(parties.deciding, parts)):
                told.append((Oddity.MATCHES_NOTHING, _outside(rule), ()))
            if broad := _too_broad(policies, policy, rule):
                told.append((Oddity.TOO_BROAD, broad, ()))
            found += [
                Finding(kind, workspace.name, policy.id, text, others)
                for kind, text, others in told
            ]
    return found


def _outside(rule: OrderedRule) -> str:
    scope = rule.decision.scope
    return f"neither end is a workload of scope {scope!r}, so it decides nowhere"


def _nobody(
    policies: PolicySet, workspace: Workspace, policy: Policy, rule: OrderedRule
) -> Iterator[_Told]:
    """Ends that the inventory has nothing for."""
    for role, end, resolved in (
        ("consumer", policy.consumer, rule.consumer),
        ("provider", policy.provider, rule.provider),
    ):
        if isinstance(end, FqdnEnd | AddressSetEnd):
            continue  # DNS or a list tells, and not the inventory
        if isinstance(end, ServiceEnd) and resolved.unknown:
            where = f" in {end.kubernetes_cluster}" if end.kubernetes_cluster else ""
            reach = "everybody" if resolved.anyone else "nobody"
            said = f"{role}: there is no Service {end.namespace}/{end.name}{where}"
            yield Oddity.NO_SUCH_SERVICE, f"{said}, so {policy.action} means {reach}", ()
        elif _is_nobody(end, resolved):
            said = "it matches no workload"
            if hosts := _host_network(policies, workspace, end):
                pods = counted(hosts, "pod")
                said = f"it matches only host-network pods ({pods}), each of which is its node"
            yield Oddity.MATCHES_NOTHING, f"{role}: {said}", ()


def _is_nobody(end: End, resolved: ResolvedEnd) -> bool:
    named = resolved.items or resolved.ranges or resolved.services
    return not (named or resolved.anyone or resolved.unknown or isinstance(end, OwnNodeEnd))


def _needless(one: Needless) -> _Told:
    others = tuple(map(_name, one.others))
    listed = ", ".join(others)
    actions = {rule.action for rule in one.others}
    action = one.rule.action
    if not one.shadowed:
        return (
            Oddity.REDUNDANT,
            f"without it {listed} would decide, and say {action} as well",
            others,
        )
    if actions == {action}:
        return Oddity.SHADOWED, f"{listed} decides all its connections before it", others
    said = " and ".join(sorted(actions))
    return (
        Oddity.CONTRADICTORY,
        f"{listed} decides all its connections before it, and says {said}, not {action}",
        others,
    )


def _name(rule: OrderedRule) -> str:
    return f"{rule.decision.workspace}/{rule.decision.policy or 'catch-all'}"


def _too_broad(policies: PolicySet, policy: Policy, rule: OrderedRule) -> str:
    """Why an ALLOW is too broad: every port, and everybody at one end; empty if it is not.

    A Service has few ports, and a protocol without ports has one meaning.
    """
    if policy.action is not Action.ALLOW or isinstance(policy.provider, ServiceEnd):
        return ""
    everything = policy.protocol is None
    ports = sum(
        part.last - part.first + 1 if isinstance(part, PortRange) else 1 for part in policy.ports
    )
    if not everything and (policy.protocol not in WITH_PORTS or 0 < ports < _PORTS):
        return ""
    everybody = [
        role
        for role, end in (("consumer", rule.consumer), ("provider", rule.provider))
        if _is_everybody(policies, end)
    ]
    if not everybody:
        return ""
    what = "every protocol" if everything else "every port"
    return f"it allows {what}, and its {' and its '.join(everybody)} is everybody"


def _is_everybody(policies: PolicySet, end: ResolvedEnd) -> bool:
    """Whether an end is every address of IPv4 or of IPv6, or every workload of several."""
    widest = any(last - first + 1 >= _V4_ADDRESSES for first, last in end.ranges)
    subjects = policies.snapshot.subjects
    return end.anyone or widest or (len(subjects) > 1 and end.items == subjects)


_V4_ADDRESSES = 2**32
_PORTS = 65535
"""Port 0 is never used, so 1-65535 are all."""


def _host_network(policies: PolicySet, workspace: Workspace, end: End) -> int:
    """How many host-network pods an end would match if they were not their nodes."""
    match end:
        case ScopeEnd(scope):
            query = policies.tree.full_query(scope)
        case ClusterEnd(name):
            own = next(one.query for one in workspace.clusters if one.name == name)
            query = And((policies.tree.full_query(workspace.scope), own))
        case FilterEnd(query):
            pass
        case NamedFilterEnd(named):
            query = policies.tree.filters[named].query
        case _:
            return 0
    snapshot = policies.snapshot
    return len(snapshot.select(query) & (snapshot.workloads - snapshot.subjects))


def lint_sets(
    workspaces: Iterable[Workspace],
    versions: Mapping[WorkspaceName, Version],
    about: Collection[WorkspaceName],
) -> Iterator[tuple[list[Enforced], set[WorkspaceName]]]:
    """Which workspaces to read together, and which of them to judge so.

    All primary ones together, and each secondary one in the place of its scope's primary one.
    """
    all_of_them = [(one, versions[one.name]) for one in workspaces]
    primary = [pair for pair in all_of_them if pair[0].primary]
    if judged := {one.name for one, _ in primary} & set(about):
        yield primary, judged
    for one, version in all_of_them:
        if not one.primary and one.name in about:
            others = [pair for pair in primary if pair[0].scope != one.scope]
            yield [*others, (one, version)], {one.name}


def expiring(workspaces: Iterable[Workspace], now_ns: int, within_ns: int) -> list[Finding]:
    """The policies that have expired, and those that do so within a time from now."""
    return [
        Finding(
            Oddity.EXPIRED if policy.is_expired(now_ns) else Oddity.EXPIRING,
            workspace.name,
            policy.id,
            f"it {verb} on {format_instant(policy.expires_ns)}{_whose(policy)}",
        )
        for workspace in workspaces
        for policy in workspace.policies
        if policy.expires_ns is not None and policy.is_expired(now_ns + within_ns)
        for verb in ["expired" if policy.is_expired(now_ns) else "expires"]
    ]


def _whose(policy: Policy) -> str:
    """Whom to ask, and by what, as far as the policy says."""
    said = {"owner": policy.owner, "ticket": policy.ticket}
    told = ", ".join(f"{what} {value}" for what, value in said.items() if value)
    return f" ({told})" if told else ""


def unused(
    bound: Iterable[Enforced], usage: Mapping[tuple[WorkspaceName, PolicyId], int], time: str
) -> list[Finding]:
    """The policies that decided over no connection; `usage` counts them, `time` says since when."""
    return [
        Finding(
            Oddity.UNUSED,
            workspace.name,
            policy.id,
            f"it decides over none of the connections observed in the last {time}",
        )
        for workspace, _ in bound
        for policy in workspace.policies
        if not usage.get((workspace.name, policy.id)) and _is_counted(policy)
    ]


def _is_counted(policy: Policy) -> bool:
    """Whether connections tell its use: a log-only one decides none, DNS forgets its names."""
    by_name = any(isinstance(end, FqdnEnd) for end in (policy.consumer, policy.provider))
    return policy.action is not Action.LOG and not by_name
