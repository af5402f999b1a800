"""From the words of a person who asks why to connections."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from ringfence.inventory.snapshot import NOWHERE, Snapshot
from ringfence.model.address import Address, format_address, parse_address
from ringfence.model.errors import InputError
from ringfence.model.ids import ClusterId, RevisionId, item_key
from ringfence.model.protocol import ICMP, TCP, UDP
from ringfence.model.workload import (
    Backend,
    Item,
    ItemKind,
    ServicePort,
    ServiceSpec,
    ServiceType,
    TrafficPolicy,
)
from ringfence.policy.connection import Connections
from ringfence.policy.hypothetical import hypothetical

EAST = ClusterId("east")


def item(kind: ItemKind, name: str, *addresses: str, spec: ServiceSpec | None = None) -> Item:
    held = tuple(map(parse_address, addresses))
    node, namespace = ("n1", "shop") if kind is ItemKind.POD else ("", "")
    namespace = "shop" if kind is ItemKind.SERVICE else namespace
    owner = name.split("-", maxsplit=1)[0]
    key = item_key(EAST, kind, name)
    return Item(key, kind, EAST, namespace, name, held, {}, node, service=spec, workload_name=owner)


def spec(external: str, *backends: str) -> ServiceSpec:
    return ServiceSpec(
        ServiceType.LOAD_BALANCER,
        (ServicePort("http", TCP, 80, 31095),),
        tuple(
            Backend("http", TCP, parse_address(address), 8079, serving, None)
            for address, serving in zip(backends, (True, True, False), strict=True)
        ),
        (parse_address(external),),
    )


SNAPSHOT = Snapshot(
    (RevisionId(number), one)
    for number, one in enumerate(
        [
            item(ItemKind.NODE, "n1", "192.168.0.1", "10.1.0.1"),
            item(ItemKind.POD, "carts-0"),
            item(ItemKind.POD, "carts-1", "10.1.0.2", "fd00::2"),
            item(ItemKind.POD, "carts-2", "10.1.0.3"),
            item(ItemKind.POD, "carts-3", "10.1.0.4"),
            item(
                ItemKind.SERVICE,
                "front",
                "10.100.0.7",
                spec=spec("198.51.100.1", "10.1.0.2", "10.1.0.3", "10.1.0.4"),
            ),
            item(
                ItemKind.SERVICE, "headless", spec=spec("::1", "10.1.0.2", "10.1.0.3", "10.1.0.4")
            ),
            item(ItemKind.HOST, "old", "172.16.0.1"),
        ],
        1,
    )
)


def text(column: NDArray[np.uint8], row: int) -> str:
    return format_address(Address(column[row].tobytes()))


def told(connections: Connections) -> list[str]:
    rows = []
    for row in range(len(connections)):
        node = int(connections.node_item[row])
        received = f" at {SNAPSHOT.items[node].name}" if node != NOWHERE else ""
        rows.append(
            f"{text(connections.consumer, row)} dials {text(connections.dialled, row)} "
            f"{connections.dialled_port[row]}, reaches {text(connections.provider, row)} "
            f"{connections.provider_port[row]}{received}"
        )
    return rows


@pytest.mark.parametrize(
    ("source", "destination", "port", "expected", "noted"),
    [
        (
            "172.16.0.1",
            "10.1.0.2",
            5432,
            ["172.16.0.1 dials 10.1.0.2 5432, reaches 10.1.0.2 5432"],
            "",
        ),
        (
            "shop/carts-1",
            "n1",
            9100,
            ["10.1.0.2 dials 192.168.0.1 9100, reaches 192.168.0.1 9100"],
            "",
        ),
        ("shop/carts-1", "fd00::9", 80, ["fd00::2 dials fd00::9 80, reaches fd00::9 80"], ""),
        (
            "shop/carts",
            "shop/front",
            80,
            [
                "10.1.0.2 dials 10.100.0.7 80, reaches 10.1.0.2 8079",
                "10.1.0.2 dials 10.100.0.7 80, reaches 10.1.0.3 8079",
            ],
            "shop/carts is 4 items; shop/carts-1 stands for them",
        ),
        (
            "203.0.113.9",
            "10.1.0.1",
            31095,
            [
                "203.0.113.9 dials 10.1.0.1 31095, reaches 10.1.0.2 8079 at n1",
                "203.0.113.9 dials 10.1.0.1 31095, reaches 10.1.0.3 8079 at n1",
            ],
            "",
        ),
        (
            "old",
            "198.51.100.1",
            80,
            [
                "172.16.0.1 dials 198.51.100.1 80, reaches 10.1.0.2 8079 at n1",
                "172.16.0.1 dials 198.51.100.1 80, reaches 10.1.0.3 8079 at n1",
            ],
            "load balancer",
        ),
        (
            "old",
            "shop/headless",
            8079,
            [
                "172.16.0.1 dials 10.1.0.2 8079, reaches 10.1.0.2 8079",
                "172.16.0.1 dials 10.1.0.3 8079, reaches 10.1.0.3 8079",
            ],
            "headless",
        ),
    ],
)
def test_words_become_connections(
    source: str, destination: str, port: int, expected: list[str], noted: str
) -> None:
    connections, notes = hypothetical(SNAPSHOT, source, destination, TCP, port)
    assert told(connections) == expected
    assert noted in " ".join(notes)
    assert bool(noted) is bool(notes)


@pytest.mark.parametrize(
    ("source", "destination", "protocol", "port", "said"),
    [
        ("shop/gone", "n1", TCP, 80, "'shop/gone' is no pod, node or host"),
        ("shop/front", "n1", TCP, 80, "'shop/front' is no pod, node or host"),
        ("n1", "shop/front", TCP, 81, "has no port TCP 81; it has TCP 80"),
        ("n1", "shop/front", UDP, 80, "has no port UDP 80"),
        ("n1", "fd00::9", TCP, 80, "no addresses of one family"),
    ],
)
def test_nonsense_is_refused(
    source: str, destination: str, protocol: int, port: int, said: str
) -> None:
    with pytest.raises(InputError, match=said):
        hypothetical(SNAPSHOT, source, destination, protocol, port)


@pytest.mark.parametrize(
    ("backends", "reached", "noted"),
    [((False, False), ["10.1.0.2", "10.1.0.3"], "as if all served"),
     ((False, True), ["10.1.0.3"], ""), ((), ["10.100.0.8"], "no backend")],
)  # fmt: skip
def test_backends_are_judged_even_if_none_serves(
    backends: tuple[bool, ...], reached: list[str], noted: str
) -> None:
    addresses = map(parse_address, ("10.1.0.2", "10.1.0.3"))
    some = zip(addresses, backends, strict=False)
    ports = (ServicePort("http", TCP, 80),)
    held = tuple(Backend("http", TCP, at, 8079, serving, None) for at, serving in some)
    idle = ServiceSpec(ServiceType.CLUSTER_IP, ports, held)
    items = [item(ItemKind.SERVICE, "idle", "10.100.0.8", spec=idle), *SNAPSHOT.items]
    snapshot = Snapshot((RevisionId(number), one) for number, one in enumerate(items, 1))
    connections, notes = hypothetical(snapshot, "old", "shop/idle", TCP, 80)
    assert [text(connections.provider, row) for row in range(len(reached))] == reached
    assert len(told(connections)) == len(reached)
    assert noted in " ".join(notes)


@pytest.mark.parametrize(
    ("source", "policy", "expected", "noted"),
    [
        # Whoever is in the cluster dials through its own node.
        ("shop/near", "Cluster", ["n2 10.1.0.2", "n2 10.2.0.2"], ""),
        ("n2", "Local", ["n2 10.1.0.2", "n2 10.2.0.2"], ""),
        ("203.0.113.9", "Local", ["n1 10.1.0.2", "n2 10.2.0.2"], ""),
        ("203.0.113.9", "Cluster", ["n1 10.1.0.2", "n2 10.1.0.2", "n1 10.2.0.2"], "any node"),
    ],
)
def test_each_node_that_may_receive_for_a_load_balancer_is_judged(
    source: str, policy: str, expected: list[str], noted: str
) -> None:
    balanced = replace(
        spec("198.51.100.1", "10.1.0.2", "10.2.0.2", "10.1.0.9"),
        external_traffic_policy=TrafficPolicy(policy),
    )
    near = replace(item(ItemKind.POD, "near", "10.2.0.2"), node="n2")
    items = [
        item(ItemKind.NODE, "n1", "192.168.0.1"),
        item(ItemKind.NODE, "n2", "192.168.0.2"),
        item(ItemKind.POD, "far", "10.1.0.2"),
        near,
        item(ItemKind.SERVICE, "front", "10.100.0.7", spec=balanced),
    ]
    snapshot = Snapshot((RevisionId(number), one) for number, one in enumerate(items, 1))
    connections, notes = hypothetical(snapshot, source, "198.51.100.1", TCP, 80)
    assert expected == [
        f"{snapshot.items[node].name} {text(connections.provider, row)}"
        for row, node in enumerate(connections.node_item.tolist())
    ]
    assert noted in " ".join(notes)
    assert bool(noted) is bool(notes)


def test_a_service_takes_no_icmp() -> None:
    with pytest.raises(InputError, match=r"has no port ICMP; it has TCP 80\. .* name that"):
        hypothetical(SNAPSHOT, "old", "shop/front", ICMP, 2048)
