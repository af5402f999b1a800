"""Random policies, compiled, programmed and proved as agents do it, held against real connections.

What the evaluator allows comes about. What it denies does not, unless rules pass it at every end
that denies it, each time by a widening that is reported there and counted by the rule that passes.
RINGFENCE_EXAMPLES is how many pairs of a policy set and a connection are tried, of random sets.
"""

import contextlib
import itertools
import os
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, replace
from random import Random
from selectors import BaseSelector

import pytest

from ringfence.agent.enforce import Enforcer
from ringfence.agent.mechanisms import MECHANISMS, Kind, Mechanism
from ringfence.agent.plan import Order
from ringfence.agent.pods import Place
from ringfence.inventory.snapshot import Snapshot
from ringfence.kernel.netns import inode
from ringfence.model.address import format_address, parse_address, parse_network
from ringfence.model.ids import NodeName, PolicyId, RevisionId, ScopeName, Version, WorkspaceName
from ringfence.model.policy import (
    SPOKEN,
    Action,
    CatchAll,
    CidrEnd,
    End,
    FilterEnd,
    OwnNodeEnd,
    Policy,
    Rank,
    ScopeEnd,
    ServiceEnd,
    Workspace,
)
from ringfence.model.protocol import ICMP, ICMPV6, TCP, UDP, PortRange
from ringfence.model.query import parse
from ringfence.model.scope import Scope, ScopeTree
from ringfence.model.verdict import Decision, EndRole
from ringfence.model.workload import Item, ItemKind
from ringfence.policy import program
from ringfence.policy.backends.groups import FEW
from ringfence.policy.balancers import Balancers
from ringfence.policy.compile import Compiled, compile_policies
from ringfence.policy.connection import Connection, tabulate
from ringfence.policy.evaluate import end_items, evaluate
from ringfence.policy.handle import format_handle, is_widened
from ringfence.policy.kubernetes.cluster import LiveCluster
from ringfence.policy.kubernetes.policies import KubernetesPolicy
from ringfence.policy.kubernetes.rules import OWN_NODE, KubernetesLayer
from ringfence.policy.order import Enforced, PolicySet
from ringfence.wire.generated.agent_pb2 import Inspection
from tests.kernel.cluster import (
    CLUSTER,
    NODES,
    OUTSIDE,
    SERVICES,
    Cluster,
    Service,
    address,
    cluster,
    home,
)
from tests.kernel.dialling import Dial, dial, serving
from tests.kernel.netns import Namespace
from tests.property import test_compile, test_compile_kubernetes

TRIED = os.environ.get("RINGFENCE_EXAMPLES")
PAIRS = int(TRIED or 1200)
EACH = 120
"""Connections of one policy set."""
QUERIES = [
    parse(text)
    for text in (
        "everything", 'app = "a"', 'app = "b"', 'env = "prod"', 'kind = "node"', 'kind = "pod"',
    )
]  # fmt: skip
NETWORKS = [
    parse_network(text)
    for text in (
        "0.0.0.0/0", "::/0", "10.99.1.0/24", "10.99.0.0/16", "172.30.0.0/24", "172.30.0.100/32",
        "fd00:99::/32", "fd00:30::/64", "fd00:30::100/128",
    )
]  # fmt: skip
PORTS = [80, 53, 5353, 8080, 8081, 8082, 30080, 30081]
ROOT = ScopeName("all")
TREE = ScopeTree(
    [
        Scope(ROOT, None, parse("everything")),
        Scope(ScopeName("a"), ROOT, parse('app = "a"')),
        Scope(ScopeName("nodes"), ROOT, parse('kind = "node"')),
        Scope(ScopeName("pods"), ROOT, parse('kind = "pod"')),
    ]
)


DIRECT = ((TCP, 8080), (TCP, 8081), (TCP, 8082), (UDP, 5353))
_End = tuple[Namespace, tuple[str, str], int | None]
"""A namespace, its addresses, and the place of its node, None for the host outside."""


@dataclass(frozen=True)
class Way:
    """A connection that the cluster can bring about, and who answers it: by odd source ports?"""

    where: Namespace
    connection: Connection
    odd: bool


