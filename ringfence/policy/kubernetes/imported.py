"""Workspaces that hold the policies of a Kubernetes cluster as they were when imported."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ringfence.model.ids import ClusterId, ScopeName, WorkspaceName
from ringfence.model.manifest import Metadata, PolicyManifest
from ringfence.policy.difference import PartDifference, differences
from ringfence.policy.kubernetes.held import HeldPolicy, hold
from ringfence.policy.kubernetes.manifests import Manifest, read_policies

_NO_SCOPE = ScopeName("")


@dataclass(frozen=True, slots=True)
class ImportedWorkspace:
    """Read-only: it is changed where its policies are, and by importing them again.

    It is bound to no scope: it governs the pods of its Kubernetes cluster.
    """

    name: WorkspaceName
    cluster: ClusterId
    policies: tuple[HeldPolicy, ...]
    scope: ScopeName = _NO_SCOPE
    primary: bool = False

    @property
    def document(self) -> str:
        """What is kept of it: a manifest on each line."""
        return "".join(f"{one.manifest}\n" for one in self.policies)


@lru_cache(maxsize=256)
def read_imported(name: WorkspaceName, cluster: ClusterId, document: str) -> ImportedWorkspace:
    """The workspace of a document."""
    return ImportedWorkspace(name, cluster, hold(document.split("\n")[:-1]))


def manifest_texts(manifests: Iterable[Manifest]) -> list[str]:
    """What the policies among the manifests say; raises ManifestError for what is not sound."""
    given = [one for one in manifests if one.is_policy]
    found = []
    for one, policy in zip(given, read_policies(given), strict=True):
        place, spec = Metadata(policy.name, policy.namespace), one.object.get("spec")
        try:
            found.append(str(PolicyManifest(one.object["apiVersion"], policy.kind, place, spec)))
        except (TypeError, ValueError) as error:  # YAML can say what JSON cannot
            raise one.refusal(error) from error
    return found


def imported_difference(
    old: ImportedWorkspace | None, new: ImportedWorkspace
) -> tuple[PartDifference, ...]:
    """What differs between two imports, policy by policy; all of the new one without an old."""
    return tuple(differences(_parts(old) if old else {}, _parts(new)))


def _parts(workspace: ImportedWorkspace) -> dict[str, Any]:
    """By each policy's name, what it says."""
    return {one.policy.display: json.loads(one.manifest)["spec"] for one in workspace.policies}
