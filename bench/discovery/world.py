"""A cluster that runs an application for two days: who lived when, at which address.

Pods come and go: autoscaling by day, crashes, rolling deployments that change labels, jobs on a
schedule. Addresses are few, so that one pod's is soon another's.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.random import Generator

from bench.discovery.graph import Edge, Graph, Socket, Workload
from bench.discovery.style import DAY, HOUR, MINUTE, Style
from ringfence.model.protocol import TCP, UDP

CLUSTER = "sim"
BEFORE, AFTER = -7.0 * DAY, 9.0 * DAY
"""Where lives begin and end that reach out of the two days, in seconds of the window."""
SPAN = 2 * DAY
PODS, NODES = 10 << 24 | 244 << 16, 192 << 24 | 168 << 16
FRONTS, HOSTS = 10 << 24 | 96 << 16, 10 << 24 | 50 << 16
API_ADDRESS, DNS_ADDRESS = FRONTS + 1, FRONTS + 10
_QUARANTINE_S = 20.0
"""How long an address rests before it is given away again."""
_STATEFUL = ("database", "cache", "broker", "discovery", "config")


@dataclass
class Life:
    """One pod, node or host, from `start` to `end`, seconds of the window."""

    party: "Party"
    start: float
    end: float
    revision: int = 0
    """How many rolling deployments it comes after."""
    ordinal: int = 0
    address: int = 0
    node: int = -1
    name: str = ""
    uid: str = ""


@dataclass
class Front:
    """A Service. `address` is 0 of a headless one."""

    name: str
    namespace: str
    address: int
    ports: dict[Socket, int]
    """The Service's port for each socket of its backends."""
    parties: list["Party"] = field(default_factory=list)
    node_ports: dict[Socket, int] = field(default_factory=dict)
    balancer: int = 0
    uid: str = ""


@dataclass
class Party:
    """Everything of one workload in one namespace: the unit of truth."""

    name: str
    kind: str
    """pod, host, node, or external."""
    workload: Workload
    namespace: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    lives: list[Life] = field(default_factory=list)
    front: Front | None = None
    probe: Socket | None = None
    references: list[str] = field(default_factory=list)
    addresses: list[int] = field(default_factory=list)
    """Of an external provider."""
    process: str = ""
    scheduled: bool = False
    system: bool = False

    def spans(self) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        return (
            np.array([life.start for life in self.lives]),
            np.array([life.end for life in self.lives]),
        )


@dataclass
class World:
    style: Style
    graph: Graph
    parties: dict[str, Party]
    fronts: list[Front]
    nodes: list[Party]
    truth: set[Edge]
    given: dict[Edge, range] = field(default_factory=dict)
    """The ports that a provider gives out over such an edge."""
    by_life: list[Life] = field(default_factory=list)

    def pods(self) -> Iterator[Party]:
        return (one for one in self.parties.values() if one.kind == "pod")


def build(graph: Graph, style: Style, draw: Generator) -> World:
    world = World(style, graph, {}, [], [], set())
    _nodes(world, draw)
    _system(world, draw)
    for copy in range(style.copies):
        _application(world, copy, draw)
    _rogue(world, draw)
    _settle(world, draw)
    _passive(world, draw.spawn(1)[0])
    return world


def _passive(world: World, draw: Generator) -> None:
    """One provider of a pod gives out ports, in the range of clients or of its own."""
    some = [
        edge
        for edge in sorted(world.truth)
        if edge.protocol == TCP
        and world.parties[edge.consumer].kind == "pod"
        and world.parties[edge.provider].kind in ("pod", "host")
        and not world.parties[edge.consumer].scheduled
    ]
    if some and draw.random() < world.style.passive:
        first, count = int(draw.integers(200, 600)) * 100, int(draw.choice([100, 200, 1000]))
        world.given[some[int(draw.integers(len(some)))]] = range(first, first + count)


