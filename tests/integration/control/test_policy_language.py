"""Policies by name of DNS, log-only ones, and ones that expire, through the real control plane."""

import asyncio
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import dns.message
import dns.rrset
import pytest

from ringfence.agent.resolved import Resolved
from ringfence.agent.session import tell_answers
from ringfence.inventory.resolutions import LINGER_NS
from ringfence.kernel.answers import Answer
from ringfence.link.channel import Link
from ringfence.model.address import Network, parse_address
from ringfence.model.protocol import UDP
from ringfence.model.workload import Item, ItemKind, ServicePort, ServiceSpec, ServiceType
from ringfence.policy.program import decode
from ringfence.wire.generated import agent_pb2 as wire
from ringfence.wire.generated.agent_pb2_grpc import ControlPlaneStub
from tests.integration.control.conftest import Clock, World
from tests.integration.control.test_enforcement import FakeNode, publish, refusal
from tests.integration.control.test_flows_api import POD, report
from tests.integration.world import FRONT as FRONT_IP
from tests.integration.world import ITEMS, OUTSIDE, Agent
from tests.unit.control.shop import DB, FRONT, NODE, item

API = "203.0.113.77"
RESOLVER = "10.96.0.10"
DOCUMENTS = """\
apiVersion: ringfence.io/v1alpha1
kind: Scope
metadata: {name: all}
spec: {query: everything}
---
apiVersion: ringfence.io/v1alpha1
kind: Workspace
metadata: {name: shop}
spec:
  scope: all
  catchAll: {inbound: ALLOW, outbound: DENY}
  policies:
    - id: told
      rank: absolute
      action: LOG
      consumer: {scope: all}
      provider: {host: outside}
      protocol: any
    - id: api
      action: ALLOW
      consumer: {scope: all}
      provider: {fqdn: api.example.org}
      protocol: TCP
      ports: [443]
"""


def resolver() -> Item:
    spec = ServiceSpec(ServiceType.CLUSTER_IP, (ServicePort("dns", UDP, 53),))
    found = item(ItemKind.SERVICE, "kube-dns", RESOLVER)
    return replace(found, namespace="kube-system", service=spec)


async def answer(
    agent: ControlPlaneStub, *addresses: str, at_ns: int, by: str = RESOLVER, ttl: int = 0
) -> None:
    packed = [parse_address(one) for one in addresses]
    told = wire.DnsAnswer(
        name="api.example.org", addresses=packed, ttl_seconds=ttl, at_ns=at_ns,
        resolver=parse_address(by),
    )  # fmt: skip
    await agent.Resolve(wire.DnsAnswers(answers=[told]))


async def apply(world: World, documents: str) -> None:
    files = {"files": [{"name": "shop.yaml", "documents": documents}]}
    await world.ok("POST", "/apply", json=files)


async def enforced(world: World, documents: str) -> FakeNode:
    await publish(await world.enrol("connector", "c"), [NODE, FRONT, DB, resolver()])
    await apply(world, documents)
    await world.ok("POST", "/enforcement", json={"workspaces": [{"name": "shop"}]})
    agent = FakeNode(await world.enrol("agent", "n1"))
    await agent.tell()
    return agent


def allowed_to(directive: wire.Directive) -> set[Network]:
    """The addresses that pods' outbound rules with a port name."""
    policy = decode(directive.node_policy)
    programs = {program for pod in policy.pods for program in pod.outbound}
    rules = [rule for name in programs for rule in policy.programs[name].rules if rule.ports]
    return {network for rule in rules if rule.peers for network in policy.sets[rule.peers]}