@dataclass
class Running:
    """The cluster, with what programs each node, and what listens and dials."""

    cluster: Cluster
    snapshot: Snapshot
    ways: list[Way]
    mechanism: Mechanism
    enforcers: tuple[Enforcer, Enforcer]
    revisions: Iterator[int]
    ports: Iterator[int]
    waiting: BaseSelector

    def enforce(self, compiled: Compiled) -> Compiled:
        """Enforce it, and return as much of it as the mechanism can say."""
        revision = next(self.revisions)
        for at, enforcer in enumerate(self.enforcers):
            policy = compiled.policies[CLUSTER, NodeName(f"n{at + 1}")]
            order = Order(revision, program.decode(program.encode(policy)))
            outcome = enforcer.apply(order, list(self._places(at)))
            assert not outcome.problem
        sayable = self.mechanism.backend().sayable
        said = {key: sayable(policy) for key, policy in compiled.policies.items()}
        return replace(compiled, policies=said)

    def _places(self, node: int) -> Iterator[Place]:
        path = self.cluster.nodes[node].path
        yield Place("", path, inode(path))
        for number, pod in enumerate(self.cluster.pods, 1):
            if home(number) == node:
                yield Place(f"pod{number}", pod.path, inode(pod.path))

    def counts(self, item: Item, handles: Set[str]) -> bool:
        """Whether a rule of such a handle has counted, or an element of a lookup for it."""
        path = self.cluster.at(item).path
        found = self.mechanism.inspect(Place("", path, inode(path)), Inspection())
        counted = [(rule.comment, rule.packets) for rule in found.rules]
        counted += (one for rule in found.rules for one in rule.admitted.items())
        return any(packets for handle, packets in counted if handle in handles)


@pytest.fixture(scope="module")
def running(request: pytest.FixtureRequest) -> Iterator[Running]:
    with cluster() as made, running_in(made, request.param) as it:
        yield it


@contextlib.contextmanager
def running_in(made: Cluster, kind: Kind = Kind.NFTABLES) -> Iterator[Running]:
    mechanism = MECHANISMS[kind]
    ends: dict[Namespace, Sequence[str]] = {made.outside: OUTSIDE}
    ends |= zip(made.nodes, NODES, strict=True)
    ends |= {pod: address(number) for number, pod in enumerate(made.pods, 1)}
    with serving(ends) as waiting:
        first, second = (
            Enforcer(mechanism.backend(), mechanism.door, mechanism.read) for _ in made.nodes
        )
        yield Running(
            made,
            Snapshot((RevisionId(at), one) for at, one in enumerate(made.items, 1)),
            list(ways(made)),
            mechanism,
            (first, second),
            itertools.count(1),
            itertools.cycle(range(10000, 32000)),
            waiting,
        )


def ways(made: Cluster) -> Iterator[Way]:
    """All that anybody can dial: pods, nodes and the host outside, and Services by every way."""
    ends: list[_End] = [(made.outside, OUTSIDE, None)]
    ends += [(node, NODES[at], at) for at, node in enumerate(made.nodes)]
    ends += [(pod, address(at), home(at)) for at, pod in enumerate(made.pods, 1)]
    for end, of in itertools.product(ends, (0, 1)):
        where, mine, _ = end
        echo = ((ICMP, 8 << 8), (ICMPV6, 128 << 8))[of]
        others = [its[of] for other, its, _ in ends if other is not where]
        for its, (protocol, port) in itertools.product(others, (*DIRECT, echo)):
            yield Way(where, _to(protocol, mine[of], (its, port)), odd=False)
        for service in (one for one in made.services if one.address):
            for at, number in enumerate(service.backends):
                reached = address(number)[of], service.target
                for front, port, node in _fronts(end, service, number, of):
                    receiver = None if node is None else NODES[node][of]
                    asked = _to(service.protocol, mine[of], reached, (front, port), receiver)
                    yield Way(where, asked, odd=bool(at) and (node is None or not service.local))


def _fronts(
    end: _End, service: Service, number: int, of: int
) -> Iterator[tuple[str, int, int | None]]:
    """Where one may dial a Service to come to that backend: address, port, and who receives."""
    where, _, node = end
    if node is not None:
        yield service.address[of], service.port, None
    for front in service.external[of : of + 1]:
        # A node takes what its own pods dial. What comes from outside is led to a backend's node
        # where it must be, else to the first one.
        led = home(number) if service.local else 0
        yield front, service.port, led if node is None else node
    for receiver in range(2) if service.node_port else ():
        # Of a local Service each node knows its own backends, and pods dial all of them.
        foreign = node is None or (where.name.startswith("rf-n") and node != receiver)
        if not service.local or (foreign and receiver == home(number)):
            yield NODES[receiver][of], service.node_port, receiver


