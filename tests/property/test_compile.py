"""What the evaluator allows at an end, that end's rules never deny, whatever the world.

And what it denies they allow only where a widening is reported of that workload: of the policy
whose rule passes it, or of the one that denies it.
"""

from typing import Any

import numpy as np
from hypothesis import given

from ringfence.inventory.snapshot import NOWHERE, Snapshot
from ringfence.model.address import Address
from ringfence.model.ids import ItemKey, NodeName, RevisionId
from ringfence.model.policy import Action, Direction
from ringfence.model.protocol import TCP
from ringfence.model.verdict import EndRole
from ringfence.model.workload import Item, ItemKind
from ringfence.policy.compile import Compiled, compile_policies
from ringfence.policy.connection import Connection, tabulate
from ringfence.policy.evaluate import end_items, evaluate
from ringfence.policy.handle import format_handle
from ringfence.policy.order import PolicySet
from ringfence.policy.program import NodePolicy, ProgramId, Rule, encode
from ringfence.policy.recheck import Opened, first_match
from tests.property.policy_world import (
    CLUSTERS,
    MOMENT,
    PORTS,
    Dialling,
    World,
    numbers,
    worlds,
)

End = tuple[Item, EndRole, Connection]


@given(worlds(shared=False), numbers(20))
def test_rules_deny_nothing_that_the_evaluator_allows(world: World, drawn: list[int]) -> None:
    asked = list(map(Dialling(world.items).connection, drawn))
    hold_against_rules(world.policy_set(), world.items, asked)


