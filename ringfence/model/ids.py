"""Identifiers, each a type of its own so that one kind never stands in for another."""

import re
from typing import NewType

from ringfence.model.errors import InputError

TenantId = NewType("TenantId", str)
ClusterId = NewType("ClusterId", str)
"""A Kubernetes cluster's id; NO_CLUSTER for what lives outside every Kubernetes cluster."""
NO_CLUSTER = ClusterId("")
ItemKey = NewType("ItemKey", str)
"""An inventory item: `<Kubernetes cluster>/<kind>/<uid>`; see `item_key`."""
RevisionId = NewType("RevisionId", int)
"""One life of one version of an item. Unsigned 64 bits; 0 means an address that no item held."""
NodeName = NewType("NodeName", str)
ScopeName = NewType("ScopeName", str)
WorkspaceName = NewType("WorkspaceName", str)
FilterName = NewType("FilterName", str)
AddressSetName = NewType("AddressSetName", str)
PolicyId = NewType("PolicyId", str)
Version = NewType("Version", int)
"""A workspace's policies as of one commit, counted from 1 and written p1, p2, …"""

LAST_VERSION = 2**31 - 1
"""What a column of 32 bits holds."""

DEFAULT_TENANT = TenantId("default")


NETWORK_KEYS = "/network/"
"""What the keys of uploaded networks begin with, and no others: they are in no cluster."""


def item_key(cluster: ClusterId, kind: str, uid: str) -> ItemKey:
    """The key of an inventory item; `kind` is an `ItemKind`, `uid` unique within both."""
    return ItemKey(f"{cluster}/{kind}/{uid}")


def parse_version(text: str) -> tuple[WorkspaceName, Version | None]:
    """Read `shop@3`, `shop@p3`, or `shop` for the latest; raises InputError."""
    name, at, version = text.partition("@")
    number = version.removeprefix("p")
    if at and not (re.fullmatch("[1-9][0-9]{0,9}", number) and int(number) <= LAST_VERSION):
        raise InputError(f"{text!r} is not a workspace version: write {name}@p3")
    return WorkspaceName(name), Version(int(number)) if at else None
