"""Shadowed and redundant policies are found, and told from those that only look alike."""

from dataclasses import replace

import pytest

from ringfence.inventory.snapshot import Snapshot
from ringfence.model.ids import RevisionId, Version
from ringfence.model.protocol import TCP
from ringfence.model.scope import ScopeTree
from ringfence.model.workload import Backend, ItemKind, ServicePort, ServiceSpec, ServiceType
from ringfence.policy.document import parse_documents
from ringfence.policy.needless import needless
from ringfence.policy.order import PolicySet
from tests.unit.control.shop import DB, DOCUMENTS, FRONT, NODE, item

HEAD = DOCUMENTS[: DOCUMENTS.index("  - id: front-to-db")]
FROM_FRONT, TO_DB = """filter: 'name = "front"'""", """filter: 'name = "db"'"""
OTHER = item(ItemKind.POD, "other", "10.0.0.3")
SPEC = ServiceSpec(
    ServiceType.CLUSTER_IP,
    (ServicePort("db", TCP, 80),),
    (Backend("db", TCP, DB.addresses[0], 3306, True, DB.key),),
)
SERVICE = replace(item(ItemKind.SERVICE, "db", "10.96.0.10"), namespace="shop", service=SPEC)


def policy(name: str, provider: str = TO_DB, ports: str = "3306", **more: str) -> str:
    given = {"action": "ALLOW", "consumer": f"{{{FROM_FRONT}}}", "protocol": "TCP", **more}
    said = "".join(f"    {key}: {value}\n" for key, value in given.items())
    listed = f"    ports: [{ports}]\n" if ports else ""
    return f"  - id: {name}\n{said}    provider: {{{provider}}}\n{listed}"


def told(*policies: str) -> list[tuple[str | None, bool, tuple[str, ...]]]:
    """Needless policies of a workspace over three pods, a node and a Service."""
    read = parse_documents(HEAD + "".join(policies), "test")
    items = [NODE, FRONT, DB, OTHER, SERVICE]
    snapshot = Snapshot((RevisionId(number), one) for number, one in enumerate(items, 1))
    bound = [(one, Version(1)) for one in read.workspaces]
    layer = PolicySet(snapshot, ScopeTree(read.scopes), bound)
    return [
        (
            one.rule.decision.policy,
            one.shadowed,
            tuple(other.decision.policy or "catch-all" for other in one.others),
        )
        for one in needless(layer, range(len(layer.rules)))
    ]


SHOP = """filter: 'kubernetes.namespace = "shop"'"""


@pytest.mark.parametrize(
    ("policies", "expected"),
    [
        # The same words, and other words for the same workloads.
        ((policy("a"), policy("b")), [("b", True, ("a",))]),
        ((policy("a", SHOP), policy("b")), [("b", True, ("a",))]),
        ((policy("a", "cidr: 10.0.0.0/30"), policy("b")), [("b", True, ("a",))]),
        # Two together leave nothing to a third.
        (
            (policy("a", ports="3000-3306"), policy("b", ports="3307-4000"),
             policy("c", ports="3300-3400")),
            [("c", True, ("a", "b"))],
        ),
        # What is read first decides, not what stands first.
        ((policy("a"), policy("b", priority="1")), [("a", True, ("b",))]),
        ((policy("a"), policy("b", rank="absolute")), [("a", True, ("b",))]),
        # The opposite shadows as well.
        ((policy("a", SHOP, action="DENY"), policy("b")), [("b", True, ("a",))]),
        # An exception before a wider policy is needed.
        ((policy("a", action="DENY"), policy("b", SHOP)), []),
        ((policy("a"), policy("b", SHOP, protocol="UDP")), []),
        ((policy("a"), policy("b", ports="3306-3307")), [("a", False, ("b",))]),
        ((policy("a"), policy("x", SHOP, action="DENY", ports="3306"), policy("b", SHOP)),
         [("b", True, ("x",))]),
        # The catch-all says DENY inbound and ALLOW outbound.
        ((policy("a", action="DENY"),), []),
        ((policy("a", "cidr: 203.0.113.9"),), [("a", False, ("catch-all",))]),
        ((policy("a"),), []),
        # Probes: of a node and of its pods.
        ((policy("a", consumer="{node: own}"), policy("b", consumer="{node: own}")),
         [("b", True, ("a",))]),
        ((policy("a", consumer="""{filter: 'kind = "node"'}"""),
          policy("b", consumer="{node: own}")), [("b", True, ("a",))]),
        ((policy("a", consumer="{node: own}"),
          policy("b", consumer="""{filter: 'kind = "node"'}""")), [("a", False, ("b",))]),
        # One that goes on is needed beside one that ends, if not now.
        ((policy("a", expires="2026-12-01"), policy("b")), [("a", False, ("b",))]),
        ((policy("a", expires="2026-12-01"), policy("b", expires="2026-11-30")),
         [("b", True, ("a",))]),
        ((policy("a", expires="2026-12-01"), policy("b", expires="2026-12-02")),
         [("a", False, ("b",))]),
        ((policy("a"), policy("b", SHOP, expires="2026-12-01")), []),
        # Nobody is meant: another finding than this.
        ((policy("a", """filter: 'name = "nobody"'"""),), []),
    ],
)  # fmt: skip
def test_needless_policies(
    policies: tuple[str, ...], expected: list[tuple[str, bool, tuple[str, ...]]]
) -> None:
    assert told(*policies) == expected


SERVICE_80 = "service: shop/db"


@pytest.mark.parametrize(
    ("policies", "expected"),
    [
        ((policy("a", SERVICE_80, "80"), policy("b", SERVICE_80, "80")), [("b", True, ("a",))]),
        ((policy("a", SERVICE_80, ""), policy("b", SERVICE_80, "80")), [("b", True, ("a",))]),
        # Dialled directly the pod's port is meant, and not every way to it leads through a Service.
        ((policy("a", SERVICE_80, "80"), policy("b")), []),
        ((policy("a"), policy("b", SERVICE_80, "80")), []),
    ],
)
def test_needless_policies_of_services(
    policies: tuple[str, ...], expected: list[tuple[str, bool, tuple[str, ...]]]
) -> None:
    assert told(*policies) == expected
