"""A proposed workspace before the evaluator: what it lets pass of all that could be."""

from dataclasses import dataclass, replace

import numpy as np

from bench.company import packed
from bench.discovery.files import dns_name, inventory, life_item, service_item
from bench.discovery.proposed import TREE, items_of
from bench.discovery.style import DAY
from bench.discovery.traffic import Numbers
from bench.discovery.world import SPAN, World
from ringfence.inventory.snapshot import NOWHERE, Snapshot
from ringfence.model.address import Address
from ringfence.model.ids import ItemKey, RevisionId, Version
from ringfence.model.policy import Workspace
from ringfence.model.scope import ScopeTree
from ringfence.policy.connection import Connections
from ringfence.policy.evaluate import evaluate
from ringfence.policy.moment import Moment
from ringfence.policy.order import PolicySet


@dataclass(frozen=True)
class Tuples:
    """n connections: lives by position in World.by_life, -1 for nobody's; IPv4 as numbers."""

    consumer: Numbers
    consumer_life: Numbers
    provider: Numbers
    provider_life: Numbers
    protocol: Numbers
    port: Numbers
    dialled: Numbers
    dialled_port: Numbers

    def take(self, rows: Numbers) -> "Tuples":
        return Tuples(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))


class Judge:
    """Every life of both days at once: who shared an address in turn is two items here."""

    def __init__(self, world: World) -> None:
        self._world = world
        # An address that was several pods' in turn would make one's backend another's.
        apart = [
            replace(life, address=_APART + at) if life.party.kind == "pod" else life
            for at, life in enumerate(world.by_life)
        ]
        self._apart = np.array([life.address for life in apart] + [0])
        of = {id(life): one for life, one in zip(world.by_life, apart, strict=True)}
        lives = [life_item(world, life, SPAN) for life in apart]
        fronts = [
            service_item(
                front,
                [of[id(life)] for one in front.parties for life in one.lives],
                withheld=False,
            )
            for front in world.fronts
        ]
        others = [
            one
            for one in inventory(world)["items"]
            if one["kind"] == "namespace" or one["name"] == "kubernetes"
        ]
        items = items_of([*lives, *fronts, *others])
        keyed = [replace(one, key=ItemKey(f"{at:06}")) for at, one in enumerate(items)]
        # Snapshots sort by key, so that a life's position is its number.
        self.snapshot = Snapshot((RevisionId(at), one) for at, one in enumerate(keyed, 1))
        self._addresses = np.array([life.address for life in world.by_life])
        self._nodes = np.array(
            [
                int(np.flatnonzero([one is node.lives[0] for one in world.by_life])[0])
                for node in world.nodes
            ]
        )
        self._node_of = np.array([life.node for life in world.by_life] + [-1])
        hosts = [party for party in world.parties.values() if party.kind == "external"]
        self._names = {
            dns_name(party): frozenset(
                Address(one.tobytes()) for one in packed(np.array(party.addresses))
            )
            for party in hosts
        }
        self._balancers = {front.balancer for front in world.fronts if front.balancer}

    def allowed(
        self, workspace: Workspace, tuples: Tuples, *beside: Workspace, tree: ScopeTree = TREE
    ) -> Numbers:
        """Which of the connections pass."""
        enforced = [(one, Version(1)) for one in (workspace, *beside)]
        rules = PolicySet(self.snapshot, tree, enforced, Moment(names=self._names))
        return np.asarray(evaluate(rules, self._connections(tuples)).allowed)

    def _connections(self, tuples: Tuples) -> Connections:
        node_of_address = {int(self._addresses[at]): int(at) for at in self._nodes}
        received = np.full(len(tuples.port), NOWHERE, dtype=np.int64)
        translated = (tuples.dialled != tuples.provider) | (tuples.dialled_port != tuples.port)
        for address, at in node_of_address.items():
            received[translated & (tuples.dialled == address)] = at
        for address in self._balancers:
            rows = tuples.dialled == address
            received[rows] = self._nodes[self._node_of[tuples.provider_life[rows]]]
        consumer, provider = (
            np.where(life >= 0, self._apart[life], address)
            for life, address in (
                (tuples.consumer_life, tuples.consumer),
                (tuples.provider_life, tuples.provider),
            )
        )
        dialled = np.where(tuples.dialled == tuples.provider, provider, tuples.dialled)
        return Connections(
            protocol=tuples.protocol.astype(np.uint8),
            consumer=packed(consumer),
            consumer_item=np.where(tuples.consumer_life < 0, NOWHERE, tuples.consumer_life).astype(
                np.int32
            ),
            provider=packed(provider),
            provider_port=tuples.port.astype(np.uint16),
            provider_item=np.where(tuples.provider_life < 0, NOWHERE, tuples.provider_life).astype(
                np.int32
            ),
            dialled=packed(dialled),
            dialled_port=tuples.dialled_port.astype(np.uint16),
            node_item=received.astype(np.int32),
        )


