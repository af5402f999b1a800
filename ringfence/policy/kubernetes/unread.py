"""Which fields of a policy nobody reads: where one is misspelt, the policy says something else."""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from ringfence.policy.kubernetes import schema
from ringfence.policy.kubernetes.cluster_policy import CLUSTER_NETWORK_POLICY
from ringfence.policy.kubernetes.network_policy import NETWORK_POLICY

_OBJECT = {"apiVersion", "kind", "metadata", "spec", "status"}


def unread_fields(manifest: Mapping[str, Any]) -> Iterator[str]:
    """The paths of a policy's fields that its kind does not have, such as `spec.polcyTypes`.

    None are told within `metadata`, and within the peers of tiered policies, where an unknown one
    is nobody in an ALLOW and everybody in a DENY.
    """
    yield from (key for key in manifest if key not in _OBJECT)
    of_kind = manifest.get("kind") == NETWORK_POLICY
    spec = schema.NetworkPolicySpec if of_kind else schema.TieredSpec
    other = "ports" if manifest.get("kind") == CLUSTER_NETWORK_POLICY else "protocols"
    yield from _unread(manifest.get("spec"), msgspec.inspect.type_info(spec), "spec", other)


def _unread(value: object, kind: msgspec.inspect.Type, path: str, other: str) -> Iterator[str]:
    """`other` is the field of tiered rules that those of another version have."""
    match kind, value:
        case msgspec.inspect.StructType(fields=fields), dict():
            known = {field.encode_name: field.type for field in fields}
            if kind.cls is schema.TieredRule:
                del known[other]
            for key, one in value.items():
                here = f"{path}.{key}"
                if key in known:
                    yield from _unread(one, known[key], here, other)
                else:
                    yield here
        case msgspec.inspect.ListType(item_type=item), list():
            for at, one in enumerate(value):
                yield from _unread(one, item, f"{path}[{at}]", other)
        case msgspec.inspect.UnionType(types=types), _:
            for one_of in types:
                yield from _unread(value, one_of, path, other)
