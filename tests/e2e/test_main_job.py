"""The main job: from a packet in a pod to an enforced policy, and back to none.

The tests tell one story in their order: each starts from where the one before left the cluster.
"""

import json
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ringfence.lab.config import LabConfig
from ringfence.lab.shop.manifests import calls
from ringfence.lab.shop.program import SCAN_TIMEOUT
from tests.e2e.cluster import Lab, ringfence, run, until

CONFIG = LabConfig()
EXTERNAL = str(CONFIG.external.address)
NODES = {spec.name: str(spec.address) for spec in CONFIG.node_specs}
FLOW_SECONDS = 60  # two report intervals and some
STEADY_SECONDS = int(os.environ.get("RINGFENCE_STEADY_SECONDS", "10"))
"""For how long the shop must serve under enforcement."""
pytestmark = pytest.mark.timeout(400)


@dataclass(frozen=True)
class Unenforced:
    """What enforcement must leave as it is, and what it must change."""

    rulesets: dict[str, list[str]]
    examples: list[dict[str, Any]]


@pytest.fixture(scope="module")
def unenforced(installed: Lab) -> Unenforced:
    """How it is when first asked for: once policies are proposed, and before enforcement."""
    return Unenforced({name: ruleset(installed, name) for name in NODES}, dial_examples())


@pytest.fixture(scope="module")
def enforced(unenforced: Unenforced) -> float:
    """The policies are in force; since when, in epoch seconds."""
    ringfence("enforce", "sock-shop", "nodes", "--yes")
    return time.time()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("policies")


def answer(*argv: str) -> Any:
    return json.loads(ringfence(*argv, "-o", "json"))


def dial_examples() -> list[dict[str, Any]]:
    """Ends with 2, or with 0 where the shop's policies are enforced."""
    rows: list[dict[str, Any]] = json.loads(run("lab", "examples", "-o", "json").stdout)
    return rows


def pod(lab: Lab, name: str) -> dict[str, Any]:
    found: dict[str, Any] = lab.get("pod", "-n", "sock-shop", "-l", f"name={name}")["items"][0]
    return found


def address(lab: Lab, name: str) -> str:
    return str(pod(lab, name)["status"]["podIP"])


def ruleset(lab: Lab, node: str) -> list[str]:
    """A node's rules without ours and without counters, in an order kube-proxy cannot change.

    Both as nft and as iptables tell them: nft hides the matches of iptables' extensions.
    """
    kept, ours = [], False
    for line in lab.on(node, "nft", "--stateless", "list", "ruleset").splitlines():
        ours = ours or line.startswith("table inet ringfence")
        if line.strip() and not ours:
            kept.append(line)
        ours = ours and line != "}"
    saved = lab.on(node, "sh", "-c", "iptables-save; ip6tables-save").splitlines()
    kept += [re.sub(r"\[\d+:\d+\]", "", line) for line in saved if not line.startswith("#")]
    return sorted(kept)


def dial(lab: Lab, source: str, host: str, port: int) -> str:
    """What comes of a TCP connection: `open`, or an error such as `timed out`, as for a drop.

    `source` is a Deployment of the shop or a machine of the lab.
    """
    code = (
        "import socket,sys\n"
        f"try: socket.create_connection(({host!r}, {port}), 2).close(); print('open')\n"
        "except OSError as error: print(error)"
    )
    if source in NODES or source == "external":
        return lab.on(source, "python3", "-c", code).strip()
    return lab.in_pod(source, code).strip()


def flows(filter_: str, since: str = "3m") -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = answer("flows", "list", "--since", since, "--filter", filter_)
    return items


def hops(flow: dict[str, Any]) -> list[tuple[str, str, int]]:
    """(consumer, provider, port) of a flow and of its related records."""
    return [
        (hop["consumer"]["address"], hop["provider"]["address"], hop["port"])
        for hop in [flow, *flow["related"]]
    ]


def test_agents_are_confined_and_connected(installed: Lab) -> None:
    agents = answer("agents")
    assert {agent["name"] for agent in agents} == set(NODES)
    assert all(agent["connected"] for agent in agents)
    daemon = installed.get("daemonset", "-n", "ringfence", "agent")
    context = daemon["spec"]["template"]["spec"]["containers"][0]["securityContext"]
    assert not context.get("privileged")
    assert context["capabilities"]["drop"] == ["ALL"]


def test_every_packet_at_the_nodes_veths_is_accounted_for(installed: Lab) -> None:
    """While the shop is busy, when packets pass during each reading."""

    def audits() -> list[dict[str, Any]]:
        return [agent["audit"] for agent in answer("agents")]

    until("audits are told", lambda: all(audit["judged"] for audit in audits()), FLOW_SECONDS)
    for audit in audits():
        assert (audit["unaccounted"], audit["overcounted"]) == (0, 0), audit