_APART = 11 << 24
OTHER_PORTS = (21, 22, 23, 25, 80, 443, 445, 1433, 2375, 2379, 3000, 3306, 5432, 6379, 8000, 8443,
               9200, 11211, 27017, 50051)  # fmt: skip
"""Twenty that may or may not be listened at."""
OUTSIDE = "outside"


@dataclass(frozen=True)
class Universe:
    """Every pair of ends on every port that could tell something; parties by number in `names`."""

    names: list[str]
    consumer: Numbers
    provider: Numbers
    told: Tuples
    listed: Numbers
    """Whether the port is listened at or one of OTHER_PORTS: not only in a policy's words."""


def universe(world: World, extra_ports: set[int], outside: list[int], seed: int) -> Universe:
    """All pairs of one or two lives of each party, and some addresses outside."""
    draw = np.random.default_rng(seed)
    strange = [
        *((45 << 24) + int(one) for one in draw.integers(1 << 24, size=8)),
        *((10 << 24 | 77 << 16) + int(one) for one in draw.integers(1 << 16, size=6)),
        *((192 << 24 | 168 << 16 | 99 << 8) + int(one) for one in draw.integers(256, size=6)),
        *outside,
    ]
    names = [*world.parties, OUTSIDE]
    number = {name: at for at, name in enumerate(names)}
    ends: list[tuple[int, int, int]] = []
    for name, party in world.parties.items():
        if party.kind == "external":
            ends += [(number[name], -1, one) for one in party.addresses]
        else:
            ends += [(number[name], at, world.by_life[at].address) for at in _chosen(world, name)]
    ends += [(number[OUTSIDE], -1, one) for one in strange]
    consumers = np.array(
        [one for one in ends if one[1] >= 0 or names[one[0]] == OUTSIDE], dtype=np.int64
    )
    rows: list[tuple[int, int, int, int, int, int, int, int]] = []
    for party, life, address in ends:
        name = names[party]
        if name.startswith("node/"):
            continue
        shape = world.parties[name].workload if name != OUTSIDE else None
        listens = set(shape.listens) if shape else set()
        others = {(6, port) for port in OTHER_PORTS}
        words = {(protocol, port) for port in extra_ports for protocol in (6, 17)}
        for protocol, port in sorted(listens | others | words):
            listed = int((protocol, port) in listens | others)
            rows.append((party, life, address, protocol, port, address, port, listed))
            front = world.parties[name].front if shape else None
            if front and front.address and (protocol, port) in front.ports:
                own = front.ports[protocol, port]
                rows.append((party, life, address, protocol, port, front.address, own, listed))
    table = np.array(rows, dtype=np.int64)
    mine, its = (
        one.ravel() for one in np.meshgrid(np.arange(len(consumers)), np.arange(len(table)))
    )
    kept = (consumers[mine, 0] != table[its, 0]) & (
        (consumers[mine, 1] >= 0) | (table[its, 1] >= 0)
    )
    # From outside a Service's own address leads nowhere.
    kept &= (consumers[mine, 1] >= 0) | (table[its, 2] == table[its, 5])
    mine, its = mine[kept], its[kept]
    told = Tuples(
        consumer=consumers[mine, 2],
        consumer_life=consumers[mine, 1],
        provider=table[its, 2],
        provider_life=table[its, 1],
        protocol=table[its, 3],
        port=table[its, 4],
        dialled=table[its, 5],
        dialled_port=table[its, 6],
    )
    return Universe(names, consumers[mine, 0], table[its, 0], told, table[its, 7] > 0)


def _chosen(world: World, name: str) -> list[int]:
    """One or two lives of a party: those of the window's end, else the last ones."""
    party = world.parties[name]
    lives = sorted(
        (life for life in party.lives if life.start < DAY),
        key=lambda life: (life.end > DAY, life.start),
    )
    number = {id(life): at for at, life in enumerate(world.by_life)}
    return [number[id(life)] for life in lives[-2:]]
