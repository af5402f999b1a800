"""What the Kubernetes layer allows at an end, that pod's rules never deny, whatever the world.

And what it denies they allow only where a widening is reported of that pod: of the policy whose
rule passes it, or of the one that denies it.
"""

from dataclasses import replace
from random import Random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ringfence.inventory.snapshot import Snapshot
from ringfence.model.address import Address
from ringfence.model.ids import RevisionId
from ringfence.model.labels import LABEL_PREFIX
from ringfence.model.policy import Action, Direction
from ringfence.model.protocol import TCP, UDP, PortRange
from ringfence.model.verdict import EndRole, Stage
from ringfence.model.workload import ContainerPort, Item
from ringfence.policy.compile import Compiled, compile_policies
from ringfence.policy.connection import Connection, tabulate
from ringfence.policy.evaluate import end_items, evaluate
from ringfence.policy.handle import format_handle
from ringfence.policy.kubernetes.cluster import LiveCluster
from ringfence.policy.kubernetes.policies import (
    KubernetesPolicy,
    NamedPort,
    Networks,
    Nodes,
    Peer,
    Pods,
    PolicyRule,
    Ports,
    Requirement,
    Requires,
    Selector,
    UnknownPeer,
)
from ringfence.policy.kubernetes.rules import OWN_NODE, KubernetesLayer
from ringfence.policy.order import PolicySet
from ringfence.policy.program import Rule
from ringfence.policy.recheck import Opened, first_match
from tests.property.policy_world import (
    CLUSTERS,
    NETWORKS,
    PORTS,
    Dialling,
    World,
    numbers,
    worlds,
)
from tests.property.test_compile import answering, happens, home, led_by, reported, sources

SHOP = "shop"
WHICH: list[Selector] = [
    (),
    (),
    (Requirement("app", Requires.IN, ("a",)),),
    (Requirement("app", Requires.NOT_IN, ("a",)),),
    (Requirement("env", Requires.EXISTS),),
]
"""Of the pods of a world, and of its nodes."""
ACTIONS = [Action.ALLOW, Action.DENY, Action.DENY, Action.PASS]


def of_kubernetes(one: Item) -> Item:
    """The item with its labels as Kubernetes', and a port that has other names elsewhere."""
    told = {LABEL_PREFIX + key: values for key, values in one.labels.items()}
    name = "web" if one.name.startswith("n1") else "dns"
    ports = (ContainerPort(name, TCP, 80 if one.name.endswith("2") else 8079),)
    return replace(one, labels={**one.labels, **told}, containers=ports)


def policy(number: int, draw: Random) -> KubernetesPolicy:
    """One that speaks of the pods, nodes and addresses of a world."""
    stage = draw.choice([Stage.ADMIN, Stage.NETWORK_POLICY, Stage.BASELINE])
    isolates = stage is Stage.NETWORK_POLICY
    directions = draw.choice([tuple(Direction), *((one,) for one in Direction)])
    return KubernetesPolicy(
        stage,
        stage.value,
        SHOP if isolates else "",
        f"p{number}",
        Pods(SHOP if isolates else (), draw.choice(WHICH)),
        tuple(
            PolicyRule(
                f"rule[{at}]",
                direction := draw.choice(directions),
                Action.ALLOW if isolates else draw.choice(ACTIONS),
                _peers(direction, draw),
                _ports(draw),
            )
            for at in range(draw.choice(range(4)))
        ),
        draw.choice(range(3)),
        frozenset(directions if isolates else ()),
    )


def _peers(direction: Direction, draw: Random) -> tuple[Peer, ...] | None:
    peers: list[Peer] = [Pods(SHOP, draw.choice(WHICH)), Pods((), draw.choice(WHICH))] * 2
    blocks, holes = (
        tuple(draw.choice(NETWORKS) for _ in range(draw.choice(range(3)))) for _ in range(2)
    )
    peers += [Networks(blocks, holes), Networks(blocks)]
    if direction is Direction.OUTBOUND:
        peers += [Nodes(draw.choice(WHICH)), UnknownPeer()]
    chosen = tuple(draw.choice(peers) for _ in range(draw.choice([1, 1, 2])))
    return draw.choice([chosen, chosen, chosen, chosen, None, ()])


