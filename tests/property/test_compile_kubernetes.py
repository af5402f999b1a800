"""What the Kubernetes layer allows at an end, that pod's rules never deny, whatever the world.

And what it denies a provider's allow only where the rule that passes it is widened, or a widening
of the decision that denies it is reported of that pod. Of a consumer that is not held here.
"""

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ringfence.inventory.snapshot import Snapshot
from ringfence.model.address import Address
from ringfence.model.ids import ItemKey, RevisionId
from ringfence.model.labels import LABEL_PREFIX
from ringfence.model.policy import Action, Direction
from ringfence.model.protocol import TCP
from ringfence.model.verdict import EndRole
from ringfence.model.workload import ContainerPort, Item
from ringfence.policy.compile import Compiled, compile_policies
from ringfence.policy.connection import Connection, tabulate
from ringfence.policy.evaluate import end_items, evaluate
from ringfence.policy.handle import is_widened
from ringfence.policy.kubernetes.cluster import LiveCluster
from ringfence.policy.kubernetes.policies import Pods, Requirement, Requires
from ringfence.policy.kubernetes.rules import OWN_NODE, KubernetesLayer
from ringfence.policy.order import PolicySet
from ringfence.policy.program import Rule
from ringfence.policy.recheck import Opened, first_match
from tests.property.policy_world import CLUSTERS, Dialling, World, numbers, worlds
from tests.property.test_compile import happens, sources
from tests.property.test_kubernetes_layer import policies

FEWER = settings(max_examples=settings().max_examples // 4 or 1)
"""Policies for two Kubernetes clusters are long to draw."""
APP = Requirement("app", Requires.IN, ("a",))
subjects = st.sampled_from([(), (), (APP,)])


def of_kubernetes(one: Item) -> Item:
    """The item with its labels as Kubernetes', and a port that has other names elsewhere."""
    told = {LABEL_PREFIX + key: values for key, values in one.labels.items()}
    name = "web" if one.name.startswith("n1") else "dns"
    ports = (ContainerPort(name, TCP, 80 if one.name.endswith("2") else 8079),)
    return replace(one, labels={**one.labels, **told}, containers=ports)


@FEWER
@given(worlds(shared=False), numbers(), st.data())
def test_rules_deny_nothing_that_the_layer_allows(
    world: World, drawn: list[int], data: st.DataObject
) -> None:
    items = [of_kubernetes(one) for one in world.items]
    snapshot = Snapshot((RevisionId(at), one) for at, one in enumerate(items, 1))
    layers = []
    for cluster in CLUSTERS:
        bound = [data.draw(policies(number)) for number in range(4)]
        in_shop = [
            replace(one, subject=Pods("shop" if one.isolates else (), data.draw(subjects)))
            for one in bound
        ]
        layers.append(KubernetesLayer(LiveCluster(snapshot, cluster), in_shop))
    compiled = compile_policies(PolicySet(snapshot, world.tree, ()), (), kubernetes=layers)
    widened = {(widening.workload, widening.decision) for widening in compiled.widenings}
    asked = list(map(Dialling(world.items).connection, drawn))
    columns = tabulate(snapshot, asked)
    for layer in layers:
        verdicts = evaluate(layer, columns)
        for role in (EndRole.CONSUMER, EndRole.PROVIDER):
            behind = role is EndRole.PROVIDER
            ends = zip(end_items(columns, role), verdicts.deciding(role), strict=True)
            for row, (at, place) in enumerate(ends):
                if place == -1 or not happens(items, asked[row], snapshot):
                    continue
                item = snapshot.items[at]
                decision = layer.rules[place].decision
                for source in sources(items, asked[row], role):
                    deciding = decided(compiled, item.key, role, asked[row], source)
                    passed = all(rule.action is Action.ALLOW for rule in deciding)
                    if decision.action is Action.ALLOW:
                        # The own node by way of another one is that one to the pod.
                        by_another = decision.rule == OWN_NODE and source != asked[row].consumer
                        assert passed or by_another, (role, asked[row], item.key)
                    elif passed and behind and (item.key, decision) not in widened:
                        handles = [rule.handle for rule in deciding]
                        assert any(map(is_widened, handles)), (role, asked[row], item.key, handles)


def decided(
    compiled: Compiled, key: ItemKey, role: EndRole, asked: Connection, source: Address
) -> list[Rule]:
    """The rule of each of the pod's programs that decides the connection."""
    uid = key.rpartition("/")[2]
    behind = role is EndRole.PROVIDER
    opened = Opened(
        np.array([asked.protocol], dtype=np.uint8),
        np.frombuffer(source, dtype=np.uint8).reshape(1, 16),
        np.frombuffer(asked.provider if behind else asked.dialled, dtype=np.uint8).reshape(1, 16),
        np.array([asked.provider_port if behind else asked.dialled_port], dtype=np.uint16),
        translated=np.zeros(1, dtype=np.bool_),
    )
    for policy in compiled.policies.values():
        for pod in policy.pods:
            if pod.uid == uid and key.startswith(f"{policy.kubernetes_cluster}/"):
                programs = pod.inbound if behind else pod.outbound
                direction = Direction.INBOUND if behind else Direction.OUTBOUND
                rules = [policy.programs[program].rules for program in programs]
                return [some[first_match(policy, some, direction, opened)[0]] for some in rules]
    return []