def _to(
    protocol: int,
    consumer: str,
    reached: tuple[str, int],
    dialled: tuple[str, int] | None = None,
    node: str | None = None,
) -> Connection:
    """Dialled as it is reached, unless a Service stands before it."""
    front, port = dialled or reached
    return Connection(
        protocol,
        parse_address(consumer),
        parse_address(reached[0]),
        reached[1],
        parse_address(front),
        port,
        None if node is None else parse_address(node),
    )


def enforced(draw: Random) -> list[Enforced]:
    """Up to three workspaces, each of a scope of its own, at times of many rules."""
    most = draw.choice([5, 5, 5 * FEW])
    return [
        (
            Workspace(
                WorkspaceName(f"w{at}"),
                scope.name,
                True,
                CatchAll(draw.choice(SPOKEN), draw.choice(SPOKEN)),
                (),
                tuple(policy(number, draw) for number in range(draw.randint(1, most))),
            ),
            Version(at + 1),
        )
        for at, scope in enumerate(draw.sample(TREE.preorder(), draw.randint(1, 3)))
    ]


def policy(number: int, draw: Random) -> Policy:
    protocol, first = draw.choice([None, None, TCP, TCP, UDP, ICMP]), draw.choice(PORTS)
    spans = draw.choice([(), (PortRange(first, first),), (PortRange(first, 65535),)])
    services = [ServiceEnd("shop", one.name, "") for one in draw.sample(SERVICES, 2)]
    return Policy(
        PolicyId(f"p{number}"),
        _end(draw),
        draw.choice([_end(draw), *services]),
        protocol,
        spans if protocol in (TCP, UDP) else (),
        draw.choice(SPOKEN),
        draw.choice(list(Rank)),
        draw.randint(1, 3),
    )


def _end(draw: Random) -> End:
    blocks = tuple(draw.sample(NETWORKS, draw.randint(1, 2)))
    ends: list[End] = [
        CidrEnd(tuple(NETWORKS[:2])),
        CidrEnd(blocks, tuple(draw.sample(NETWORKS[2:], draw.randint(0, 1)))),
        CidrEnd(blocks),
        FilterEnd(draw.choice(QUERIES)),
        FilterEnd(draw.choice(QUERIES)),
        FilterEnd(draw.choice(QUERIES)),
        ScopeEnd(draw.choice(TREE.preorder()).name),
        OwnNodeEnd(),
    ]
    return draw.choice(ends)


def of_kubernetes(draw: Random) -> list[KubernetesPolicy]:
    return [test_compile_kubernetes.policy(at, draw) for at in range(draw.randint(1, 4))]


