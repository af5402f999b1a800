"""What is odd about policies: none of it is an error, all of it is worth a look.

Everything is decided on one inventory and a set of workspaces read in their order, never by
comparing text.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping

from ringfence.model.address import parse_network
from ringfence.model.ids import PolicyId, Version, WorkspaceName
from ringfence.model.policy import (
    Action,
    CidrEnd,
    End,
    FqdnEnd,
    OutsideEnd,
    Policy,
    ServiceEnd,
    Workspace,
)
from ringfence.model.protocol import WITH_PORTS, PortRange
from ringfence.model.ranges import spans, subtract
from ringfence.policy.ends import ResolvedEnd
from ringfence.policy.fields import format_instant
from ringfence.policy.finding import Finding, Oddity
from ringfence.policy.layer import OrderedRule
from ringfence.policy.needless import Needless, needless
from ringfence.policy.order import Enforced, PolicySet
from ringfence.policy.unmatched import rules_of, unmatched


def lint(policies: PolicySet, judged: Iterable[Workspace], *, known: bool = True) -> list[Finding]:
    """What is odd about the policies of some workspaces among all that are given.

    By workspace, and in the order in which each one lists its policies. `known` is whether the
    inventory is a real one: that of `policy.universe` tells neither whom there is, nor what else
    would decide. Then `judged` are as people wrote them, and what is left out there is not told.
    """
    rules = rules_of(policies)
    about = sorted(judged, key=lambda one: one.name)
    found = list(unmatched(policies, about)) if known else []
    said = [
        (workspace, policy, rules[workspace.name, policy.id])
        for workspace in about
        for policy in workspace.policies
        if (workspace.name, policy.id) in rules
    ]
    alone = sorted(
        places[0]
        for _, policy, places in said
        if len(places) == 1 and (known or not _may_mean_everybody(policy))
    )
    found += [_needless(one) for one in needless(policies, alone) if known or one.shadowed]
    for workspace, policy, places in said:
        if broad := _too_broad(policies, policy, policies.rules[places[0]]):
            found.append(Finding(Oddity.TOO_BROAD, workspace.name, policy.id, broad))
    order = {(workspace.name, policy.id): at for at, (workspace, policy, _) in enumerate(said)}
    return sorted(found, key=lambda one: order[one.workspace, one.policy])


def _may_mean_everybody(policy: Policy) -> bool:
    """Whether it does in some inventories: see `policy.universe`."""
    return policy.action is Action.DENY and isinstance(policy.provider, ServiceEnd)


def _needless(one: Needless) -> Finding:
    others = tuple(map(_name, one.others))
    listed = ", ".join(others)
    action, actions = one.rule.action, {rule.action for rule in one.others}
    if not one.shadowed:
        kind, why = (
            Oddity.REDUNDANT,
            f"without it {listed} would decide, and say {action} as well",
        )
    else:
        kind, why = Oddity.SHADOWED, f"{listed} decides all its connections before it"
        if actions != {action}:
            kind = Oddity.CONTRADICTORY
            why += f", and says {' and '.join(sorted(actions))}, not {action}"
    decision = one.rule.decision
    assert decision.policy, "a catch-all is never judged"
    return Finding(kind, decision.workspace, decision.policy, why, others)


def _name(rule: OrderedRule) -> str:
    return f"{rule.decision.workspace}/{rule.decision.policy or 'catch-all'}"


def _too_broad(policies: PolicySet, policy: Policy, rule: OrderedRule) -> str:
    """Why an ALLOW is too broad: every port, and everybody at one end; empty if it is not.

    A Service has few ports, and a protocol without ports has one meaning.
    """
    if policy.action is not Action.ALLOW or isinstance(policy.provider, ServiceEnd):
        return ""
    everything = policy.protocol is None
    ports = tuple((one.first, one.last) for one in policy.ports if isinstance(one, PortRange))
    fewer = bool(policy.ports and subtract(_PORTS, ports))
    if not everything and (policy.protocol not in WITH_PORTS or fewer):
        return ""
    everybody = [
        role
        for role, end, resolved in (
            ("consumer", policy.consumer, rule.consumer),
            ("provider", policy.provider, rule.provider),
        )
        if _is_everybody(policies, end, resolved)
    ]
    if not everybody:
        return ""
    what = "every protocol" if everything else "every port"
    return f"it allows {what}, and its {' and its '.join(everybody)} is everybody"


def _is_everybody(policies: PolicySet, end: End, resolved: ResolvedEnd) -> bool:
    """Whether an end is all of IPv4 or of IPv6, all hosts outside, or all of several workloads."""
    ranges = end.ranges if isinstance(end, CidrEnd) else resolved.ranges
    subjects = policies.snapshot.subjects
    return (
        isinstance(end, OutsideEnd)
        or any(not subtract(family, ranges) for family in _FAMILIES)
        or (len(subjects) > 1 and resolved.items == subjects)
    )


_FAMILIES = [spans([parse_network(text)]) for text in ("0.0.0.0/0", "::/0")]
_PORTS = ((1, 65535),)
"""Port 0 is never used, so these are all."""


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
        if not policy.review
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
    return policy.action is not Action.LOG and not by_name and not policy.review
