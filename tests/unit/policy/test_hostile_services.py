"""What a Service says that its tenant wrote opens nothing to others, and stops nobody's rules."""

from dataclasses import replace

import msgspec
import pytest

from ringfence.kube import schema
from ringfence.kube.services import service_item
from ringfence.model.address import Address, parse_address, parse_network
from ringfence.model.errors import InputError
from ringfence.model.ids import ClusterId, ItemKey, PolicyId
from ringfence.model.policy import Action, CidrEnd, End, OwnNodeEnd, Policy, ServiceEnd
from ringfence.model.protocol import TCP, UDP, PortRange
from ringfence.model.workload import Backend, Item, ServicePort, ServiceSpec, ServiceType
from ringfence.policy import shared
from ringfence.policy.compile import compile_policies
from ringfence.policy.failsafe import NodeAccess
from ringfence.policy.program import Rule
from ringfence.policy.shared import Programs
from tests.golden.shop import CARTS, CLUSTER, ITEMS, NAMESPACE, NODE1, allow, app, policy_set

CLAIMED = parse_address("203.0.113.66")
CLAIM = {"clusterIP": "10.100.9.9", "externalIPs": ["203.0.113.66"]}
TO_CARTS = allow("carts", app("front-end"), app("carts"), 8081)
TO_CIDR = replace(
    TO_CARTS,
    id=PolicyId("out"),
    provider=CidrEnd((parse_network("203.0.113.0/24"),)),
    protocol=None,
    ports=(),
)


def claiming(
    cluster: ClusterId = CLUSTER,
    *,
    spec: object = CLAIM,
    annotated: object = None,
    status: object = None,
) -> Item:
    """A Service of port 443 in front of carts."""
    meta = {"name": "evil", "uid": "evil", "namespace": NAMESPACE, "labels": annotated}
    port = {"name": "x", "port": 443}
    raw = {"metadata": meta, "spec": {**spec, "ports": [port]}, "status": status or {}}  # type: ignore[dict-item]
    made = service_item(cluster, msgspec.convert(raw, type=schema.Service), [], None)
    assert made.service
    backend = Backend("x", TCP, CARTS.addresses[0], 8081, True, CARTS.key)
    return replace(made, service=replace(made.service, backends=(backend,)))


def admitted(at: Address, port: int, *policies: Policy, beside: Item) -> bool:
    """Whether front-end may dial it."""
    compiled = compile_policies(policy_set(*policies, items=[*ITEMS, beside]), ())
    (policy,) = (one for one in compiled.policies.values() if one.node == "node1")
    (pod,) = (one for one in policy.pods if one.name == "front-end")
    for rule in policy.programs[pod.outbound[0]].rules:
        named = rule.peers is None or any(at in block for block in policy.sets[rule.peers])
        dialled = not rule.ports or any(port in some for some in rule.ports)
        if named and dialled and rule.protocol in (None, TCP):
            return rule.action is Action.ALLOW
    raise AssertionError


@pytest.mark.parametrize(
    ("given", "opens"),
    [
        ({}, True),
        ({"spec": CLAIM | {"clusterIP": "None"}}, False),
        ({"spec": CLAIM | {"clusterIP": "fd00::9"}}, False),
        ({"annotated": {"service.kubernetes.io/service-proxy-name": "mine"}}, False),
        ({"cluster": ClusterId("other")}, False),
        (
            {
                "cluster": ClusterId("other"),
                "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.66"}]}},
            },
            True,
        ),
    ],
)
def test_an_address_is_a_services_where_nodes_are_known_to_translate_it(
    given: dict[str, object], opens: bool
) -> None:
    service = claiming(**given)  # type: ignore[arg-type]
    assert admitted(CLAIMED, 443, TO_CARTS, beside=service) == opens
    assert not admitted(CLAIMED, 444, TO_CARTS, beside=service)


@pytest.mark.parametrize("protocol", [None, TCP])
def test_a_claimed_address_is_spared_at_the_services_own_ports_alone(protocol: int | None) -> None:
    """What is behind them is met after DNAT; at others the address is whoever has it."""
    policy = replace(TO_CIDR, protocol=protocol)
    service = claiming()
    assert not admitted(CLAIMED, 443, policy, beside=service)
    assert admitted(CLAIMED, 9999, policy, beside=service)
    assert service.service
    idle = replace(service, service=replace(service.service, backends=()))
    for harmless in (idle, claiming(ClusterId("other"))):
        assert admitted(CLAIMED, 443, policy, beside=harmless)


