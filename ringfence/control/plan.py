"""What a new set of enforced versions would change, and for whom; decided without doing it."""

from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from pyroaring import BitMap

from ringfence.inventory.snapshot import NOWHERE, Snapshot
from ringfence.model.errors import InputError
from ringfence.model.ids import Version, WorkspaceName
from ringfence.model.override import Override
from ringfence.model.policy import Action, Denied, NewPods, Workspace
from ringfence.model.quarantine import Quarantine
from ringfence.model.scope import ScopeTree
from ringfence.model.verdict import EndRole, Stage
from ringfence.model.words import counted
from ringfence.policy.connection import Connection, tabulate
from ringfence.policy.difference import workspace_difference
from ringfence.policy.evaluate import evaluate
from ringfence.policy.layer import OrderedRule
from ringfence.policy.moment import Moment
from ringfence.policy.order import Enforced as EnforcedVersion
from ringfence.policy.order import PolicySet

_NAMED = 5


@dataclass(frozen=True, slots=True)
class Plan:
    """A set of versions to enforce. `refused` says why not to, empty for no reason."""

    revision: int
    workspaces: tuple[tuple[WorkspaceName, Version], ...]
    changes: tuple[str, ...]
    workloads: tuple[str, ...]
    """Names of the workloads for which another set of versions decides."""
    warnings: tuple[str, ...]
    refused: str


def in_force(
    snapshot: Snapshot,
    tree: ScopeTree,
    enforced: Iterable[EnforcedVersion],
    moment: Moment,
    quarantines: Collection[Quarantine],
) -> tuple[PolicySet, str]:
    """What is enforced already, and why that has no meaning any more, empty if it has one.

    It has none where it names what is gone; without it, all that comes after it can still be done.
    """
    try:
        return PolicySet(snapshot, tree, enforced, moment, quarantines), ""
    except InputError as error:
        nothing = PolicySet(snapshot, tree, (), moment, quarantines)
        return nothing, f"what is enforced by now has no meaning any more: {error}"


def describe_changes(
    old: Iterable[EnforcedVersion], new: Iterable[EnforcedVersion]
) -> Iterator[str]:
    """One line for each workspace that changes, and one for each part of it that does.

    What is said to people alone changes no rule.
    """
    before, after = _by_name(old), _by_name(new)
    for name in sorted({*before, *after}):
        was, will = before.get(name), after.get(name)
        if was == will:
            continue
        if will is None:
            yield f"workspace {name}: no longer enforced"
            continue
        workspace, version = will
        catch_all = (
            f"inbound {workspace.catch_all.inbound}, outbound {workspace.catch_all.outbound}"
        )
        new_pods = ", new pods closed" if workspace.new_pods is NewPods.CLOSED else ""
        yield (
            f"workspace {name}: enforce p{version}{f' instead of p{was[1]}' if was else ''}, "
            f"{counted(len(workspace.policies), 'policy', 'policies')}, "
            f"catch-all {catch_all}{new_pods}"
            + (", denied by REJECT" if workspace.denied is Denied.REJECT else "")
        )
        if was:
            for part in workspace_difference(_rules_of(was[0]), _rules_of(workspace)):
                yield f"  {part}"


def _rules_of(workspace: Workspace) -> Workspace:
    return replace(workspace, policies=tuple(policy.rule for policy in workspace.policies))


def affected(old: PolicySet, new: PolicySet) -> tuple[str, ...]:
    """Names of the workloads at which other rules decide, sorted; both of one inventory."""
    before, after = _by_identity(old), _by_identity(new)
    changed = BitMap()
    for identity in {*before, *after}:
        was, will = before.get(identity), after.get(identity)
        if was and will and (was.consumer, was.provider) == (will.consumer, will.provider):
            changed |= was.members ^ will.members
        else:
            changed |= BitMap.union(*(rule.members for rule in (was, will) if rule))
    # A scope that moves in the tree moves its workspace's rules in the order.
    kept = [identity for identity in before if identity in after]
    for was_here, is_here in zip(kept, (one for one in after if one in before), strict=True):
        if was_here != is_here:
            changed |= before[was_here].members | after[is_here].members
    return tuple(sorted(new.snapshot.items[position].display for position in changed))


def _by_identity(policy_set: PolicySet) -> dict[Hashable, OrderedRule]:
    """The rules that decide, in order."""
    return {rule.identity: rule for rule in policy_set.rules if rule.action is not Action.LOG}


def refusal(new: PolicySet, overrides: Collection[Override]) -> str:
    """Why the set ought not to be enforced, empty for no reason."""
    secondary = [workspace.name for workspace, _ in new.enforced if not workspace.primary]
    if secondary:
        return (
            f"only primary workspaces can be enforced, and {', '.join(secondary)} "
            "is a secondary one"
        )
    cut_off = [] if Override.PROBES in overrides else probes_without_policy(new)
    if cut_off:
        named = ", ".join(cut_off[:_NAMED]) + (", …" if len(cut_off) > _NAMED else "")
        return (
            f"the kubelet's probes of {counted(len(cut_off), 'pod')} meet a DENY catch-all and no "
            f"policy ({named}): Kubernetes would restart them. Add a policy with consumer "
            f"`node: own`, or override with `{Override.PROBES}`"
        )
    return ""


def probes_without_policy(policy_set: PolicySet) -> list[str]:
    """Names of the pods whose kubelet's probes a catch-all denies at either end, sorted."""
    snapshot = policy_set.snapshot
    probed, probes = [], []
    for position in snapshot.subjects:
        pod, node = snapshot.items[position], int(policy_set.own_nodes[position])
        if node == NOWHERE or not pod.addresses or not snapshot.items[node].addresses:
            continue
        kubelet, address = snapshot.items[node].addresses[0], pod.addresses[0]
        for protocol, port in pod.probe_ports:
            probed.append(pod.display)
            probes.append(
                Connection(protocol, kubelet, address, port, address, port, home=pod.cluster)
            )
    verdicts = evaluate(policy_set, tabulate(snapshot, probes))
    catch_all = np.array(
        [rule.decision.stage is Stage.CATCH_ALL for rule in policy_set.rules] + [False]
    )
    # UNGOVERNED, -1, finds the last element, which is no catch-all.
    undecided = (
        catch_all[verdicts.deciding(EndRole.CONSUMER)]
        | catch_all[verdicts.deciding(EndRole.PROVIDER)]
    )
    rows = np.flatnonzero(undecided & ~verdicts.allowed)
    return sorted({probed[row] for row in rows})


def _by_name(
    versions: Iterable[EnforcedVersion],
) -> Mapping[WorkspaceName, tuple[Workspace, Version]]:
    return {workspace.name: (workspace, version) for workspace, version in versions}