def _nodes(world: World, draw: Generator) -> None:
    count = 3 + len(world.graph.workloads) * world.style.copies // 12
    for at in range(count):
        shape = Workload(f"node-{at}", "", "Node", {}, 1, "node", ((TCP, 10250),))
        party = Party(f"node/{at}", "node", shape)
        party.lives.append(Life(party, BEFORE, AFTER, address=NODES + 10 + at, node=at))
        party.lives[0].name, party.lives[0].uid = f"node-{at}", _uid(draw)
        world.nodes.append(party)
        world.parties[party.name] = party


def _system(world: World, draw: Generator) -> None:
    shapes = (
        (
            Workload("coredns", "kube-system", "Deployment", {"k8s-app": "kube-dns"}, 2, "dns",
                     ((UDP, 53), (TCP, 53), (TCP, 9153))),
            Front("kube-dns", "kube-system", DNS_ADDRESS, {(UDP, 53): 53, (TCP, 53): 53}),
            (TCP, 8080),
        ),
        (
            Workload("metrics-server", "kube-system", "Deployment",
                     {"k8s-app": "metrics-server"}, 1, "system", ((TCP, 4443),)),
            Front("metrics-server", "kube-system", FRONTS + 11, {(TCP, 4443): 443}),
            (TCP, 4443),
        ),
    )  # fmt: skip
    for shape, front, probe in shapes:
        party = Party(
            f"kube-system/{shape.id}", "pod", shape, "kube-system", dict(shape.labels), probe=probe
        )
        party.front, party.process, party.system = front, shape.id, True
        front.parties.append(party)
        front.uid = _uid(draw)
        world.fronts.append(front)
        world.parties[party.name] = party
        _replicas(party, shape.replicas, draw)


def _application(world: World, copy: int, draw: Generator) -> None:
    style, graph = world.style, world.graph
    suffix = ("", "-staging", "-dev", "-qa")[copy]
    names: dict[str, str] = {}
    for shape in graph.workloads.values():
        if shape.kind == "External":
            name = f"external/{shape.id}"
            if name not in world.parties:
                party = Party(name, "external", shape)
                party.addresses = _public(draw, int(draw.integers(1, 4)))
                world.parties[name] = party
            names[shape.id] = name
            continue
        namespace = shape.namespace + suffix
        name = names[shape.id] = f"{namespace}/{shape.id}"
        party = _party(world, name, namespace, shape, draw)
        world.parties[name] = party
        if shape.listens and party.kind == "pod" and draw.random() < style.probes:
            party.probe = next((one for one in shape.listens if one[0] == TCP), None)
    _fronts(world, names, suffix, draw)
    for edge in graph.edges:
        consumer, provider = names[edge.consumer], names[edge.provider]
        world.truth.add(Edge(consumer, provider, edge.protocol, edge.port))
        front = world.parties[provider].front
        if front and draw.random() < style.references:
            port = front.ports[edge.protocol, edge.port]
            said = f"{front.name}.{front.namespace}:{port}"
            world.parties[consumer].references.append(said)


def _party(world: World, name: str, namespace: str, shape: Workload, draw: Generator) -> Party:
    """A workload of the graph with its lives: pods, or hosts outside Kubernetes."""
    style, edges = world.style, world.graph.edges
    only_calls = {shape.id} & {one.consumer for one in edges} - {one.provider for one in edges}
    outside = shape.role in ("database", "client") and draw.random() < style.hosts
    outside &= shape.kind != "Job"
    party = Party(name, "host" if outside else "pod", shape, namespace, dict(shape.labels))
    party.process = str(draw.choice(["java", "node", "python3", shape.id[:15], shape.id[:15]]))
    party.scheduled = not outside and (
        shape.kind == "Job" or (bool(only_calls) and shape.role == "client" and draw.random() < 0.4)
    )
    if party.scheduled:
        _schedule(party, draw)
    elif outside:
        party.lives += [Life(party, BEFORE, AFTER) for _ in range(int(draw.integers(1, 3)))]
    elif shape.kind == "DaemonSet":
        party.lives += [Life(party, BEFORE, AFTER, node=at) for at in range(len(world.nodes))]
    else:
        _replicas(party, _count(shape, style, draw), draw)
    return party


