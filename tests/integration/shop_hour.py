"""An hour of the shop as the kernels of two nodes count it: reconnects, kept connections, DNS.

Every connection is a row of `Connections`; `Kernel.records` gives what one node's interfaces saw
of them in one window, in the kernel's own one-way records.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from urllib.parse import urlsplit

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from ringfence.flows.orient import Listening
from ringfence.flows.record import FLOW_DTYPE, Hook, Nat
from ringfence.lab.shop import manifests
from ringfence.model.address import parse_address
from ringfence.model.protocol import TCP, UDP

Socket = tuple[str, int]
Told = tuple[int, str, str, int]
"""Protocol, consumer, provider, provider's port."""

NODES = ("node1", "node2")
WINDOWS, WINDOW_NS = 240, 15 * 10**9
EXTERNAL, NODE_ADDRESS = "203.0.113.10", {"node1": "192.0.2.11", "node2": "192.0.2.12"}
GATEWAY = {"node1": "10.1.1.1", "node2": "10.1.2.1"}
DNS, DNS_SERVICE, RESOLVER = "10.1.1.250", "10.100.0.10", "203.0.113.53"
_UPLINK, _FIRST_VETH = 2, 10
_PICKED = np.arange(32768, 61000)  # net.ipv4.ip_local_port_range
_STEP = 7919  # a prime: no port is used again within an hour

SERVICES = {service.name: service for service in manifests.services(IPv4Address(EXTERNAL))}
_NUMBER = {name: number for number, name in enumerate(SERVICES)}


def node_of(name: str) -> str:
    return NODES[_NUMBER[name] % 2]


def pod_of(name: str) -> str:
    return f"10.1.{1 + _NUMBER[name] % 2}.{10 + _NUMBER[name]}"


def cluster_ip(name: str) -> str:
    return SERVICES[name].cluster_ip or f"10.100.0.{20 + _NUMBER[name]}"


PODS = {pod_of(name): node_of(name) for name in SERVICES} | {DNS: "node1"}
_VETH = {address: _FIRST_VETH + number for number, address in enumerate(PODS)}


@dataclass(frozen=True)
class View:
    """One interface that both ways of a connection cross, the tuple there and the one before."""

    node: str
    interface: int
    inward: bool
    """Whether the consumer's packets come in there."""
    consumer: str
    provider: Socket
    before: tuple[str, Socket] | None = None


@dataclass(frozen=True)
class Edge:
    """Who calls whom, through what, and where it is seen."""

    protocol: int
    views: tuple[View, ...]
    kept: bool = False

    @property
    def told(self) -> set[Told]:
        return {(self.protocol, view.consumer, *view.provider) for view in self.views}


def edge(
    protocol: int, consumer: str, dialled: Socket, provider: Socket, *, kept: bool = False
) -> Edge:
    """A pod's connection; `dialled` is the Service's address, or the provider's own."""
    source = PODS[consumer]
    before = (consumer, dialled) if dialled != provider else None
    views = [View(source, _VETH[consumer], True, consumer, dialled)]
    target = PODS.get(provider[0])
    if target is None:  # outside: the node puts its own address before the pod's
        own = NODE_ADDRESS[source]
        views.append(View(source, _UPLINK, False, own, provider, (consumer, dialled)))
        return Edge(protocol, tuple(views), kept)
    if target != source:
        views.append(View(source, _UPLINK, False, consumer, provider, before))
        views.append(View(target, _UPLINK, True, consumer, provider))
        before = None
    views.append(View(target, _VETH[provider[0]], False, consumer, provider, before))
    return Edge(protocol, tuple(views), kept)


def edges() -> Iterator[Edge]:
    for name, service in SERVICES.items():
        pod, node = pod_of(name), node_of(name)
        urls = [(url, False) for calls in (service.pages or {}).values() for url in calls]
        for url, kept in dict([*urls, *((url, True) for url in service.keep)]).items():
            host, port = str(urlsplit(url).hostname), urlsplit(url).port or 80
            if host == EXTERNAL:
                yield edge(TCP, pod, (host, port), (host, port))
                continue
            target = host.removesuffix("-direct")
            provider = (pod_of(target), SERVICES[target].port)
            dialled = provider if target != host else (cluster_ip(target), port)
            yield edge(TCP, pod, dialled, provider, kept=kept)
        yield edge(UDP, pod, (DNS_SERVICE, 53), (DNS, 53))
        probe = View(node, _VETH[pod], False, GATEWAY[node], (pod, service.port))
        yield Edge(TCP, (probe,))
    yield edge(UDP, DNS, (RESOLVER, 53), (RESOLVER, 53))
    shop = (pod_of("front-end"), SERVICES["front-end"].port)
    entry = (NODE_ADDRESS["node1"], manifests.FRONT_END_NODE_PORT)
    yield Edge(TCP, (
        View("node1", _UPLINK, True, EXTERNAL, entry),
        View("node1", _VETH[shop[0]], False, GATEWAY["node1"], shop, (EXTERNAL, entry)),
    ))  # fmt: skip


EDGES = tuple(edges())
DECLARED = frozenset(
    [(UDP, 53), (TCP, manifests.FRONT_END_NODE_PORT)]
    + [(TCP, port) for each in SERVICES.values() for port in (each.port, each.service_port or 80)]
)