def seeds() -> Iterator[tuple[Kind, int]]:
    # The same sets every time, unless more are asked for; of iptables fewer.
    every = PAIRS // EACH
    for kind, count in zip(Kind, (every, *(-(-every // 4),) * 2), strict=True):
        some = Random(TRIED).sample(range(2**32), count) if TRIED else range(count)
        yield from ((kind, seed) for seed in some)


@pytest.mark.parametrize(("running", "seed"), list(seeds()), indirect=["running"])
def test_the_kernel_does_what_the_evaluator_says(running: Running, seed: int) -> None:
    draw = Random(seed)
    hold(running, draw, EACH, running.ways)


def hold(running: Running, draw: Random, count: int, among: Sequence[Way]) -> None:
    """Enforce random policies, and hold them against so many of those connections."""
    snapshot = running.snapshot
    which = draw.choice(["ringfence", "kubernetes", "both"])
    policy_set = PolicySet(snapshot, TREE, enforced(draw) if which != "kubernetes" else ())
    theirs = of_kubernetes(draw) if which != "ringfence" else []
    layers = [KubernetesLayer(LiveCluster(snapshot, CLUSTER), theirs)] if theirs else []
    compiled = compile_policies(policy_set, (), kubernetes=layers)
    tried = draw.sample(among, count)
    asked = [way.connection for way in tried]
    decisions = decide([policy_set, *layers], snapshot, asked)
    compiled = running.enforce(compiled)

    kept_out = Balancers(snapshot).keep_out(tabulate(snapshot, asked))
    expected = [
        must_pass(some, one) and not kept
        for some, one, kept in zip(decisions, asked, kept_out, strict=True)
    ]
    passed = dial(running.waiting, [dial_of(way, running) for way in tried], expected)
    told = zip(tried, decisions, expected, passed, kept_out, strict=True)
    for way, some, wanted, came, kept in told:
        wrong = "denied though allowed" if wanted and not came else ""
        wrong = "passed in spite of source ranges" if kept and came else wrong
        denials = [
            one
            for one in some
            if came and one[2].action is Action.DENY and judges(one[0], way.connection, snapshot)
        ]
        for role, item, decision in denials:
            ways_in = list(passing(compiled, item, role, way.connection, running.cluster.items))
            handles = {one for some in ways_in for one in some}
            widened = test_compile.reported(compiled, (item, role, way.connection))
            known = {(item.key, one) for one in (*handles, format_handle(decision))} & widened
            if not ways_in:
                wrong = f"passed though denied by {decision}"
            elif not known:
                wrong = f"passed at {item.key} by {handles}, which is not reported"
            elif not any(running.counts(item, wider(some)) for some in ways_in):
                wrong = f"passed at {item.key} by {handles}, and not counted"
        if wrong:
            ends = [f"{role} {item.key} {format_handle(d)} {d.action}" for role, item, d in some]
            pytest.fail("\n  ".join((f"{tell(way.connection)}: {wrong}", *ends)))


Decisions = list[tuple[EndRole, Item, Decision]]


def decide(
    layers: Sequence[PolicySet | KubernetesLayer], snapshot: Snapshot, asked: list[Connection]
) -> list[Decisions]:
    """For each connection what decides at each of its ends."""
    columns = tabulate(snapshot, asked)
    found: list[Decisions] = [[] for _ in asked]
    for layer, role in itertools.product(layers, EndRole):
        ends = zip(end_items(columns, role), evaluate(layer, columns).deciding(role), strict=True)
        for row, (at, place) in enumerate(ends):
            if place != -1:
                found[row].append((role, snapshot.items[at], layer.rules[place].decision))
    # A workload to itself is no policy's business.
    own = columns.consumer_item == columns.provider_item
    return [some if not mine else [] for some, mine in zip(found, own, strict=True)]


def judges(role: EndRole, asked: Connection, snapshot: Snapshot) -> bool:
    """Whether an end's rules are asked: what a node dials of its own addresses leaves them out."""
    itself = snapshot.at(asked.consumer, asked.home) == snapshot.at(asked.dialled, asked.home)
    return role is EndRole.PROVIDER or not itself


def must_pass(decisions: Decisions, asked: Connection) -> bool:
    # The own node by way of another one is that one to the pod.
    by_another = asked.node is not None and any(d.rule == OWN_NODE for _, _, d in decisions)
    itself = not decisions and asked.consumer == asked.provider  # a hairpin may be denied
    return all(d.action is Action.ALLOW for _, _, d in decisions) and not by_another and not itself


def passing(
    compiled: Compiled, item: Item, role: EndRole, asked: Connection, items: Sequence[Item]
) -> Iterator[set[str]]:
    """The rules that pass the connection at an end, from each address that it may come from."""
    for source in test_compile.sources(list(items), asked, role):
        if item.kind is ItemKind.POD:
            rules = test_compile_kubernetes.decided(compiled, item, role, asked, source)
        else:
            rules = [test_compile.decided(compiled, item, role, asked, source)]
        if rules and all(rule.action is Action.ALLOW for rule in rules):
            yield {rule.handle for rule in rules}


def wider(handles: set[str]) -> set[str]:
    """Those of rules that admit more than they say, all if none does: a DENY is left out."""
    return set(filter(is_widened, handles)) or handles


def dial_of(way: Way, running: Running) -> Dial:
    asked, port = way.connection, 2 * next(running.ports) + way.odd
    echo = asked.protocol in (ICMP, ICMPV6)
    return Dial(
        way.where,
        asked.protocol,
        format_address(asked.consumer),
        port,
        format_address(asked.dialled),
        0 if echo else asked.dialled_port,
    )


def tell(asked: Connection) -> str:
    ends = (format_address(one) for one in (asked.consumer, asked.dialled, asked.provider))
    source, dialled, reached = ends
    node = f" at {format_address(asked.node)}" if asked.node else ""
    through = f"{dialled} {asked.dialled_port}{node} => {reached} {asked.provider_port}"
    return f"{asked.protocol} {source} -> {through}"