async def test_a_name_means_what_dns_answered_for_as_long_as_it_said(
    world: World, clock: Clock
) -> None:
    connector = await world.enrol("connector", "c2")
    node = await enforced(world, DOCUMENTS)
    assert not allowed_to(await node.directive())
    agent = await world.enrol("agent", "n2")
    question = {"source": "shop/front", "destination": API, "port": 443}
    assert not (await world.ok("GET", "/why", params=question))["allowed"]

    now = time.time_ns()
    await answer(agent, "203.0.113.66", at_ns=now, by="203.0.113.53")  # a stranger's
    await answer(agent, "203.0.113.67", at_ns=now, by="10.0.0.2")  # a pod's
    inside = ("10.0.0.2", "169.254.169.254", "127.0.0.1", "fe80::1")
    await answer(agent, API, *inside, at_ns=now, ttl=30)
    assert {str(one) for one in allowed_to(await node.directive())} == {f"{API}/32"}
    told = await world.ok("GET", "/why", params=question)
    end = told["connections"][0]["ends"][0]
    assert told["allowed"]
    assert end["deciding"]["policy"] == "api"
    assert [one["action"] for one in end["matching"]] == ["LOG", "ALLOW", "DENY"]
    code, out, _ = await world.run("why", "shop/front", API, "443")
    assert code == 0
    assert "      told by LOG shop/told@p1 (absolute)\n      then DENY" in out

    clock.ahead_ns += 30 * 10**9 + LINGER_NS
    other = item(ItemKind.POD, "other", "10.0.0.3")
    await publish(connector, [NODE, FRONT, DB, resolver(), other])
    assert not allowed_to(await node.directive())
    assert not (await world.ok("GET", "/why", params=question))["allowed"]


async def test_an_agent_tells_what_it_heard_until_it_is_known(world: World) -> None:
    """As the kernel hands answers to the agent, and from there by its own way."""
    node = await enforced(world, DOCUMENTS)
    await node.directive()
    asked = dns.message.make_query("API.example.org.", "A")
    reply = dns.message.make_response(asked)
    reply.answer.append(dns.rrset.from_text("API.example.org.", 300, "IN", "A", API))
    heard = Answer(
        time.time_ns(), parse_address(RESOLVER), FRONT.addresses[0], 4000, reply.to_wire()
    )
    resolved = Resolved()
    resolved.hear([heard, heard])
    # The first try is refused, and so is told again.
    stubs = [await world.enrol("connector", "c3"), await world.enrol("agent", "n2")]
    link = SimpleNamespace(stub=None)

    async def news() -> list[wire.DnsAnswer]:
        link.stub = stubs.pop(0)
        return resolved.news()

    telling = asyncio.create_task(tell_answers(cast("Link", link), news, 60))
    try:
        told = await node.directive()
    finally:
        telling.cancel()
    assert {str(one) for one in allowed_to(told)} == {f"{API}/32"}
    assert not resolved.news()


async def test_answers_that_nobody_gives_are_refused(world: World) -> None:
    agent = await world.enrol("agent", "n1")
    short = wire.DnsAnswer(name="a", addresses=[b"1"], resolver=parse_address(RESOLVER))
    flood = [wire.DnsAnswer(name="a", resolver=parse_address(RESOLVER))] * 1025
    for answers, said in (([short], "no answer"), (flood, "1025 answers")):
        _, why = await refusal(agent.Resolve(wire.DnsAnswers(answers=answers)))
        assert said in why
    connector = await world.enrol("connector", "c")
    _, why = await refusal(connector.Resolve(wire.DnsAnswers()))
    assert "cannot do this" in why


async def test_a_policy_ends_when_it_expires(world: World) -> None:
    at = time.time() + 9
    written = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))
    lent = DOCUMENTS.replace("{fqdn: api.example.org}", f"{{cidr: {API}}}")
    lent = lent.replace("- id: api", f"- id: api\n      expires: {written}")
    node = await enforced(world, lent)
    assert allowed_to(await node.directive())
    assert not allowed_to(await asyncio.wait_for(node.directive(), 20))
    assert "api@p1: expired" in str(await world.ok("GET", "/enforcement"))


