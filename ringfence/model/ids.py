"""Identifiers, each a type of its own so that one kind never stands in for another."""

from typing import NewType

TenantId = NewType("TenantId", str)
ClusterId = NewType("ClusterId", str)
"""A Kubernetes cluster's id; empty for what lives outside every Kubernetes cluster."""
ItemKey = NewType("ItemKey", str)
"""An inventory item: `<Kubernetes cluster>/<kind>/<uid>`; see `item_key`."""
RevisionId = NewType("RevisionId", int)
"""One life of one version of an item. Unsigned 64 bits; 0 means an address that no item held."""
NodeName = NewType("NodeName", str)
ScopeName = NewType("ScopeName", str)
WorkspaceName = NewType("WorkspaceName", str)
PolicyId = NewType("PolicyId", str)
Version = NewType("Version", int)
"""A workspace's policies as of one commit, counted from 1 and written p1, p2, …"""

DEFAULT_TENANT = TenantId("default")


def item_key(cluster: ClusterId, kind: str, uid: str) -> ItemKey:
    """The key of an inventory item; `kind` is an `ItemKind`, `uid` unique within both."""
    return ItemKey(f"{cluster}/{kind}/{uid}")
