"""Policies as a Kubernetes cluster holds them, those that cannot be read among them.

A folder with such a policy is refused, for its author can mend it. In a cluster it is there, and
to leave it out would let through what it may have denied: as the network-policy-api asks of what
is not understood, it fails closed.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ringfence.inventory.snapshot import Snapshot
from ringfence.model.ids import ClusterId
from ringfence.model.policy import Action, Direction
from ringfence.model.verdict import Stage
from ringfence.model.words import named
from ringfence.model.workload import ItemKind
from ringfence.policy.errors import FieldError
from ringfence.policy.kubernetes.manifests import read_policy
from ringfence.policy.kubernetes.network_policy import NETWORK_POLICY
from ringfence.policy.kubernetes.policies import KubernetesPolicy, Pods, PolicyRule
from ringfence.policy.kubernetes.unread import unread_fields

UNREADABLE = "unreadable"
"""The name of the rules of a policy that cannot be read."""
_UNSOUND = (FieldError, RecursionError)
_SUBJECTS = ("podSelector", "subject", "tier", "priority")
"""The fields that say whom a policy concerns, and where in the order it stands."""


@dataclass(frozen=True, slots=True)
class HeldPolicy:
    """A policy and what it says (`model.manifest`); `problem` tells why it cannot be read.

    Such a one stands for a policy at its place that allows nothing to the pods that it concerns,
    in both directions: all that it may concern, if it does not even say that.
    """

    manifest: str
    policy: KubernetesPolicy
    problem: str = ""


def held_in(snapshot: Snapshot, cluster: ClusterId) -> tuple[HeldPolicy, ...]:
    """The policies of a Kubernetes cluster as the inventory has them, sorted by what they say."""
    manifests = (
        item.manifest
        for item in snapshot.items
        if item.kind is ItemKind.KUBERNETES_POLICY and item.cluster == cluster
    )
    return hold(manifests)


def hold(manifests: Iterable[str]) -> tuple[HeldPolicy, ...]:
    """The policies of manifests, sorted by what they say."""
    return tuple(_held(one) for one in sorted(manifests))


@lru_cache(maxsize=1 << 16)
def _held(manifest: str) -> HeldPolicy:
    given = json.loads(manifest)
    try:
        policy = read_policy(given)
        if unread := list(unread_fields(given)):
            # In an ALLOW it may narrow what is allowed.
            raise FieldError(named(unread), f"no field of {policy.kind} that is read here")
        return HeldPolicy(manifest, policy)
    except _UNSOUND as error:
        return HeldPolicy(manifest, _closed(given), str(error))


def _closed(given: dict[str, Any]) -> KubernetesPolicy:
    kind, metadata, spec = given["kind"], given["metadata"], given["spec"]
    kept = {key: spec[key] for key in _SUBJECTS if key in spec} if isinstance(spec, dict) else {}
    try:
        known = read_policy({**given, "spec": kept})
        stage, subject, priority = known.stage, known.subject, known.priority
    except _UNSOUND:
        stage, subject, priority = _unknown(kind, metadata, kept)
    isolates = frozenset(Direction) if stage is Stage.NETWORK_POLICY else frozenset()
    rules = [PolicyRule(UNREADABLE, one, Action.DENY, None, None) for one in Direction]
    return KubernetesPolicy(
        stage,
        kind,
        metadata.get("namespace", ""),
        metadata["name"],
        subject,
        () if isolates else tuple(rules),
        priority,
        isolates,
    )


def _unknown(kind: str, metadata: dict[str, str], kept: dict[str, Any]) -> tuple[Stage, Pods, int]:
    """Where a policy stands that does not even say whom it concerns: all that it may."""
    if kind == NETWORK_POLICY:
        return Stage.NETWORK_POLICY, Pods(metadata.get("namespace", "")), 0
    last = kind == "BaselineAdminNetworkPolicy" or kept.get("tier") == "Baseline"
    return Stage.BASELINE if last else Stage.ADMIN, Pods(()), 0