@pytest.mark.parametrize("category", [None, "escaped"])
async def test_analysis_tells_what_is_logged(world: World, category: str | None) -> None:
    await publish(await world.enrol("connector", "c"), ITEMS)
    at: dict[str, Any] = {"first_ns": time.time_ns(), "last_ns": time.time_ns()}
    seen = Agent("node1")
    seen.saw(POD, 7, FRONT_IP, (OUTSIDE, 443), **at)
    seen.saw(POD, 7, FRONT_IP, ("10.1.1.3", 8080), **at)
    await report(await world.enrol("agent", "node1"), seen, "node1")
    await apply(world, DOCUMENTS)
    query = {"workspace": "shop"} | ({"category": category} if category else {})
    answer = await world.ok("GET", "/analysis", params=query)
    assert answer["counts"]["escaped"] == 2, "a log-only policy decides nothing"
    (logged,) = answer["logged"]
    assert (logged["decision"]["policy"], logged["connections"]) == ("told", 1)
    told = {
        one["flow"]["port"]: [by["policy"] for by in one["logged"]] for one in answer["records"]
    }
    assert told == {443: ["told"], 8080: []}
    _, out, said = await world.run("analyze", "shop", "-o", "wide")
    assert "LOG shop/told@p1 (absolute): 1" in said
    assert "LOG shop/told@p1 (absolute)" in out


FILTER = """\
apiVersion: ringfence.io/v1alpha1
kind: Filter
metadata:
  name: databases
spec:
  scope: all
  query: name = "db"
  restricted: true
  public:
    - {protocol: TCP, ports: [3306]}
"""


async def test_policies_name_filters_and_follow_them(world: World) -> None:
    documents = DOCUMENTS.replace("{fqdn: api.example.org}", "{namedFilter: databases}")
    files = {"files": [{"name": "shop.yaml", "documents": documents}]}
    refused = await world.http.post("/api/v1/apply", json=files)
    where = f"shop.yaml:{documents[: documents.index('namedFilter')].count(chr(10)) + 1}"
    assert refused.status_code == 422
    said = refused.json()["detail"]
    assert said.startswith(f"{where}: spec.policies[1].provider.namedFilter: there is no filter")
    assert not (await world.ok("GET", "/scopes"))["items"]

    node = await enforced(world, f"{FILTER}---\n{documents}")
    assert {str(one) for one in allowed_to(await node.directive())} == {"10.0.0.2/32"}
    code, out, _ = await world.run("export", "--kind", "Filter")
    assert (code, out) == (0, FILTER)
    _, out, _ = await world.run("get", "policies", "shop")
    assert "filter databases" in out
    other = {"files": [{"name": "f.yaml", "documents": FILTER.replace('"db"', '"front"')}]}
    (change,) = (await world.ok("POST", "/apply", json=other))["changes"]
    assert change["diff"] == ['~ query: name = "db" → name = "front"']
    assert {str(one) for one in allowed_to(await node.directive())} == {"10.0.0.1/32"}
    lost = {"files": [{"name": "f.yaml", "documents": FILTER.replace("scope: all", "scope: gone")}]}
    refused = await world.http.post("/api/v1/apply", json=lost)
    assert "spec.scope: there is no scope 'gone'" in refused.json()["detail"]

    code, out, _ = await world.run("get", "filters", "-o", "csv")
    assert (code, out.splitlines()[1]) == (0, 'databases,all,"name = ""front""",yes,TCP 3306,1')
    code, _, said = await world.run("delete", "filter", "databases")
    assert (code, said) == (
        1,
        "error: Filter 'databases' is used by policy shop/api, policy shop@p1/api\n",
    )
    unused = documents.replace("{namedFilter: databases}", "{host: outside}")
    await apply(world, unused)
    code, _, said = await world.run("delete", "filter", "databases")
    assert "is used by policy shop@p1/api" in said, "what is enforced is an older version"
    await world.ok("POST", "/enforcement", json={"workspaces": [{"name": "shop"}]})
    assert (await world.run("delete", "filter", "databases"))[0] == 0
    (change,) = (await world.ok("GET", "/changes", params={"limit": 1}))["items"]
    assert (change["what"], change["object"]) == ("deleted Filter databases", "filter/databases")
    assert (await world.run("delete", "filter", "databases"))[0] == 1
