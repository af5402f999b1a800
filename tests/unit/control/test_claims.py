"""A client speaks for its own Kubernetes cluster or node alone."""

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from ringfence.control.claims import MOST_NODE_ADDRESSES, own_addresses, own_item
from ringfence.inventory.timeline import Timeline
from ringfence.kube import schema
from ringfence.kube.objects import namespace_item, node_item, pod_item
from ringfence.kube.services import service_item
from ringfence.model.address import parse_address, parse_network
from ringfence.model.errors import InputError
from ringfence.model.ids import ClusterId, ItemKey, NodeName, item_key
from ringfence.model.protocol import TCP
from ringfence.model.workload import (
    Backend,
    Item,
    ItemKind,
    ServiceSpec,
    ServiceType,
)
from tests.unit.control.shop import CLUSTER, FRONT, NODE, item
from tests.unit.kube.test_objects import LAB, recorded

DEV = ClusterId(CLUSTER)


def taken(one: Item) -> Item:
    """The item as the control plane takes it from the connector of its own cluster."""
    return own_item(DEV, msgspec.json.encode(one))


@pytest.mark.parametrize(
    ("key", "claimed", "held"),
    [
        ("kubernetes.cluster", "prod", (CLUSTER,)),
        ("kubernetes.namespace", "vault", ("shop",)),
        ("kubernetes.node", "n9", ("n1",)),
        ("kind", "node", ("pod",)),
        ("name", "db", ("front",)),
        ("address", "10.9.9.9", ("10.0.0.1",)),
        ("user.env", "prod", None),
        ("Kubernetes.Cluster", "prod", None),
        ("kubernetes.label.app", "front", ("front",)),
    ],
)
def test_labels_follow_from_the_item(key: str, claimed: str, held: tuple[str, ...] | None) -> None:
    lying = replace(FRONT, labels={**FRONT.labels, key: (claimed,)})
    assert taken(lying).labels.get(key) == held


def test_what_a_node_has_not_is_not_believed() -> None:
    lying = replace(NODE, labels={**NODE.labels, "kubernetes.namespace": ("shop",)})
    assert "kubernetes.namespace" not in taken(lying).labels


def test_a_backend_of_another_cluster_is_refused() -> None:
    stolen = item_key(ClusterId("prod"), ItemKind.POD, "db")
    backend = Backend("", TCP, FRONT.addresses[0], 80, True, stolen)
    spec = ServiceSpec(ServiceType.CLUSTER_IP, (), (backend,))
    with pytest.raises(InputError, match="'prod/pod/db' lies outside 'lab'"):
        taken(replace(item(ItemKind.SERVICE, "s", "10.96.0.1"), service=spec))


@pytest.mark.parametrize(
    "claim", [{"kind": ItemKind.NETWORK}, {"network": parse_network("0.0.0.0/0")}]
)
def test_a_connector_cannot_speak_for_networks(claim: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="networks are what people say"):
        taken(replace(FRONT, **claim))


def test_what_an_honest_connector_says_stays_as_it_is() -> None:
    namespace = recorded("namespace", schema.Bare)
    for told in (
        pod_item(LAB, recorded("pod", schema.Pod), namespace, None),
        node_item(LAB, recorded("node", schema.Node)),
        namespace_item(LAB, namespace),
        service_item(LAB, recorded("service", schema.Service), [], namespace),
    ):
        assert taken(told) == told


HOSTED = replace(item(ItemKind.POD, "proxy", "192.0.2.1"), host_network=True)
OTHER = item(ItemKind.NODE, "n2", "192.0.2.2")


@pytest.mark.parametrize(
    ("reported", "own", "refused"),
    [
        ("192.0.2.1", True, ""),  # its host-network pod has it as well
        ("10.0.0.254", True, ""),  # a gateway, which the Node object does not list
        ("0.0.0.0", False, ""),
        ("::", False, ""),
        ("127.0.0.1", False, ""),
        ("::1", False, ""),
        ("224.0.0.1", False, ""),
        ("ff02::1", False, ""),
        ("10.0.0.1", False, "10.0.0.1 belongs to pod shop/front"),
        ("192.0.2.2", False, "192.0.2.2 belongs to node n2"),
    ],
)
def test_a_node_has_just_its_own_addresses(reported: str, own: bool, refused: str) -> None:
    timeline = Timeline()
    timeline.replace(1, DEV, (NODE, HOSTED, FRONT, OTHER))
    address = parse_address(reported)
    node = (DEV, NodeName("n1"))
    assert own_addresses(timeline, node, [address, b"short"]) == ((address,) * own, refused)


def test_a_pod_that_comes_later_takes_its_address_back() -> None:
    timeline, node = Timeline(), (DEV, NodeName("n1"))
    timeline.replace(1, DEV, (NODE, OTHER))
    timeline.set_node_addresses(*node, own_addresses(timeline, node, FRONT.addresses)[0], 2)
    timeline.observe(3, FRONT)
    assert own_addresses(timeline, node, FRONT.addresses)[0] == ()
    timeline.observe(4, replace(FRONT, addresses=()))
    assert own_addresses(timeline, node, FRONT.addresses)[0] == FRONT.addresses


def test_a_node_has_not_the_whole_internet() -> None:
    many = [parse_address(f"10.{n >> 8}.{n & 255}.1") for n in range(MOST_NODE_ADDRESSES + 1)]
    own, refused = own_addresses(Timeline(), (DEV, NodeName("n1")), many)
    assert len(own) == MOST_NODE_ADDRESSES
    assert refused == "1025 addresses are more than the 1024 of a node"


def test_gateways_of_equal_pod_networks_are_nobodys_else() -> None:
    """An agent tells of addresses that Kubernetes does not list."""
    timeline, gateway, elsewhere = Timeline(), *map(parse_address, ("10.1.0.1", "10.2.0.1"))
    far = replace(
        NODE,
        key=item_key(ClusterId("far"), ItemKind.NODE, "n1"),
        cluster=ClusterId("far"),
        pod_networks=(parse_network("10.1.0.0/24"),),
    )
    timeline.observe(1, replace(NODE, addresses=(gateway, elsewhere)))
    timeline.observe(1, far)
    told = [gateway, elsewhere]
    assert own_addresses(timeline, (far.cluster, NodeName("n1")), told) == (
        (gateway,),
        "10.2.0.1 belongs to node n1",
    )
    timeline.observe(
        2, replace(FRONT, key=ItemKey("far/pod/x"), cluster=far.cluster, addresses=(gateway,))
    )
    assert own_addresses(timeline, (far.cluster, NodeName("n1")), [gateway])[1]
