"""A pod deployed after discovery has its role's policies at once, by its labels."""

from dataclasses import replace

import numpy as np

from ringfence.discovery.behaviour import SLOT_NS
from ringfence.inventory.snapshot import NOWHERE, Snapshot
from ringfence.model import labels
from ringfence.model.ids import ItemKey, PolicyId, ScopeName, Version, WorkspaceName
from ringfence.model.policy import Action, CatchAll, ClusterEnd, Policy, Workspace
from ringfence.model.protocol import TCP, PortRange
from ringfence.model.query import Everything
from ringfence.model.scope import Scope, ScopeTree
from ringfence.model.workload import Item
from ringfence.policy.connection import Connections
from ringfence.policy.evaluate import evaluate
from ringfence.policy.order import PolicySet
from tests.unit.discovery.test_roles import SHOP
from tests.unit.discovery.world import SLOTS, START, World

ALL = ScopeName("all")


def workspace(world: World) -> Workspace:
    return Workspace(
        name=WorkspaceName("all"),
        scope=ALL,
        primary=True,
        catch_all=CatchAll(inbound=Action.DENY, outbound=Action.DENY),
        clusters=tuple(role.cluster for role in world.roles()),
        policies=(
            Policy(
                id=PolicyId("front-end-to-carts"),
                consumer=ClusterEnd("front-end"),
                provider=ClusterEnd("carts"),
                protocol=TCP,
                ports=(PortRange(80, 80),),
                action=Action.ALLOW,
            ),
        ),
    )


def newcomer(world: World, like: str, **own: tuple[str, ...]) -> Item:
    """A pod of a new version of a workload, which comes when the day is over."""
    old = next(pod.item for pod in world.pods if pod.workload == like)
    told = {labels.LABEL_PREFIX + key.replace("_", "-"): value for key, value in own.items()}
    told |= {labels.NAME: (f"{like}-new",)}
    key, address = ItemKey(f"lab/pod/{like}-new"), world.address()
    item = replace(
        old, key=key, name=f"{like}-new", addresses=(address,), labels={**old.labels, **told}
    )
    world.history.observe(START + SLOTS * SLOT_NS, item)
    return item


def passes(snapshot: Snapshot, of: Workspace, consumer: Item, provider: Item) -> bool:
    ends = {
        name: np.frombuffer(item.addresses[0], dtype=np.uint8).reshape(1, 16)
        for name, item in (("consumer", consumer), ("provider", provider))
    }
    rules = PolicySet(snapshot, ScopeTree([Scope(ALL, None, Everything())]), [(of, Version(1))])
    port = np.array([80], dtype=np.uint16)
    connection = Connections(
        protocol=np.array([TCP], dtype=np.uint8),
        consumer=ends["consumer"],
        consumer_item=np.array([snapshot.position(consumer.key)], dtype=np.int32),
        provider=ends["provider"],
        provider_port=port,
        provider_item=np.array([snapshot.position(provider.key)], dtype=np.int32),
        dialled=ends["provider"],
        dialled_port=port,
        node_item=np.array([NOWHERE], dtype=np.int32),
    )
    return bool(evaluate(rules, connection).allowed[0])


def test_new_pods_are_members_by_their_labels() -> None:
    world = World(SHOP)
    proposed = workspace(world)
    release = {"version": ("2.0",), "pod_template_hash": ("bbbbbbbbb",)}
    front, carts = (newcomer(world, name, **release) for name in ("front-end", "carts"))
    other = newcomer(world, "orders", **release)
    snapshot = world.history.latest()
    assert passes(snapshot, proposed, front, carts)
    assert not passes(snapshot, proposed, carts, front)
    assert not passes(snapshot, proposed, other, carts)
    assert not passes(snapshot, proposed, front, other)