def _count(shape: Workload, style: Style, draw: Generator) -> int:
    if shape.role in _STATEFUL:
        return max(shape.replicas, int(draw.choice([1, 2, 3], p=(0.5, 0.3, 0.2))))
    return max(shape.replicas, int(draw.integers(1 + (draw.random() < 0.85), style.most_replicas)))


def _replicas(party: Party, count: int, draw: Generator) -> None:
    """Replicas that crash, are deployed anew, and are more by day."""
    elastic = party.workload.role not in _STATEFUL and party.workload.role not in ("dns", "system")
    rollouts = sorted(draw.uniform(0, SPAN, int(draw.poisson(0.5))).tolist()) if elastic else []
    places: list[tuple[float, float]] = [(BEFORE, AFTER)] * count
    if elastic and draw.random() < 0.5:
        for day in range(2):
            for _ in range(int(draw.integers(1, 3))):
                up = day * DAY + draw.normal(9, 1.0) * HOUR
                places.append((up, up + draw.uniform(4, 9) * HOUR))
    for ordinal, (start, end) in enumerate(places):
        crashes = draw.uniform(0, SPAN, int(draw.poisson(0.4 if elastic else 0.1))).tolist()
        turns = [at + 30.0 * ordinal + draw.uniform(1, 20) for at in rollouts] + crashes
        cuts = sorted(at for at in turns if start < at < end)
        resumed = [at + draw.uniform(2, 25) for at in cuts]
        for begin, finish in zip([start, *resumed], [*cuts, end], strict=True):
            if finish - begin < 30:
                continue
            done = sum(at <= begin for at in rollouts)
            party.lives.append(Life(party, begin, finish, done, ordinal))


def _schedule(party: Party, draw: Generator) -> None:
    """A pod every few hours, for some minutes."""
    every = float(draw.choice([2, 4, 6])) * HOUR
    first = draw.uniform(0, every)
    for ordinal, at in enumerate(np.arange(first - DAY, SPAN, every).tolist()):
        party.lives.append(Life(party, at, at + draw.uniform(3, 12) * MINUTE, 0, ordinal))


def _fronts(world: World, names: dict[str, str], suffix: str, draw: Generator) -> None:
    """Services before most providers; versions of one app share theirs where all callers may."""
    graph = world.graph
    callers: dict[str, frozenset[str]] = {
        one: frozenset(edge.consumer for edge in graph.edges if edge.provider == one)
        for one in graph.workloads
    }
    public = {
        edge.provider for edge in graph.edges if graph.workloads[edge.consumer].kind == "External"
    }
    made: dict[tuple[str, str], Front] = {}
    for shape in graph.workloads.values():
        if shape.kind == "External" or not shape.listens:
            continue
        party = world.parties[names[shape.id]]
        if party.kind != "pod" or (draw.random() > 0.88 and shape.id not in public):
            continue
        alike = [
            one
            for one in graph.workloads.values()
            if one.labels.get("app") == shape.labels.get("app") is not None
            and "version" in one.labels
            and (one.listens, one.namespace) == (shape.listens, shape.namespace)
            and callers[one.id] == callers[shape.id]
        ]
        shared = len(alike) > 1 and "version" in shape.labels
        name = shape.labels["app"] if shared else shape.id
        namespace = shape.namespace + suffix
        front = made.get((namespace, name))
        if front is None:
            number = len(world.fronts) + 20
            headless = draw.random() < (0.4 if shape.kind == "StatefulSet" else 0.08)
            headless &= shape.id not in public
            ports = {
                (protocol, port): 80
                if not headless and port >= 3000 and at == 0 and draw.random() < 0.35
                else port
                for at, (protocol, port) in enumerate(shape.listens)
            }
            front = Front(name, namespace, 0 if headless else FRONTS + number, ports)
            if shape.id in public:
                front.node_ports = {
                    one: 30_000 + number * 8 + at for at, one in enumerate(shape.listens)
                }
                if draw.random() < 0.5:
                    front.balancer = (34 << 24) + int(draw.integers(1 << 16, 1 << 20))
            front.uid = _uid(draw)
            made[namespace, name] = front
            world.fronts.append(front)
        front.parties.append(party)
        party.front = front