def _ports(draw: Random) -> tuple[Ports | NamedPort, ...] | None:
    first = draw.choice([*PORTS, 8079])
    spans = draw.choice([(), (PortRange(first, first),), (PortRange(first, 65535),)])
    protocol = draw.choice([TCP, TCP, UDP])
    named = NamedPort(draw.choice([None, TCP]), draw.choice(["web", "dns", "gone"]))
    return draw.choice([None, None, None, (Ports(protocol, spans),), (named,)])


@given(worlds(shared=False), numbers(), st.lists(numbers(4), min_size=2, max_size=2))
def test_rules_let_pass_what_the_layer_allows_and_what_they_report(
    world: World, drawn: list[int], policies: list[list[int]]
) -> None:
    items = [of_kubernetes(one) for one in world.items]
    snapshot = Snapshot((RevisionId(at), one) for at, one in enumerate(items, 1))
    layers = [
        KubernetesLayer(
            LiveCluster(snapshot, cluster),
            [policy(at, Random(number)) for at, number in enumerate(some)],
        )
        for cluster, some in zip(CLUSTERS, policies, strict=True)
    ]
    compiled = compile_policies(PolicySet(snapshot, world.tree, ()), (), kubernetes=layers)
    asked = list(map(Dialling(world.items).connection, drawn))
    columns = tabulate(snapshot, asked)
    happening = {
        row
        for row, one in enumerate(asked)
        if happens(items, one, snapshot) and len(led_by(items, one)) < 2
    }
    for layer in layers:
        verdicts = evaluate(layer, columns)
        for role in (EndRole.CONSUMER, EndRole.PROVIDER):
            ends = zip(end_items(columns, role), verdicts.deciding(role), strict=True)
            for row, (at, place) in enumerate(ends):
                if place == -1 or row not in happening:
                    continue
                item = snapshot.items[at]
                decision = layer.rules[place].decision
                widened = reported(compiled, (item, role, asked[row]))
                for source in sources(items, asked[row], role):
                    deciding = decided(compiled, item, role, asked[row], source)
                    passed = all(rule.action is Action.ALLOW for rule in deciding)
                    if decision.action is Action.ALLOW:
                        # The own node by way of another one is that one to the pod.
                        by_another = decision.rule == OWN_NODE and source != asked[row].consumer
                        assert passed or by_another, (role, asked[row], item.key)
                    elif passed:
                        handles = {format_handle(decision), *(rule.handle for rule in deciding)}
                        named = {(item.key, one) for one in handles}
                        assert named & widened, (role, asked[row], item.key, handles)


def decided(
    compiled: Compiled, item: Item, role: EndRole, asked: Connection, source: Address
) -> list[Rule]:
    """The rule of each of the pod's programs that decides the connection."""
    uid = item.key.rpartition("/")[2]
    behind = role is EndRole.PROVIDER
    policy = compiled.policies[item.cluster, home(item)]
    opened = Opened(
        np.array([asked.protocol], dtype=np.uint8),
        np.frombuffer(source, dtype=np.uint8).reshape(1, 16),
        np.frombuffer(asked.provider if behind else asked.dialled, dtype=np.uint8).reshape(1, 16),
        np.array([asked.provider_port if behind else asked.dialled_port], dtype=np.uint16),
        translated=np.zeros(1, dtype=np.bool_),
        **answering(policy, item, role, asked),
    )
    for pod in policy.pods:
        if pod.uid == uid:
            programs = pod.inbound if behind else pod.outbound
            direction = Direction.INBOUND if behind else Direction.OUTBOUND
            rules = [policy.programs[program].rules for program in programs]
            return [some[first_match(policy, some, direction, opened)[0]] for some in rules]
    return []
