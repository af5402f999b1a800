"""A cluster of two nodes made of network namespaces, with Services, and a host outside.

A switch joins the nodes and the host outside. Each node forwards for its pods, and does what
kube-proxy does, with rules of its own: of a Service's two backends the first answers even source
ports and the second odd ones, so that whoever dials knows whom. Real ones are in kube_proxy.py.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ringfence.model.address import parse_address, parse_network
from ringfence.model.ids import ClusterId, item_key
from ringfence.model.labels import LABEL_PREFIX, make_labels
from ringfence.model.protocol import TCP, UDP, format_protocol
from ringfence.model.workload import (
    Backend,
    Item,
    ItemKind,
    ServicePort,
    ServiceSpec,
    ServiceType,
    TrafficPolicy,
)
from tests.kernel.netns import Namespace, Pod, await_carrier, ip, join, namespace

CLUSTER = ClusterId("test")
OUTSIDE = ("172.30.0.100", "fd00:30::100")
NODES = (("172.30.0.11", "fd00:30::11"), ("172.30.0.12", "fd00:30::12"))
PODS = ("10.99.0.0/16", "fd00:99::/32")
PODS_EACH = 3
LABELS = ({"app": "a"}, {"app": "b"}, {"app": "a", "env": "prod"}) * 2
BALANCER = ("198.51.100.1", "2001:db8:1::1")


_MASQUERADE = "meta mark set 0x4000"


@dataclass(frozen=True)
class Service:
    """What the nodes make of a Service of one port: backends are pods by number, from 1.

    Number 0 is the host-network pod of the second node. A headless one has no address.
    """

    name: str
    address: tuple[str, ...]
    port: int
    target: int
    backends: tuple[int, ...]
    protocol: int = TCP
    node_port: int = 0
    local: bool = False
    external: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    """From where the load balancer serves; none for everywhere."""


SERVICES = (
    Service(
        "web", ("10.96.0.1", "fd00:96::1"), 80, 8080, (1, 4), node_port=30080, external=BALANCER
    ),
    Service("near", ("10.96.0.2", "fd00:96::2"), 80, 8081, (2, 5), node_port=30081, local=True),
    Service("dns", ("10.96.0.3", "fd00:96::3"), 53, 5353, (2, 6), UDP, node_port=30053),
    Service("agents", ("10.96.0.4", "fd00:96::4"), 80, 8082, (0, 3), node_port=30082),
    Service("alone", ("10.96.0.5", "fd00:96::5"), 80, 8080, (3,)),
    Service("shared", ("10.96.0.6", "fd00:96::6"), 81, 8080, (1, 6)),
    Service("headless", (), 8081, 8081, (1, 5)),
)


@dataclass(frozen=True)
class Cluster:
    """The namespaces, and their inventory; pods are numbered from 1, three on each node."""

    nodes: tuple[Namespace, Namespace]
    pods: tuple[Pod, ...]
    outside: Namespace
    services: tuple[Service, ...]
    items: tuple[Item, ...]

    def at(self, item: Item) -> Namespace:
        """The namespace of a node or pod."""
        if item.kind is ItemKind.NODE:
            return self.nodes[int(item.name[1:]) - 1]
        return self.pods[int(item.name[3:]) - 1]


@contextlib.contextmanager
def cluster(
    services: tuple[Service, ...] = SERVICES, *, translating: bool = True
) -> Iterator[Cluster]:
    """The cluster, without anybody that translates for Services unless `translating`."""
    with contextlib.ExitStack() as stack:
        switch, outside, first, second = (
            stack.enter_context(namespace(role)) for role in ("switch", "outside", "n1", "n2")
        )
        nodes = first, second
        switch.run("ip", "link", "add", "br0", "type", "bridge")
        switch.run("ip", "link", "set", "br0", "up")
        for port, (one, held) in enumerate(zip((outside, *nodes), (OUTSIDE, *NODES), strict=True)):
            _plug(switch, one, port, held)
        pods = tuple(
            join(nodes[home(number)], stack.enter_context(namespace("pod")), number)
            for number in range(1, 2 * PODS_EACH + 1)
        )
        _route(outside, nodes)
        for one in (outside, *nodes, *pods):
            one.run(
                "sysctl", "-qw", "net.ipv4.conf.all.rp_filter=0",
                "net.ipv4.conf.default.rp_filter=0", "net.ipv4.ping_group_range=0 2147483647",
            )  # fmt: skip
        for at, node in enumerate(nodes):
            node.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
            if translating:
                node.nft(_translation(services, at, "ip", 0) + _translation(services, at, "ip6", 1))
        for pod in pods:
            await_carrier(pod)
        yield Cluster(nodes, pods, outside, services, tuple(_items(pods, services)))


def _route(outside: Namespace, nodes: tuple[Namespace, Namespace]) -> None:
    """To the pods of the other nodes, and from outside to the load balancer."""
    for number in range(1, 2 * PODS_EACH + 1):
        for block, via in zip(
            (f"10.99.{number}.0/24", f"fd00:99:{number}::/64"), NODES[home(number)], strict=True
        ):
            for one in (outside, nodes[1 - home(number)]):
                one.run("ip", "route", "add", block, "via", via)
    for front, via in zip(BALANCER, NODES[0], strict=True):
        outside.run("ip", "route", "add", front, "via", via)
    for node in nodes:  # what is dialled must have a route before it is translated
        for family, via in zip(("-4", "-6"), OUTSIDE, strict=True):
            node.run("ip", family, "route", "add", "default", "via", via)


def home(number: int) -> int:
    """The place of the node that runs the pod of that number."""
    return 0 if 1 <= number <= PODS_EACH else 1


def _plug(switch: Namespace, one: Namespace, port: int, held: tuple[str, str]) -> None:
    ip("-n", switch.name, "link", "add", f"port{port}", "type", "veth",
       "peer", "name", "eth0", "netns", one.name)  # fmt: skip
    switch.run("ip", "link", "set", f"port{port}", "master", "br0", "up")
    one.run("ip", "addr", "add", f"{held[0]}/24", "dev", "eth0")
    one.run("ip", "addr", "add", f"{held[1]}/64", "dev", "eth0", "nodad")
    one.run("ip", "link", "set", "eth0", "up")


def _translation(services: Sequence[Service], node: int, name: str, of: int) -> str:
    """What kube-proxy would do on a node, in nftables.

    Masqueraded is what is received for a Service, but for a local one, and what no pod sends.
    """
    rules = []
    for one in (one for one in services if one.address):
        near = tuple(number for number in one.backends if home(number) == node)
        received = _MASQUERADE if not one.local else ""
        ways = [
            (one.address[of], one.port, f"{name} saddr != {PODS[of]} {_MASQUERADE}", one.backends)
        ]
        ways += [(one.address[of], one.port, "", one.backends)]
        ways += [(front, one.port, received, one.backends) for front in one.external[of : of + 1]]
        backends = near if one.local else one.backends
        ways += [(NODES[node][of], one.node_port, received, backends)] if one.node_port else []
        for front, port, then, backends in ways:
            dialled = f"{name} daddr {front} {format_protocol(one.protocol).lower()} dport {port}"
            for at, number in enumerate(backends):
                odd = f"th sport & 1 == {at}" if len(backends) > 1 else ""
                to = f"[{address(number)[of]}]" if of else address(number)[of]
                rules.append(f"{dialled} {odd} {then} dnat to {to}:{one.target}")
    own = [address(number)[of] for number in range(1, 2 * PODS_EACH + 1)]
    hairpins = [f"{name} saddr {one} {name} daddr {one} masquerade" for one in own]
    return "".join(
        f"table {name} proxy {{\nchain {hook} {{ type nat hook {hook} priority {priority}\n"
        + "\n".join(chain)
        + "\n}\n}\n"
        for hook, priority, chain in (
            ("prerouting", -100, rules),
            ("output", -100, rules),
            ("postrouting", 100, ["meta mark & 0x4000 == 0x4000 masquerade", *hairpins]),
        )
    )


def address(number: int) -> tuple[str, str]:
    """The addresses of the pod of that number, IPv4 and IPv6; 0 is the host-network pod."""
    return (f"10.99.{number}.2", f"fd00:99:{number}::2") if number else NODES[1]


def _items(pods: tuple[Pod, ...], services: Sequence[Service]) -> Iterator[Item]:
    """The inventory that the control plane would have."""
    for at in range(2):
        mine = [pod for number, pod in enumerate(pods, 1) if home(number) == at]
        held = (*NODES[at], *(a for pod in mine for a in (pod.gateway, pod.gateway6)))
        yield _item(ItemKind.NODE, f"n{at + 1}", held, {"app": "ab"[at]})
    for number in range(2 * PODS_EACH + 1):
        node = f"n{home(number) + 1}"
        labels = LABELS[number - 1] if number else {"app": "b"}
        held = address(number)
        if not number:
            held = (*held, *(a for pod in pods[PODS_EACH:] for a in (pod.gateway, pod.gateway6)))
        yield _item(ItemKind.POD, f"pod{number}", held, labels, node, host_network=not number)
    for one in services:
        backends = tuple(
            Backend(
                "p",
                one.protocol,
                parse_address(a),
                one.target,
                True,
                item_key(CLUSTER, "pod", f"pod{n}"),
            )
            for n in one.backends
            for a in address(n)
        )
        spec = ServiceSpec(
            ServiceType.NODE_PORT if one.address else ServiceType.CLUSTER_IP,
            (ServicePort("p", one.protocol, one.port, one.node_port),),
            backends,
            tuple(map(parse_address, one.external)),
            TrafficPolicy.LOCAL if one.local else TrafficPolicy.CLUSTER,
            tuple(map(parse_address, one.external)),
            tuple(map(parse_network, one.sources)),
        )
        key = item_key(CLUSTER, "service", one.name)
        kind = make_labels([("kind", "service")])
        fronts = tuple(map(parse_address, one.address))
        yield Item(key, ItemKind.SERVICE, CLUSTER, "shop", one.name, fronts, kind, service=spec)


def _item(
    kind: ItemKind,
    name: str,
    held: tuple[str, ...],
    labels: dict[str, str],
    node: str = "",
    *,
    host_network: bool = False,
) -> Item:
    told = [("kind", kind), ("kubernetes.cluster", CLUSTER), *labels.items()]
    told += [(LABEL_PREFIX + key, value) for key, value in labels.items()]
    addresses = tuple(map(parse_address, held))
    key = item_key(CLUSTER, kind, name)
    return Item(key, kind, CLUSTER, "shop", name, addresses, make_labels(told), node, host_network)