def _rogue(world: World, draw: Generator) -> None:
    """A pod that somebody started by hand in the second half of the window."""
    namespaces = sorted({one.namespace for one in world.pods() if not one.system})
    if not namespaces:
        return
    namespace = str(draw.choice(namespaces))
    name = str(draw.choice(["debug", "tmp-shell", "test", "netshoot"]))
    shape = Workload(name, namespace, "Pod", {"run": name}, 1, "rogue", ())
    party = Party(f"rogue/{name}", "pod", shape, namespace, {"run": name})
    start = draw.uniform(0.3, 0.7) * DAY
    end = AFTER if draw.random() < 0.6 else start + draw.uniform(0.2, 0.5) * DAY
    party.lives.append(Life(party, start, end))
    party.process = "sh"
    world.parties[party.name] = party


def _settle(world: World, draw: Generator) -> None:
    """Give every life a node, an address, a name and a uid, in order of time."""
    lives = sorted(
        (life for party in world.parties.values() for life in party.lives),
        key=lambda life: life.start,
    )
    pods = [life for life in lives if life.party.kind == "pod"]
    at_once = max((sum(o.start <= p.start < o.end for o in pods) for p in pods), default=0)
    # A daemon needs a place on every node; all others find one on any.
    room = int(at_once / len(world.nodes) * 1.5) + 12
    free = [
        [(BEFORE - DAY, PODS + (node << 8) + 2 + at) for at in range(room)]
        for node in range(len(world.nodes))
    ]
    held: list[tuple[float, int, int]] = []
    host = HOSTS + 10
    for life in lives:
        if life.party.kind == "host":
            life.address, host = host, host + 1
            life.name, life.uid = f"srv-{int(draw.integers(1 << 16)):04x}", _uid(draw)
        if life.party.kind != "pod":
            continue
        done = [one for one in held if one[0] <= life.start]
        held = [one for one in held if one[0] > life.start]
        for end, node, address in done:
            free[node].append((end, address))
        _place(life, free, world, draw)
        held.append((life.end, life.node, life.address))
        life.uid = _uid(draw)
        life.name = _pod_name(life, draw)
    world.by_life = lives


def _place(life: Life, free: list[list[tuple[float, int]]], world: World, draw: Generator) -> None:
    nodes = [life.node] if life.node >= 0 else draw.permutation(len(world.nodes)).tolist()
    for node in nodes:
        rested = [one for one in free[node] if one[0] + _QUARANTINE_S <= life.start]
        if rested:
            # Now the one that was given up last, now any.
            chosen = max(rested) if draw.random() < 0.6 else rested[int(draw.integers(len(rested)))]
            free[node].remove(chosen)
            life.node, life.address = node, chosen[1]
            return
    raise AssertionError("a node ran out of addresses")


def _pod_name(life: Life, draw: Generator) -> str:
    shape = life.party.workload
    tail = "".join(draw.choice(list("bcdfghjklmnpqrstvwxz2456789"), 5))
    match shape.kind:
        case "StatefulSet":
            return f"{shape.id}-{life.ordinal}"
        case "Pod":
            return shape.id
        case "DaemonSet":
            return f"{shape.id}-{tail}"
        case _ if life.party.scheduled:
            return f"{shape.id}-{28_000_000 + life.ordinal}-{tail}"
        case _:
            return f"{shape.id}-{template_hash(life)}-{tail}"


def template_hash(life: Life) -> str:
    seed = np.random.default_rng([life.revision, *life.party.name.encode()])
    return "".join(seed.choice(list("bcdfghjklmnpqrstvwxz2456789"), 9))


def _uid(draw: Generator) -> str:
    text = draw.bytes(16).hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def _public(draw: Generator, count: int) -> list[int]:
    block = (int(draw.integers(50, 90)) << 24) + (int(draw.integers(1 << 16)) << 8)
    return [block + int(at) for at in draw.choice(np.arange(1, 255), count, replace=False)]
