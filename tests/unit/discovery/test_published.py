"""Whom a policy of a published Service names of the hosts outside that use it."""

import csv
import io
from collections.abc import Iterable

import pytest

from ringfence.control.discover import Wanted, discover
from ringfence.discovery.boundary import Boundary
from ringfence.discovery.granularity import Granularity
from ringfence.flows.recorded import read_flows
from ringfence.inventory.recorded import read_inventory
from ringfence.model.address import parse_network
from ringfence.model.ids import ScopeName, WorkspaceName
from ringfence.model.policy import CidrEnd, End, OutsideEnd, Policy
from ringfence.model.query import Everything
from ringfence.model.scope import Scope, ScopeTree

ALL = ScopeName("all")
TREE = ScopeTree([Scope(ALL, None, Everything())])
NODE_PORT, BALANCER = ("10.9.0.1", 30080), ("198.51.100.10", 80)
CLUSTER_IP = "10.96.0.1", 80
ELSEWHERE = """
- {kind: service, kubernetes_cluster: another, namespace: shop, name: web, addresses: [10.97.0.1],
   service: {type: NodePort, ports: [{name: http, protocol: TCP, port: 80, node_port: 30081}],
     backends: []}}
"""
"""A Service of that name in another Kubernetes cluster, which is published."""
ANSWERED = {"opened": 1, "answered": 1, "forward_bytes": 90, "reverse_bytes": 60}


def inventory(*, published: bool) -> str:
    external = "type: LoadBalancer, external_addresses: [198.51.100.10], " if published else ""
    port = ", node_port: 30080" if published else ""
    return f"""
- {{kind: node, kubernetes_cluster: lab, name: n1, addresses: [10.9.0.1]}}
- {{kind: pod, kubernetes_cluster: lab, namespace: shop, name: web-1, addresses: [10.1.0.1],
   node: n1, owner: StatefulSet/web, workload_name: web, labels: {{kubernetes.label.app: web}}}}
- {{kind: service, kubernetes_cluster: lab, namespace: shop, name: web, addresses: [10.96.0.1],
   service: {{{external or "type: ClusterIP, "}
     ports: [{{name: http, protocol: TCP, port: 80{port}}}],
     backends: [{{service_port: http, protocol: TCP, address: 10.1.0.1, port: 8080,
                 serving: true}}]}}}}
"""


def consumers(
    boundary: Boundary, clients: Iterable[str], dialled: tuple[str, int], *, published: bool = True
) -> set[End]:
    """Whom the policy towards web names, where these hosts used it all day."""
    return {one.consumer for one in policies(boundary, clients, dialled, published=published)}


def policies(
    boundary: Boundary, clients: Iterable[str], dialled: tuple[str, int], *, published: bool = True
) -> list[Policy]:
    address, port = dialled
    rows = [
        {
            "first": f"2030-01-01T{hour:02}:{10 * at:02}:00Z",
            "last": f"2030-01-01T{hour:02}:{10 * at:02}:01Z",
            "consumer_address": client, "provider_address": "10.1.0.1", "protocol": "TCP",
            "port": 8080, "dialled_address": address, "dialled_port": port, **ANSWERED,
        }
        for hour in range(24)
        for at, client in enumerate(clients)
    ]  # fmt: skip
    told = io.StringIO()
    writer = csv.DictWriter(told, rows[0])
    writer.writeheader()
    writer.writerows(rows)
    items = inventory(published=published) + ELSEWHERE
    timeline = read_inventory(items, "inventory.yaml").timeline
    seen = read_flows(io.BytesIO(told.getvalue().encode()), "flows.csv", timeline)
    wanted = Wanted(Granularity(boundary))
    found = discover(seen, timeline, TREE, ALL, WorkspaceName(ALL), wanted)
    return [one for one in found.workspace.policies if one.id.endswith("-to-web")]


@pytest.mark.parametrize("dialled", [NODE_PORT, BALANCER, CLUSTER_IP])
def test_a_published_service_is_there_for_whoever_comes(dialled: tuple[str, int]) -> None:
    public, inside = ["203.0.113.7"], ["172.20.0.5", "172.20.0.6"]
    outside = {OutsideEnd()}
    each = {CidrEnd(tuple(parse_network(f"{one}/32") for one in inside))}
    for boundary in (Boundary.VERY_FINE, Boundary.FINE):
        assert consumers(boundary, public, dialled) == outside
        assert consumers(boundary, [*public, *inside], dialled) == outside
    assert consumers(Boundary.VERY_FINE, inside, dialled) == each
    assert consumers(Boundary.FINE, inside, dialled) == outside


def test_a_policy_says_that_its_service_is_published() -> None:
    (told,) = policies(Boundary.FINE, ["203.0.113.7"], NODE_PORT)
    assert told.evidence is not None
    assert "any host outside, for the Service is published" in told.evidence.why


@pytest.mark.parametrize("dialled", [("10.1.0.1", 8080), CLUSTER_IP])
def test_of_one_that_is_not_published_each_is_named(dialled: tuple[str, int]) -> None:
    """Though one of its name is, in another Kubernetes cluster."""
    for boundary in (Boundary.VERY_FINE, Boundary.FINE):
        told = consumers(boundary, ["203.0.113.7"], dialled, published=False)
        assert told == {CidrEnd((parse_network("203.0.113.7/32"),))}
