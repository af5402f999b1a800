"""What a Kubernetes policy says, as one line of text: the same for all writings of one policy.

Kept is what has a meaning: status, annotations and the bookkeeping of the API server are left out.
"""

from typing import Any

import msgspec

from ringfence.model.errors import InputError


class Metadata(msgspec.Struct, omit_defaults=True):
    """Where a policy is; the namespace is empty for what is in none."""

    name: str
    namespace: str = ""


class PolicyManifest(msgspec.Struct, rename="camel"):
    """A Kubernetes policy; its `spec` may be anything that JSON can say."""

    api_version: str
    kind: str
    metadata: Metadata
    spec: Any = None

    def __str__(self) -> str:
        """JSON without line breaks, keys sorted."""
        return msgspec.json.encode(self, order="sorted").decode()


def parse_manifest(text: str) -> PolicyManifest:
    """The manifest of a text; raises InputError."""
    try:
        return msgspec.json.decode(text, type=PolicyManifest)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise InputError(f"not a policy's manifest: {error}") from error
