"""Policies from manifests, each refused with its file, document, field and what was expected."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ringfence.policy.errors import FieldError, ManifestError
from ringfence.policy.kubernetes.cluster_policy import (
    ADMIN_NETWORK_POLICY,
    BASELINE_ADMIN_NETWORK_POLICY,
    CLUSTER_NETWORK_POLICY,
    cluster_policy,
)
from ringfence.policy.kubernetes.network_policy import NETWORK_POLICY, network_policy
from ringfence.policy.kubernetes.policies import KubernetesPolicy

_VERSIONS = {
    NETWORK_POLICY: ("networking.k8s.io/v1",),
    CLUSTER_NETWORK_POLICY: (
        "policy.networking.k8s.io/v1alpha2",
        "policy.networking.k8s.io/v1beta1",
    ),
    ADMIN_NETWORK_POLICY: ("policy.networking.k8s.io/v1alpha1",),
    BASELINE_ADMIN_NETWORK_POLICY: ("policy.networking.k8s.io/v1alpha1",),
}


@dataclass(frozen=True, slots=True)
class Manifest:
    """One object of a file; `document` counts from 1."""

    file: str
    document: int
    object: dict[str, Any]

    @property
    def kind(self) -> str:
        """The object's kind, empty where it has none."""
        kind = self.object.get("kind")
        return kind if isinstance(kind, str) else ""

    @property
    def is_policy(self) -> bool:
        """Whether the object is a policy of a kind and version that is read here."""
        return is_policy(self.object.get("apiVersion"), self.kind)

    @property
    def is_unread_policy(self) -> bool:
        """Whether the object is a policy of such a kind, of an API or version not read here."""
        return self.kind in _VERSIONS and not self.is_policy

    def refusal(self, error: Exception) -> ManifestError:
        """The error with the place of the object."""
        metadata = self.object.get("metadata")
        named = metadata if isinstance(metadata, dict) else {}
        names = [str(named[key])[:253] for key in ("namespace", "name") if named.get(key)]
        what = "/".join([self.kind or "object without kind", *names])
        return ManifestError(f"{self.file}: document {self.document}: {what}: {error}")


def is_policy(api_version: object, kind: str) -> bool:
    """Whether objects of that kind and version are policies that are read here."""
    return api_version in _VERSIONS.get(kind, ())


def read_policies(manifests: Iterable[Manifest]) -> tuple[KubernetesPolicy, ...]:
    """The policies among the manifests; raises ManifestError for what upstream refuses."""
    found: dict[str, KubernetesPolicy] = {}
    for manifest in manifests:
        if not manifest.is_policy:
            continue
        try:
            policy = read_policy(manifest.object)
        except FieldError as error:
            raise manifest.refusal(error) from error
        if policy.display in found:
            second = FieldError("metadata.name", f"expected one {policy.display}, not a second")
            raise manifest.refusal(second)
        found[policy.display] = policy
    return tuple(found.values())


def read_policy(manifest: Mapping[str, Any]) -> KubernetesPolicy:
    """The policy that an object of one of these kinds states; raises FieldError."""
    given = _without_nulls(manifest)
    if given["kind"] == NETWORK_POLICY:
        return network_policy(given)
    return cluster_policy(given["kind"], given)


def _without_nulls(value: Any) -> Any:
    """The value as the API server reads it, for which null and absent are the same.

    Not so where keys are labels: left out there, one would no longer be required.
    """
    if isinstance(value, Mapping):
        return {
            key: one if key == "matchLabels" else _without_nulls(one)
            for key, one in value.items()
            if one is not None
        }
    return [_without_nulls(one) for one in value] if isinstance(value, list) else value
