"""Coarse policies, by the pods behind a Service, allow whatever finer ones do."""

import csv
import io
from unittest.mock import patch

import pytest

from ringfence.control.discover import Wanted, discover
from ringfence.discovery.boundary import Boundary
from ringfence.discovery.granularity import Granularity
from ringfence.discovery.sockets import served
from ringfence.flows.recorded import read_flows
from ringfence.inventory.recorded import read_inventory
from ringfence.model.ids import ScopeName, WorkspaceName
from ringfence.model.policy import ClusterEnd, Policy, ServiceEnd
from ringfence.model.protocol import PortRange
from ringfence.model.query import Everything
from ringfence.model.scope import Scope, ScopeTree

ALL = ScopeName("all")
TREE = ScopeTree([Scope(ALL, None, Everything())])
SERVICE = ServiceEnd("shop", "web")
ANSWERED = {"opened": 1, "answered": 1, "forward_bytes": 90, "reverse_bytes": 60}


def inventory(protocol: str, *besides: str) -> str:
    pods = [
        f"""
- {{kind: pod, kubernetes_cluster: lab, namespace: shop, name: {name}-1, addresses: [{address}],
   owner: StatefulSet/{name}, workload_name: {name}, labels: {{kubernetes.label.app: {name}}}}}"""
        for name, address in (("web", "10.1.0.1"), ("cart", "10.1.1.1"), ("mail", "10.1.2.1"))
    ]
    backends = ", ".join(
        f"{{service_port: http, protocol: {protocol}, address: {one}, port: 8080, serving: true}}"
        for one in ("10.1.0.1", *besides)
    )
    return f"""{"".join(pods)}
- {{kind: service, kubernetes_cluster: lab, namespace: shop, name: web, addresses: [10.96.0.1],
   service: {{type: ClusterIP, ports: [{{name: http, protocol: {protocol}, port: 80}}],
     backends: [{backends}]}}}}
"""


def policies(boundary: Boundary, *besides: str, protocol: str = "TCP") -> list[Policy]:
    """Towards web, whose Service leads elsewhere besides; two use it, cart dials 9090 as well."""
    used = [
        ("10.1.1.1", 8080, "10.96.0.1", 80),
        ("10.1.2.1", 8080, "10.96.0.1", 80),
        ("10.1.1.1", 9090, "10.1.0.1", 9090),
    ]
    rows = [
        {
            "first": f"2030-01-01T{hour:02}:{at}0:00Z", "last": f"2030-01-01T{hour:02}:{at}0:01Z",
            "consumer_address": consumer, "provider_address": "10.1.0.1", "protocol": protocol,
            "port": port, "dialled_address": address, "dialled_port": dialled, **ANSWERED,
        }
        for hour in range(24)
        for at, (consumer, port, address, dialled) in enumerate(used)
    ]  # fmt: skip
    told = io.StringIO()
    writer = csv.DictWriter(told, rows[0])
    writer.writeheader()
    writer.writerows(rows)
    timeline = read_inventory(inventory(protocol, *besides), "inventory.yaml").timeline
    seen = read_flows(io.BytesIO(told.getvalue().encode()), "flows.csv", timeline)
    wanted = Wanted(Granularity(boundary, compress=1))
    return [*discover(seen, timeline, TREE, ALL, WorkspaceName(ALL), wanted).workspace.policies]


def test_coarse_names_the_pods_behind_a_service() -> None:
    told = policies(Boundary.COARSE)
    assert {one.provider for one in told} == {ClusterEnd("web")}
    assert {port for one in told for port in one.ports} == {
        PortRange(8080, 8080),
        PortRange(9090, 9090),
    }


@pytest.mark.parametrize("boundary", [Boundary.MEDIUM, Boundary.COARSE])
def test_a_protocol_whose_ports_no_policy_tells_keeps_all_of_them(boundary: Boundary) -> None:
    told = policies(boundary, protocol="SCTP")
    assert told
    assert not any(one.ports for one in told)


def test_a_service_stays_that_leads_to_an_address_besides() -> None:
    """For whoever dials it may be led there."""
    ends = {one.provider for one in policies(Boundary.COARSE, "198.51.100.9")}
    assert ends == {SERVICE, ClusterEnd("web")}


def test_who_is_behind_a_service_is_looked_up_once() -> None:
    with patch("ringfence.discovery.granularity.served", wraps=served) as asked:
        assert len(policies(Boundary.COARSE)) > 1
    assert asked.call_count == 1