def test_a_label_change_is_visible_at_once(installed: Lab) -> None:
    """How soon is measured by `bench/inventory_latency.py`."""
    name = pod(installed, "shipping")["metadata"]["name"]
    installed.kubectl("label", "pod", "-n", "sock-shop", name, "shift=night")
    query = 'kubernetes.label.shift = "night"'
    until("the label is there", lambda: bool(answer("inventory", "--filter", query)), 10)
    assert [item["name"] for item in answer("inventory", "--filter", query)] == [name]
    installed.kubectl("label", "pod", "-n", "sock-shop", name, "shift-")
    until("the label is gone", lambda: not answer("inventory", "--filter", query), 10)


def test_pod_to_pod_is_one_record(installed: Lab) -> None:
    payment, user_db = (address(installed, name) for name in ("payment", "user-db"))
    query = f'consumer.address = "{payment}" and provider.address = "{user_db}"'
    until("payment's calls are seen", lambda: bool(flows(query)), FLOW_SECONDS)
    (flow,) = [flow for flow in flows(query) if flow["port"] == 27017]
    assert hops(flow) == [(payment, user_db, 27017)]
    assert flow["method"] == "syn"
    assert flow["opened"] == flow["answered"] > 0
    assert {"SYN", "ACK"} <= set(flow["forward"]["flags"])
    assert flow["forward"]["packets"] > 0 < flow["reverse"]["bytes"]


def test_pod_to_service_is_two_related_records(installed: Lab) -> None:
    front_end, carts = (address(installed, name) for name in ("front-end", "carts"))
    query = f'consumer.address = "{front_end}" and provider.address = "10.100.135.136"'
    until("calls of carts are seen", lambda: bool(flows(query)), FLOW_SECONDS)
    (flow,) = flows(query)
    assert set(hops(flow)) == {(front_end, "10.100.135.136", 80), (front_end, carts, 80)}
    assert flow["consumer"]["namespace"] == "sock-shop"
    assert flow["service"]["name"] == "carts"


def test_external_to_node_port_is_related_to_the_pods_record(installed: Lab) -> None:
    front_end = pod(installed, "front-end")
    home, inside = front_end["spec"]["nodeName"], front_end["status"]["podIP"]
    query = f'consumer.address = "{EXTERNAL}" and port = 31095'
    until("customers are seen", lambda: len(flows(query)) >= len(NODES), FLOW_SECONDS)
    found = flows(query)
    assert len(found) == len(NODES), found
    for flow in found:
        first, *rest = hops(flow)
        assert first[0] == EXTERNAL
        assert first[2] == 31095
        assert {(hop[1], hop[2]) for hop in rest} == {(inside, 8079)}, (home, flow)


def test_pod_to_external_is_related_to_the_nodes_record(installed: Lab) -> None:
    front_end = pod(installed, "front-end")
    node, inside = NODES[front_end["spec"]["nodeName"]], front_end["status"]["podIP"]
    query = f'consumer.address = "{inside}" and provider.address = "{EXTERNAL}" and port = 666'
    until("calls of the outside are seen", lambda: bool(flows(query)), FLOW_SECONDS)
    (flow,) = flows(query)
    assert set(hops(flow)) == {(inside, EXTERNAL, 666), (node, EXTERNAL, 666)}


def test_no_ephemeral_port_is_taken_for_a_service(installed: Lab) -> None:
    known = {53, 80, 666, 3306, 5672, 6379, 8079, 27017}
    seen = flows('consumer.kubernetes.namespace = "sock-shop"')
    assert not [flow for flow in seen if flow["port"] not in known]


def test_discovery_proposes_what_the_shop_needs(installed: Lab, folder: Path) -> None:
    scopes = ringfence(
        *("scopes", "design", "split", "--kubernetes-cluster", "lab", "--namespace", "sock-shop")
    )
    (folder / "scopes.yaml").write_text(scopes)
    ringfence("apply", "-f", str(folder / "scopes.yaml"))

    def workspace(name: str) -> str:
        return ringfence("discover", name, "--since", "10m")

    needed = calls(CONFIG.external.address)
    until("each of the shop's calls is reported", lambda: needed <= {*proposed()}, FLOW_SECONDS)
    for name in ("sock-shop", "nodes"):
        (folder / f"{name}.yaml").write_text(workspace(name))
    assert run("diff", "-f", str(folder)).returncode == 2
    ringfence("apply", "-f", str(folder))
    ringfence("diff", "-f", str(folder))  # no difference is left
    allowed = proposed()
    assert {*allowed} == needed | {("outside", "front-end")}
    policies = answer("get", "policies", "sock-shop")
    assert all(row["action"] == "ALLOW" for row in policies)
    core = {row["id"] for row in policies} - {*allowed.values()}
    assert {"dns", "dns-tcp"} <= core
    assert all(policy.startswith("probes") for policy in core - {"dns", "dns-tcp"})


def proposed() -> dict[tuple[str, str], str]:
    """For each consumer and provider that discovery would let the shop have, the policy."""
    found = answer("discover", "sock-shop", "--since", "10m")["proposals"]
    return {
        (one["consumer"], one["provider"]): one["policy"]
        for one in found
        if one["outcome"] == "ALLOW" and one["policy"]
    }