@given(worlds(shared=False, equal=True), numbers(20))
def test_rules_tell_clusters_of_equal_networks_apart(world: World, drawn: list[int]) -> None:
    """Whatever policies say of another cluster's pods, rules do not mean the own ones by it."""
    asked = []
    for number, home in zip(drawn, CLUSTERS * len(drawn), strict=False):
        mine = [one for one in world.items if one.cluster == home]
        held = [address for one in mine if one.is_workload for address in one.addresses]
        consumer, its = held[number % len(held)], held[number // 97 % len(held)]
        port = PORTS[number % len(PORTS)]
        asked.append(Connection(TCP, consumer, its, port, its, port, home=home))
    items = [one for one in world.items if one.is_workload]
    snapshot = Snapshot((RevisionId(1), one) for one in items)
    policy_set = PolicySet(snapshot, world.tree, world.enforced, MOMENT, world.quarantines)
    hold_against_rules(policy_set, items, asked)


def hold_against_rules(policy_set: PolicySet, items: list[Item], asked: list[Connection]) -> None:
    """What the rules let pass, against the verdict at each end."""
    snapshot = policy_set.snapshot
    compiled = compile_policies(policy_set, ())
    columns = tabulate(snapshot, asked)
    verdicts = evaluate(policy_set, columns)
    for role in EndRole:
        for row, (at, place) in enumerate(
            zip(end_items(columns, role), verdicts.deciding(role), strict=True)
        ):
            if place == -1 or not happens(items, asked[row], snapshot):
                continue
            if len(led_by(items, asked[row])) > 1:
                continue  # which of several Services answers, Kubernetes leaves open
            item = snapshot.items[at]
            decision = policy_set.rules[place].decision
            for source in sources(items, asked[row], role):
                deciding = decided(compiled, item, role, asked[row], source)
                widened = reported(compiled, (item, role, asked[row]))
                if decision.action is Action.ALLOW:
                    passes = deciding.action is Action.ALLOW
                    if source != asked[row].consumer and is_foreign(items, asked[row], item):
                        passes |= (item.key, format_handle(decision)) in widened
                    assert passes, (role, asked[row], item.key)
                elif deciding.action is Action.ALLOW:
                    told = {(item.key, one) for one in (format_handle(decision), deciding.handle)}
                    assert told & widened, (role, asked[row], item.key, deciding)


@given(worlds(shared=False))
def test_the_order_of_inputs_changes_nothing(world: World) -> None:
    items, bound = world.items, world.enforced
    outcomes = []
    for given_items, given_bound in ((items, bound), (items[::-1], bound[::-1])):
        snapshot = Snapshot((RevisionId(1), one) for one in given_items)
        compiled = compile_policies(PolicySet(snapshot, world.tree, given_bound, MOMENT), ())
        encoded = {name: encode(policy) for name, policy in compiled.policies.items()}
        outcomes.append((encoded, compiled.widenings))
    assert outcomes[0] == outcomes[1]


def reported(compiled: Compiled, end: End) -> set[tuple[ItemKey, str]]:
    """The handles of the policies of which a widening is reported, those of its rules too.

    Where the end's node translates what is dialled, and so judges who answers, that is no excuse.
    """
    item, role, asked = end
    policy = compiled.policies[item.cluster, home(item)]
    judged = policy.parting() and at_its_node(policy, item, role, asked)
    return {
        (one.workload, format_handle(one.decision, widened=widened))
        for one in compiled.widenings
        if not (judged and "rejects if it has nftables" in one.text)
        for widened in (False, True)
    }


def home(item: Item) -> NodeName:
    """The node at which an end's rules are."""
    return NodeName(item.node if item.kind is ItemKind.POD else item.name)


def happens(items: list[Item], asked: Connection, snapshot: Snapshot) -> bool:
    """Whether the cluster's network could bring the connection about."""
    reached, dialled = (asked.provider, asked.provider_port), (asked.dialled, asked.dialled_port)
    if (
        snapshot.at(asked.consumer, asked.home)
        == snapshot.at(asked.provider, asked.home)
        != NOWHERE
    ):
        return False  # a workload to itself is a fail-safe
    if any(asked.consumer in _fronts(one) for one in items):
        return False  # a Service opens no connections
    if asked.consumer[:10] != asked.dialled[:10]:
        return False  # one family to the other
    fronts = {
        (address, port.protocol, number): (one, port)
        for one in items
        if one.service
        for port in one.service.ports
        for address, number in dialled_at(items, one, port.port, port.node_port)
    }
    front = fronts.get((asked.dialled, asked.protocol, asked.dialled_port))
    at = snapshot.at(asked.consumer, asked.home)
    home = snapshot.items[at].cluster if at != NOWHERE else None
    if front is None or claimed_elsewhere(front[0], asked, home):
        # An external address may be somebody's, and is as far as no Service has the port.
        leads_nowhere = any(asked.dialled in one.addresses for one in items if one.service)
        return reached == dialled and asked.node is None and not leads_nowhere
    one, port = front
    assert one.service
    if home not in {None, "", one.cluster} and asked.dialled in one.addresses:
        return False  # each Kubernetes cluster has ClusterIPs of its own
    received = not one.addresses or asked.dialled not in one.addresses
    if received != (asked.node is not None):
        return False
    if (
        asked.node is not None
        and snapshot.items[snapshot.at(asked.node, asked.home)].cluster != one.cluster
    ):
        return False  # no node receives for another Kubernetes cluster
    return any(
        (backend.address, backend.port) == reached
        and backend.serving
        and backend.service_port == port.name
        and backend.protocol == asked.protocol
        for backend in one.service.backends
    )


def claimed_elsewhere(one: Item, asked: Connection, home: str | None) -> bool:
    """Whether the Service just claims the address, in another Kubernetes cluster than `home`.

    Nobody but that cluster's nodes is known to translate it, for their own pods and outsiders.
    """
    spec = one.service
    claims = spec is not None and asked.dialled in spec.external_addresses
    balances = spec is not None and asked.dialled in spec.balancer_addresses
    return claims and not balances and home not in {None, one.cluster}


def is_foreign(items: list[Item], asked: Connection, backend: Item) -> bool:
    """Whether somebody inside comes by a Service that is not of the backend's namespace."""
    (service,) = led_by(items, asked)
    inside = any(asked.consumer in one.addresses and one.cluster for one in items)
    return inside and service.cluster != backend.cluster


def _fronts(one: Item) -> tuple[Address, ...]:
    return (*one.addresses, *one.service.external_addresses) if one.service else ()


def led_by(items: list[Item], asked: Connection) -> list[Item]:
    """The Services that are dialled so."""
    place = asked.dialled, asked.dialled_port
    return [
        one
        for one in items
        if one.service
        for port in one.service.ports
        if port.protocol == asked.protocol
        and place in dialled_at(items, one, port.port, port.node_port)
    ]


def dialled_at(
    items: list[Item], one: Item, port: int, node_port: int
) -> list[tuple[Address, int]]:
    assert one.service
    found = [(address, port) for address in _fronts(one)]
    nodes = [n for n in items if n.kind is ItemKind.NODE and n.cluster == one.cluster]
    if node_port:
        found += [(address, node_port) for node in nodes for address in node.addresses]
    return found


def sources(items: list[Item], asked: Connection, role: EndRole) -> list[Address]:
    """The addresses that the end may see the connection come from."""
    if role is not EndRole.PROVIDER or asked.node is None:
        return [asked.consumer]
    nodes = [one for one in items if asked.node in one.addresses and one.kind is ItemKind.NODE]
    return [asked.consumer, *nodes[0].addresses]


def decided(
    compiled: Compiled, item: Item, role: EndRole, asked: Connection, source: Address
) -> Rule:
    """The rule in the end's namespace that decides the connection."""
    policy = compiled.policies[item.cluster, home(item)]
    direction = Direction.OUTBOUND if role is EndRole.CONSUMER else Direction.INBOUND
    program = _program(policy, item.key, role)
    behind = role is EndRole.PROVIDER
    opened = Opened(
        np.array([asked.protocol], dtype=np.uint8),
        np.frombuffer(source, dtype=np.uint8).reshape(1, 16),
        np.frombuffer(asked.provider if behind else asked.dialled, dtype=np.uint8).reshape(1, 16),
        np.array([asked.provider_port if behind else asked.dialled_port], dtype=np.uint16),
        translated=np.zeros(1, dtype=np.bool_),
        **answering(policy, item, role, asked),
    )
    rules = policy.programs[program].rules
    return rules[int(first_match(policy, rules, direction, opened)[0])]


def answering(
    policy: NodePolicy, item: Item, role: EndRole, asked: Connection
) -> dict[str, np.ndarray[Any, Any]]:
    """Who answers a consumer, where its node translates what it dials and so judges that too."""
    if not at_its_node(policy, item, role, asked):
        return {}
    return {
        "reached": np.frombuffer(asked.provider, dtype=np.uint8).reshape(1, 16),
        "reached_port": np.array([asked.provider_port], dtype=np.uint16),
    }


def at_its_node(policy: NodePolicy, item: Item, role: EndRole, asked: Connection) -> bool:
    """Whether a consumer's node translates what it dials."""
    mine = asked.node is None or asked.node in policy.binding.addresses
    return role is EndRole.CONSUMER and item.kind is ItemKind.POD and mine


def _program(policy: NodePolicy, key: ItemKey, role: EndRole) -> ProgramId:
    bindings = {pod.uid: pod for pod in policy.pods}
    binding = bindings.get(key.rpartition("/")[2], policy.binding)
    if role is EndRole.NODE:
        found = policy.binding.received
    else:
        bound = binding.outbound if role is EndRole.CONSUMER else binding.inbound
        found = bound[0] if isinstance(bound, tuple) else bound
    assert found is not None
    return found
