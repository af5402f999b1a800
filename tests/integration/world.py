"""A small cluster and what its agents would report, for the tests of everything after capture."""

from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from ringfence.control.labelling import Report, label
from ringfence.inventory.timeline import Timeline
from ringfence.model.address import Address, parse_address
from ringfence.model.flow import DropSource, Observer
from ringfence.model.ids import ClusterId, item_key
from ringfence.model.labels import make_labels
from ringfence.model.protocol import TCP, UDP
from ringfence.model.workload import (
    Backend,
    Item,
    ItemKind,
    ServicePort,
    ServiceSpec,
    ServiceType,
)
from ringfence.store.flows.store import BatchKey
from ringfence.wire import batch

CLUSTER = ClusterId("lab")
SECOND = 10**9
START = 1_900_000_000 * SECOND

FRONT, CARTS, CARTS2, DB = "10.1.1.2", "10.1.1.3", "10.1.2.3", "10.1.2.4"
NODE1, GATEWAY1, NODE2, OUTSIDE = "192.0.2.11", "10.1.1.1", "192.0.2.12", "203.0.113.9"
CARTS_IP, FRONT_IP = "10.100.135.136", "10.100.0.9"


def pod(name: str, address: str, node: str, **given: Any) -> Item:
    owner = name.rsplit("-", 1)[0]
    labels = {
        "kind": "pod", "name": name, "kubernetes.namespace": "sock-shop",
        "kubernetes.cluster": CLUSTER, "kubernetes.label.name": owner, "address": address,
        "kubernetes.owner.name": owner,
    }  # fmt: skip
    return Item(
        item_key(CLUSTER, ItemKind.POD, name), ItemKind.POD, CLUSTER, "sock-shop", name,
        (parse_address(address),), make_labels(labels.items()), node, workload_name=owner, **given,
    )  # fmt: skip


def node(name: str, *addresses: str) -> Item:
    labels = {"kind": "node", "name": name, "kubernetes.cluster": CLUSTER}
    held = tuple(parse_address(address) for address in addresses)
    return Item(
        item_key(CLUSTER, ItemKind.NODE, name), ItemKind.NODE, CLUSTER, "", name, held,
        make_labels(labels.items()),
    )  # fmt: skip


def service(name: str, address: str, port: ServicePort, *backends: tuple[str, int]) -> Item:
    spec = ServiceSpec(
        ServiceType.NODE_PORT if port.node_port else ServiceType.CLUSTER_IP,
        (port,),
        tuple(
            Backend(port.name, port.protocol, parse_address(at), target, True, None)
            for at, target in backends
        ),
    )
    labels = {"kind": "service", "name": name, "kubernetes.namespace": "sock-shop"}
    return Item(
        item_key(CLUSTER, ItemKind.SERVICE, name), ItemKind.SERVICE, CLUSTER, "sock-shop", name,
        (parse_address(address),), make_labels(labels.items()), service=spec,
    )  # fmt: skip


ITEMS = (
    node("node1", NODE1, GATEWAY1),
    node("node2", NODE2),
    pod("front-end-1", FRONT, "node1", probe_ports=((TCP, 8079),)),
    pod("carts-1", CARTS, "node1"),
    pod("carts-2", CARTS2, "node2"),
    pod("user-db-1", DB, "node2"),
    service("carts", CARTS_IP, ServicePort("http", TCP, 80), (CARTS, 8080), (CARTS2, 8080)),
    service("front-end", FRONT_IP, ServicePort("http", TCP, 80, 31095), (FRONT, 8079)),
)


def timeline() -> Timeline:
    history = Timeline()
    history.replace(START - 60 * SECOND, CLUSTER, ITEMS)
    return history


Socket = tuple[str, int]


@dataclass
class Agent:
    """What one node's agent has seen."""

    node: str
    flows: list[dict[str, Any]] = field(default_factory=list)
    drops: list[dict[str, Any]] = field(default_factory=list)

    def saw(
        self,
        observer: Observer,
        interface: int,
        consumer: str,
        provider: Socket,
        before: tuple[str, Socket] | None = None,
        tunnel: tuple[str, Socket] | None = None,
        **counts: Any,
    ) -> None:
        """One row; `before` is the ends before NAT, `tunnel` those of the UDP outside."""
        before_consumer, before_provider = before or ("::", ("::", 0))
        tunnel_consumer, tunnel_provider = tunnel or ("::", ("::", 0))
        blanks = {field.name: "" if field.type == pa.string() else 0 for field in batch.FLOWS}
        row = blanks | {
            "observer": observer, "interface": interface, "protocol": TCP,
            "consumer": parse_address(consumer), "provider": parse_address(provider[0]),
            "consumer_port": 0, "provider_port": provider[1],
            "original_consumer": parse_address(before_consumer),
            "original_provider": parse_address(before_provider[0]),
            "original_provider_port": before_provider[1], "method": "syn",
            "provider_dns_name": "",
            "tunnel_protocol": UDP if tunnel else 0,
            "tunnel_consumer": parse_address(tunnel_consumer),
            "tunnel_provider": parse_address(tunnel_provider[0]),
            "tunnel_port": tunnel_provider[1],
            "forward_packets": 5, "forward_bytes": 500, "forward_flags": 2,
            "reverse_packets": 4, "reverse_bytes": 400, "reverse_flags": 18,
            "opened": 1, "answered": 1, "refused": 0, "first_ns": START, "last_ns": START + SECOND,
        }  # fmt: skip
        self.flows.append(row | counts)

    def dropped(self, consumer: str, provider: Socket, **given: Any) -> None:
        row = {
            "source": DropSource.RINGFENCE, "observer": Observer.POD, "direction": "inbound",
            "pod": "user-db-1", "protocol": TCP, "consumer": parse_address(consumer),
            "provider": parse_address(provider[0]), "provider_port": provider[1],
            "rule": "shop/deny", "reason": "", "packets": 3, "overflow": 0,
        }  # fmt: skip
        self.drops.append(row | given)

    def rows(self, history: Timeline) -> tuple[pa.Table, pa.Table]:
        return label([self.report("")], history)

    def report(self, batch_id: str, *, more: bool = False) -> Report:
        """What it sends for the window from START on; `more` if it goes on in another batch."""
        return Report(
            BatchKey("default", CLUSTER, self.node, batch_id, START, START + 15 * SECOND, more),
            pa.Table.from_pylist(self.flows, schema=batch.FLOWS),
            pa.Table.from_pylist(self.drops, schema=batch.DROPS),
        )


def stream(table: pa.Table) -> bytes:
    """A table as an agent reports it."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def address(text: str) -> Address:
    return parse_address(text)