def test_an_endpoint_of_another_protocol_serves_no_port() -> None:
    """And so two policies that mean the same of a Service name one set of its addresses."""
    backend = Backend("x", UDP, CARTS.addresses[0], 8081, True, CARTS.key)
    spec = ServiceSpec(ServiceType.CLUSTER_IP, (ServicePort("x", TCP, 80),), (backend,))
    edited = replace(claiming(), addresses=(parse_address("10.100.9.9"),), service=spec)
    of_all = replace(TO_CARTS, id=PolicyId("all"), protocol=None, ports=())
    of_tcp = replace(TO_CARTS, id=PolicyId("tcp"), ports=())
    assert not admitted(edited.addresses[0], 80, of_all, of_tcp, beside=edited)


@pytest.mark.parametrize(("port", "claimed"), [(22, False), (6443, False), (443, True)])
def test_no_service_claims_what_fail_safes_keep_open_at_a_node(port: int, claimed: bool) -> None:
    node = NODE1.addresses[0]
    made = claiming(spec=CLAIM | {"externalIPs": ["172.30.0.11", "203.0.113.66"]})
    assert made.service
    ports = (ServicePort("x", TCP, port), ServicePort("y", TCP, 8443))
    evil = replace(made, service=replace(made.service, ports=ports))
    # The API server is dialled at 443 too, but not at a node's own address.
    spec = ServiceSpec(ServiceType.CLUSTER_IP, (ServicePort("https", TCP, 443),))
    api = replace(
        claiming(), key=ItemKey("api"), namespace="default", name="kubernetes", service=spec
    )
    access = NodeAccess((parse_network("192.0.2.0/24"),))
    compiled = compile_policies(policy_set(TO_CARTS, items=[*ITEMS, api, evil]), (), access)
    for policy in compiled.policies.values():
        exposed = [one for one in policy.binding.exposures if one.local]
        (local,) = (one.local for one in exposed if one.ports == (PortRange(port, port),))
        assert local
        assert any(node in block for block in policy.sets[local]) == claimed
        assert any(CLAIMED in block for block in policy.sets[local])


@pytest.mark.parametrize(
    ("namespace", "consumer", "provider", "opens"),
    [
        (NAMESPACE, app("front-end"), app("carts"), True),
        ("elsewhere", app("front-end"), app("carts"), False),
        ("elsewhere", OwnNodeEnd(), app("carts"), False),
        ("elsewhere", app("front-end"), ServiceEnd("elsewhere", "evil"), True),
        ("elsewhere", CidrEnd((parse_network("192.0.2.0/24"),)), app("carts"), True),
    ],
)
def test_a_service_of_another_namespace_opens_a_pod_to_nodes_where_a_policy_needs_it(
    namespace: str, consumer: End, provider: End, opens: bool
) -> None:
    """Either way it is told: whoever is masqueraded for it is admitted, or is not."""
    evil = claiming(spec=CLAIM)
    assert evil.service
    spec = replace(evil.service, ports=(ServicePort("x", TCP, 443, 31999),))
    evil = replace(evil, service=spec, namespace=namespace)
    policy = Policy(PolicyId("p"), consumer, provider, None, (), Action.ALLOW)
    compiled = compile_policies(policy_set(policy, items=[*ITEMS, evil]), ())
    (node2,) = (one for one in compiled.policies.values() if one.node == "node2")
    (pod,) = (one for one in node2.pods if one.name == "carts")
    rules = node2.programs[pod.inbound[0]].rules
    node1 = NODE1.addresses[0]
    held = [any(node1 in n for n in node2.sets[one.peers]) for one in rules if one.peers]
    assert any(held) == opens
    told = [one.text for one in compiled.widenings if one.workload == CARTS.key]
    word = "admits node addresses" if opens else "does not admit"
    assert any(text.startswith(word) and text.find(f"{namespace}/evil") > 0 for text in told)


def test_no_program_takes_the_name_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "_DIGEST", 0)
    programs = Programs()
    programs.share([Rule("a", Action.DENY, None, (), None)])
    with pytest.raises(InputError, match="two programs"):
        programs.share([Rule("b", Action.ALLOW, None, (), None)])
