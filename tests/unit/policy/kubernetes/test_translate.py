"""What a pod's rules admit beyond its policies is told."""

import pytest

from ringfence.inventory.snapshot import Snapshot
from ringfence.model.address import parse_address
from ringfence.model.ids import ClusterId, RevisionId, item_key
from ringfence.model.policy import Action, Direction
from ringfence.model.protocol import TCP
from ringfence.model.scope import ScopeTree
from ringfence.model.verdict import Stage
from ringfence.model.workload import (
    Backend,
    Item,
    ItemKind,
    ServicePort,
    ServiceSpec,
    ServiceType,
    TrafficPolicy,
)
from ringfence.policy.compile import compile_policies
from ringfence.policy.kubernetes.cluster import LiveCluster
from ringfence.policy.kubernetes.policies import KubernetesPolicy, Pods, PolicyRule
from ringfence.policy.kubernetes.rules import OWN_NODE, KubernetesLayer
from ringfence.policy.order import PolicySet

LAB = ClusterId("lab")
ANYONE = PolicyRule("ingress[0]", Direction.INBOUND, Action.ALLOW, None, None)


def item(kind: ItemKind, name: str, address: str, service: ServiceSpec | None = None) -> Item:
    key = item_key(LAB, kind, name)
    node = "" if service else "n1"
    addresses = (parse_address(address),)
    return Item(key, kind, LAB, "shop", name, addresses, {}, node=node, service=service)


@pytest.mark.parametrize("rules", [(), (ANYONE,)])
def test_what_a_pods_own_node_masquerades_is_told(rules: tuple[PolicyRule, ...]) -> None:
    """Unless a policy admits it from anyone."""
    served = Backend("", TCP, parse_address("10.0.0.1"), 8080, True, None)
    spec = ServiceSpec(
        type=ServiceType.NODE_PORT,
        ports=(ServicePort("", TCP, 80, 30080),),
        backends=(served,),
        external_addresses=(),
        external_traffic_policy=TrafficPolicy.CLUSTER,
    )
    items = [
        item(ItemKind.POD, "web", "10.0.0.1"),
        item(ItemKind.NODE, "n1", "192.168.0.1"),
        item(ItemKind.SERVICE, "web", "10.96.0.1", spec),
    ]
    snapshot = Snapshot((RevisionId(at), one) for at, one in enumerate(items, 1))
    isolates = frozenset({Direction.INBOUND})
    policy = KubernetesPolicy(
        Stage.NETWORK_POLICY, "NetworkPolicy", "shop", "p", Pods("shop"), rules, 0, isolates
    )
    layer = KubernetesLayer(LiveCluster(snapshot, LAB), [policy])
    compiled = compile_policies(PolicySet(snapshot, ScopeTree(()), ()), (), kubernetes=[layer])
    told = [(one.decision.rule, one.workload) for one in compiled.widenings]
    assert told == ([] if rules else [(OWN_NODE, items[0].key)])