@dataclass
class Connections:
    """Every connection of the hour, those that were open before it included."""

    random: Generator
    edge: NDArray[np.int64] = field(init=False)
    port: NDArray[np.uint16] = field(init=False)
    """The consumer's."""
    first: NDArray[np.int64] = field(init=False)
    """The window in which it opened; negative before the hour."""
    last: NDArray[np.int64] = field(init=False)
    late: NDArray[np.bool_] = field(init=False)
    """The answer to the opening comes in the next window."""

    def __post_init__(self) -> None:
        """A few new connections of each edge a window; kept ones live for minutes."""
        kept = np.array([each.kept for each in EDGES])
        opened = self.random.poisson(np.where(kept, 0.05, 2.5), (WINDOWS + 20, len(EDGES)))
        opened[0] = 1
        at, self.edge = (np.repeat(of, opened.ravel()) for of in np.divmod(
            np.arange(opened.size), len(EDGES)
        ))  # fmt: skip
        count = len(self.edge)
        self.first = at - 20
        self.port = _PICKED[np.arange(count) * _STEP % len(_PICKED)].astype(np.uint16)
        tcp = np.array([each.protocol == TCP for each in EDGES])[self.edge]
        self.late = self.random.random(count) < 0.1
        lives = self.random.geometric(np.where(kept[self.edge], 0.02, 0.6), count) - 1
        self.last = self.first + np.maximum(np.where(tcp, lives, 0), self.late)


def _ways(view: View, protocol: int) -> NDArray[np.void]:
    """Both ways of a connection as one interface sees them, but for the consumer's port."""
    ways = np.zeros(2, FLOW_DTYPE)
    ways["ifindex"], ways["protocol"] = view.interface, protocol
    ways["hook"] = (Hook.INGRESS, Hook.EGRESS) if view.inward else (Hook.EGRESS, Hook.INGRESS)
    ends = [np.frombuffer(parse_address(at), np.uint8) for at in (view.consumer, view.provider[0])]
    ways["src"], ways["dst"] = ends, ends[::-1]
    ways["dport"][0] = ways["sport"][1] = view.provider[1]
    ways["reply"] = 0, 1
    if view.before:
        consumer, (dialled, port) = view.before
        ways["nat"], ways["original_dport"] = Nat.TRANSLATED, port
        ways["original_src"] = np.frombuffer(parse_address(consumer), np.uint8)
        ways["original_dst"] = np.frombuffer(parse_address(dialled), np.uint8)
    ways["packets"], ways["bytes"] = 3, 300
    ways["tcp_flags"] = 0x10 if protocol == TCP else 0
    return ways


_VIEWS = [(number, view) for number, each in enumerate(EDGES) for view in each.views]
_BOTH_WAYS = np.stack([_ways(view, EDGES[number].protocol) for number, view in _VIEWS])
_EDGE_OF, _NODE_OF = (np.array(of) for of in zip(
    *((number, view.node) for number, view in _VIEWS), strict=True
))  # fmt: skip


def records(connections: Connections, node: str, window: int, start_ns: int) -> NDArray[np.void]:
    """What the node's interfaces saw in a window (FLOW_DTYPE)."""
    active = (connections.first <= window) & (window <= connections.last)
    here = np.equal.outer(_EDGE_OF, connections.edge[active]) & np.equal(_NODE_OF, node)[:, None]
    view, which = np.nonzero(here)
    each = np.nonzero(active)[0][which]
    ways = _BOTH_WAYS[view]
    forward, reverse = ways[:, 0], ways[:, 1]
    forward["sport"] = reverse["dport"] = connections.port[each]
    for way in (forward, reverse):
        way["original_sport"] = np.where(way["nat"] == Nat.TRANSLATED, connections.port[each], 0)
    tcp = forward["protocol"] == TCP
    opens, late = connections.first[each] == window, connections.late[each]
    answered = np.where(late, connections.first[each] + 1 == window, opens)
    forward["syn"] = forward["syn_packets"] = tcp & opens
    reverse["synack"] = reverse["syn_packets"] = tcp & answered
    forward["first_ns"] = start_ns + connections.random.integers(1, 10, len(each)) * 10**9
    reverse["first_ns"] = forward["first_ns"] + 10**6
    ways["last_ns"] = ways["first_ns"] + 10**9
    seen = np.stack([opens | tcp, ~(opens & late)], axis=1)
    found: NDArray[np.void] = ways[seen]
    return found


def listening(node: str, random: Generator) -> Listening:
    """The node's servers by sock_diag, but for pods whose namespaces could not be read just now."""
    sockets = [(TCP, pod_of(name), each.port) for name, each in SERVICES.items()] + [(UDP, DNS, 53)]
    read = [one for one in sockets if PODS[one[1]] == node and random.random() < 0.8]
    octets = b"".join(parse_address(address) for _, address, _ in read)
    return Listening(
        np.array([protocol for protocol, _, _ in read], np.uint8),
        np.frombuffer(octets, np.uint8).reshape(-1, 16),
        np.array([port for _, _, port in read], np.uint16),
    )


def pod_interfaces(node: str) -> NDArray[np.uint32]:
    return np.array([_VETH[pod] for pod, on in PODS.items() if on == node], np.uint32)