def test_analysis_tells_the_intruder_from_the_shop(installed: Lab) -> None:
    ringfence("lab", "intruder", "start")

    def escaped() -> list[dict[str, Any]]:
        found = answer("analyze", "sock-shop", "--since", "2m", "--category", "escaped")
        records: list[dict[str, Any]] = found["records"]
        return records

    def reached_user_db() -> bool:
        return any(
            (record["flow"]["consumer"]["name"], record["flow"]["port"]) == ("intruder", 27017)
            for record in escaped()
        )

    until("the intruder is seen to escape", reached_user_db, FLOW_SECONDS)
    others = [r["flow"] for r in escaped() if r["flow"]["consumer"]["name"] != "intruder"]
    assert not others
    counts = answer("analyze", "sock-shop", "--since", "2m")["counts"]
    assert counts["permitted"] > 20
    assert counts["rejected"] == counts["misdropped"] == 0
    assert not ringfence("lab", "exec", "node1", "--", "nft", "list", "tables").count("ringfence")


def test_a_dry_run_enforces_nothing(installed: Lab, unenforced: Unenforced) -> None:
    assert all(unenforced.rulesets.values())
    assert "sock-shop" in ringfence("enforce", "sock-shop", "nodes", "--dry-run")
    assert not [n for n in NODES if "ringfence" in installed.on(n, "nft", "list", "tables")]


def test_enforcement_comes_into_force(enforced: float) -> None:
    assert not [agent for agent in answer("agents") if agent["stale_reason"]]


@pytest.mark.timeout(STEADY_SECONDS + 300)
def test_the_shop_serves_every_page_as_before(installed: Lab) -> None:
    before = installed.status()["load"]["targets"]
    time.sleep(STEADY_SECONDS)
    after = installed.status()["load"]["targets"]
    for target, counted in before.items():
        grown = {key: after[target][key] - counted[key] for key in counted}
        assert grown["answered"] > 10, grown
        assert grown["failed"] == 0


def test_connections_that_were_open_live_on(installed: Lab, enforced: float) -> None:
    for name in ("front-end", "queue-master"):

        def of_kind(event: str, workload: str = name) -> list[float]:
            events = installed.events(f"deploy/{workload}")
            return [each["time"] for each in events if each["event"] == event]

        until(f"{name}'s connection was used", lambda: max(of_kind("kept"), default=0) > enforced)
        assert not of_kind("lost")


def test_example_policies_and_their_neighbours(unenforced: Unenforced) -> None:
    outcomes = dial_examples()
    assert len(outcomes) == len(unenforced.examples) > 15
    assert not [row for row in unenforced.examples if row["result"] == "timed out"]
    for row in outcomes:
        assert row["result"] == ("open" if row["allowed"] else "timed out"), row


def test_the_intruder_is_rejected_and_reported(installed: Lab, enforced: float) -> None:
    def rejected() -> bool:
        found = answer("analyze", "sock-shop", "--since", "1m", "--category", "rejected")
        return any(r["flow"]["consumer"]["name"] == "intruder" for r in found["records"])

    until("the drop reports arrive", rejected, FLOW_SECONDS)
    denied = answer("flows", "denied", "--since", "2m")
    assert {"intruder"} <= {row["consumer"]["name"] for row in denied}
    begun_since = enforced + SCAN_TIMEOUT  # what is logged before may have begun earlier

    def results() -> set[str]:
        return {
            event["result"]
            for event in installed.events("pod/intruder")
            if event["event"] == "call" and event["time"] > begun_since
        }

    until("the intruder has called since", lambda: bool(results()))
    assert results() == {"timeout"}


def test_why_names_the_policy_at_both_ends(installed: Lab) -> None:
    allowed = answer("why", "sock-shop/front-end", "sock-shop/carts", "80")
    ends = {end["role"]: end for end in allowed["connections"][0]["ends"]}
    # Not as discovery would have it now: the examples were dialled since.
    (policy,) = {end["deciding"]["policy"] for end in ends.values()}
    assert policy == "front-end-and-orders-to-carts"
    done = run("why", "sock-shop/intruder", "sock-shop/user-db", "27017")
    assert done.returncode == 2
    assert "catch-all" in done.stdout


def test_neighbours_rules_are_untouched(installed: Lab, unenforced: Unenforced) -> None:
    for node, before in unenforced.rulesets.items():
        assert "table inet ringfence" in installed.on(node, "nft", "list", "tables")
        assert ruleset(installed, node) == before


def test_off_restores_every_namespace(installed: Lab, unenforced: Unenforced) -> None:
    ringfence("enforce", "--off", "--yes")
    for node, before in unenforced.rulesets.items():
        assert "ringfence" not in installed.on(node, "nft", "list", "tables")
        assert ruleset(installed, node) == before
        namespaces = installed.on(node, "ls", "/run/netns").split()
        assert namespaces
        for namespace in namespaces:
            inside = ["nsenter", f"--net=/run/netns/{namespace}", "nft", "list", "ruleset"]
            assert installed.on(node, *inside).strip() == ""
    assert dial(installed, "catalogue", "user-db-direct", 27017) == "open"
