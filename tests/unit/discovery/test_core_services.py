"""Core services, where the scope holds who serves them and not all who ask."""

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from bench.discovery.files import write
from bench.discovery.simulate import simulate
from bench.discovery.style import style
from ringfence.cli.recorded import recorded_flows, recorded_inventory
from ringfence.control.comparison import NOTHING
from ringfence.control.discover import Discovery, Wanted, discover, noise
from ringfence.control.discovered import answer, coverage_of
from ringfence.discovery.peers import OwnNode, name_of
from ringfence.discovery.reasons import CORE, Reason
from ringfence.flows.connections import Records
from ringfence.inventory.timeline import Timeline
from ringfence.model.address import host_network, parse_address
from ringfence.model.errors import InputError
from ringfence.model.ids import ScopeName, WorkspaceName
from ringfence.model.keys import parse_filter
from ringfence.model.policy import (
    Action,
    CatchAll,
    CidrEnd,
    FilterEnd,
    FqdnEnd,
    OwnNodeEnd,
    Policy,
    ScopeEnd,
    Workspace,
)
from ringfence.model.protocol import TCP, UDP
from ringfence.model.query import Everything
from ringfence.model.scope import Scope, ScopeTree
from ringfence.policy.document import Documents, format_documents, parse_documents
from tests.unit.discovery.days import DAY, SLOT, Day
from tests.unit.discovery.test_simulation import shop

TOP, PROD, SYS, SHOP, NODES = map(ScopeName, ("top", "prod", "sys", "shop", "nodes"))
TREE = ScopeTree(
    [
        Scope(TOP, None, Everything()),
        Scope(PROD, TOP, parse_filter('kubernetes.namespace in ("kube-system", "web")')),
        Scope(SYS, PROD, parse_filter('kubernetes.namespace = "kube-system"')),
        Scope(SHOP, TOP, parse_filter('kubernetes.namespace = "shop"')),
        Scope(NODES, TOP, parse_filter('kind = "node"')),
    ]
)
CLUSTER = FilterEnd(parse_filter('kubernetes.cluster = "sim"'))
OPEN = CatchAll(Action.ALLOW, Action.ALLOW)
Seen = tuple[Records, Timeline]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    told = simulate(shop(), 3, style("plain"))
    inventory, flows = write(told, tmp_path_factory.mktemp("files"))
    timeline = recorded_inventory(inventory).timeline
    return recorded_flows(flows, timeline), timeline


def found(seen: Seen, scope: ScopeName, *above: ScopeName) -> Discovery:
    held = [Workspace(WorkspaceName(f"the-{one}"), one, True, OPEN, (), ()) for one in above]
    return discover(*seen, TREE, scope, WorkspaceName(scope), Wanted(above=held))


def named(workspace: Workspace) -> dict[str, Policy]:
    return {str(one.id): one for one in workspace.policies}


def test_whoever_holds_the_resolver_lets_all_ask_who_did(seen: Seen) -> None:
    told = named(found(seen, SYS).workspace)
    assert told["dns"].consumer == told["dns-tcp"].consumer == CLUSTER
    assert named(found(seen, SHOP).workspace)["dns"].consumer == ScopeEnd(SHOP)
    assert named(found(seen, TOP).workspace)["dns"].consumer == ScopeEnd(TOP)


def test_so_does_a_scope_above_that_holds_it(seen: Seen) -> None:
    (prod,) = found(seen, SYS, PROD).proposal.ancestors
    assert named(prod)["dns"].consumer == CLUSTER
    (top,) = found(seen, SYS, TOP).proposal.ancestors
    assert named(top)["dns"].consumer == ScopeEnd(TOP)


def test_nodes_let_those_ask_the_api_server_who_did(seen: Seen) -> None:
    told = found(seen, NODES)
    assert {"api-server", "kubelets"} <= set(named(told.workspace))


def test_a_kubelets_probe_of_a_resolver_is_none_of_dns(seen: Seen) -> None:
    records, timeline = seen
    told = found((on_port(records, timeline, 53), timeline), SYS)
    observed, decisions = told.observed, told.decisions
    probes = observed.peers.which(OwnNode)[observed.consumer] & (observed.port == 53)
    assert probes.sum() == 1
    assert decisions.of(Reason.PROBE)[probes].all()
    assert (decisions.of(Reason.DNS) & (observed.port == 53) & ~probes).any()
    (probe,) = (
        one
        for said, one in named(told.workspace).items()
        if said.startswith("probes") and any(53 in port for port in one.ports)
    )
    assert probe.consumer == OwnNodeEnd()
    assert probe.evidence is not None
    assert probe.evidence.conversations >= observed.seen.conversations[probes].sum() > 0


def on_port(records: Records, timeline: Timeline, port: int) -> Records:
    """The same, with the resolver's probes on another port."""
    items = timeline.latest().items
    pods = {one.addresses[0] for one in items if "coredns" in one.name and one.addresses}
    table = records.table
    to_pods = np.array([one in pods for one in table["provider"].to_pylist()])
    probes = to_pods & ~records.translated & (records.column("answered") > 0)
    for name in ("provider_port", "dialled_port"):
        ports = np.where(probes, port, records.column(name)).astype(np.uint16)
        table = table.set_column(table.column_names.index(name), name, pa.array(ports))
    return replace(records, table=table)


def test_evidence_of_dns_is_of_those_whom_it_is_for(seen: Seen) -> None:
    whole, part = (named(found(seen, one).workspace)["dns"].evidence for one in (TOP, SHOP))
    assert whole is not None
    assert part is not None
    assert 0 < part.conversations < whole.conversations


def test_where_core_services_alone_were_seen_something_was(seen: Seen) -> None:
    records, timeline = seen
    asked = records.take(np.flatnonzero(records.column("provider_port") == 53))
    told = found((asked, timeline), SYS)
    covered = coverage_of(told)
    assert (covered["edges"], covered["would_block"]) == (0, None)
    assert covered["core"] == answer(told, (), NOTHING, every_edge=False)["summary"]["edges"] > 0
    assert {reason for reason, _, _ in noise(told)} <= {*CORE}
    nothing = found((records.take(np.zeros(0, dtype=np.int64)), timeline), SYS).coverage
    assert (nothing.seen, nothing.would_block) == (0, None)
    (said,) = nothing.sentences()
    assert said.startswith("nothing was seen")


def test_where_noise_alone_was_seen_nothing_else_was() -> None:
    day = Day()
    day.rows = []
    for number in range(5):
        day.failed(day.of("front", 0), day.of("db", 0), 9000 + number, 30_000 + number)
    covered = day.found().coverage
    assert (covered.seen, covered.noise) == (0, 5)
    (said,) = covered.sentences()
    assert said.startswith("nothing but noise was seen")


def test_clocks_and_resolvers_that_have_names_get_their_policies(seen: Seen) -> None:
    records, timeline = seen
    ports, protocols = records.column("provider_port"), records.column("protocol").copy()
    clocks = np.flatnonzero(ports == 123)
    upstream = np.flatnonzero((ports == 53) & (records.column("provider_revision") == 0))
    protocols[upstream[::2]] = TCP
    names = np.full(len(records), "", dtype=object)
    names[clocks[::2]], names[upstream] = "pool.test", "dns.test"
    hosts = [bytes(one) for one in records.column("provider")]
    for number, at in enumerate(clocks[::2].tolist()):
        hosts[at] = parse_address(f"203.0.113.{number % 20}")
    table = records.table
    for name, values in (
        ("provider", pa.array(hosts, pa.binary(16))),
        ("protocol", pa.array(protocols)),
        ("provider_dns_name", pa.array(names, pa.string())),
    ):
        table = table.set_column(table.column_names.index(name), name, values)
    told = replace(records, table=table)
    policies = {
        said: one
        for said, one in named(found((told, timeline), TOP).workspace).items()
        if said.startswith(("ntp", "dns-upstream"))
    }
    assert set(policies) == {"ntp", "ntp-pool.test", "dns-upstream", "dns-upstream-tcp"}
    assert policies["ntp-pool.test"].provider == FqdnEnd("pool.test")
    assert isinstance(policies["ntp"].provider, CidrEnd)
    assert policies["dns-upstream"].description == "among them dns.test"
    for said, one in policies.items():
        assert one.evidence is not None, said
        assert not one.review, said
        assert one.evidence.conversations > 0, said
    by_protocol = [policies[one].protocol for one in ("dns-upstream", "dns-upstream-tcp")]
    assert by_protocol == [UDP, TCP]


class Asking(Day):
    """With a resolver of three workloads, and whoever else asks for something by name."""

    resolver = "10.1.90.1"

    def __init__(self, *spaces: str) -> None:
        super().__init__(*spaces)
        self.service_ports = [{"name": "dns", "protocol": "UDP", "port": 53}]
        for row in self.rows:
            row["provider_dns_name"] = ""

    def asks(
        self,
        consumer: str,
        provider: str,
        name: str,
        *times: int,
        port: int = 123,
        protocol: str = "UDP",
        **counts: int,
    ) -> None:
        """All day, where no times are told."""
        before = len(self.rows)
        self.saw(consumer, provider, port, *(times or range(0, DAY, SLOT)), **counts)
        for row in self.rows[before:]:
            row |= {"protocol": protocol, "provider_dns_name": name}

    def asks_the_resolver(self, consumer: str) -> None:
        before = len(self.rows)
        self.asks(consumer, self.resolver, "", port=53)
        for row in self.rows[before:]:
            row["dialled_address"] = "10.96.0.10"

    def _items(self) -> Any:
        yield from super()._items()
        pod = {"kind": "pod", "kubernetes_cluster": "lab", "namespace": "kube-system"}
        yield pod | {
            "name": "coredns-1", "node": "node1", "workload_name": "coredns",
            "owner": "Deployment/coredns", "addresses": [self.resolver],
            "labels": {"kubernetes.label.k8s-app": ["kube-dns"]},
        }  # fmt: skip
        backend = {"protocol": "UDP", "address": self.resolver, "port": 53, "serving": True}
        yield pod | {
            "kind": "service", "name": "kube-dns", "addresses": ["10.96.0.10"],
            "service": {"type": "ClusterIP",
                        "ports": self.service_ports,
                        "backends": [backend | {"service_port": "dns"}]},
        }  # fmt: skip


def of_core(day: Day, prefix: str) -> dict[str, Policy]:
    told = named(day.found().workspace)
    return {said: one for said, one in told.items() if said.startswith(prefix)}


def seen_by_name(name: str, *sockets: tuple[str, int]) -> Workspace:
    """What is proposed for two pods that asked six hosts outside by one name."""
    day = Asking()
    for protocol, port in sockets:
        for number in range(6):
            for pod in range(2):
                host = f"203.0.113.{number}"
                day.asks(day.of("front", pod), host, name, port=port, protocol=protocol)
    made = day.found().workspace
    parse_documents(format_documents(Documents(workspaces=(made,))), "made")
    return made


@pytest.mark.parametrize("name", ["*.test", r"x\032y.test", "a\nb.test", "ä.test", "x" * 300])
def test_what_is_no_name_of_a_host_is_told_by_addresses(name: str) -> None:
    made = named(seen_by_name(name, ("UDP", 123), ("TCP", 443)))
    for said in ("ntp", "front-to-203.0.113.0"):
        end = made[said].provider
        assert isinstance(end, CidrEnd)
        assert len(end.networks) == 6


@pytest.mark.parametrize("name", ["time.test", "", "evil..test", "*.evil.test", "x" * 300])
@pytest.mark.parametrize(
    ("asking", "review"),
    [
        ([("front", 0)], True),
        ([("front", 0), ("front", 1)], False),
        ([("front", 0), ("mail", 0)], False),
        ([("front", 0), "192.0.2.1"], False),
        (["192.0.2.1"], False),
    ],
)
def test_a_clock_that_one_pod_alone_asks_awaits_review(
    name: str, asking: list[tuple[str, int] | str], review: bool
) -> None:
    """It may have chosen name and address itself; a node's or another pod's use speaks for them."""
    day = Asking()
    for one in asking:
        day.asks(one if isinstance(one, str) else day.of(*one), "203.0.113.7", name)
    told = of_core(day, "ntp")
    assert told
    assert all(bool(one.review) is review for one in told.values())


def test_whom_nobody_answered_does_not_speak_for_a_clock() -> None:
    day = Asking()
    day.asks(day.of("front", 0), "203.0.113.7", "time.test")
    other, name = day.of("front", 1), "time.test"
    day.asks(other, "203.0.113.7", name, 40_000, answered=0, reverse_packets=0)
    assert of_core(day, "ntp")["ntp-time.test"].review


def test_however_many_names_a_pod_asks_by_one_policy_awaits_review() -> None:
    day = Asking()
    for number in range(30):
        host = f"203.0.113.{number % 10}"
        day.asks(day.of("front", 0), host, f"r{number}.test", 40_000 + number)
    day.asks(day.of("mail", 0), "198.51.100.1", "")
    for pod in range(2):
        day.asks(day.of("carts", pod), "198.51.100.2", "time.test")
    told = of_core(day, "ntp")
    assert {said: bool(one.review) for said, one in told.items()} == {
        "ntp": False, "ntp-from-front": True, "ntp-198.51.100.1": True,
    }  # fmt: skip
    every = told["ntp-from-front"]
    assert isinstance(every.provider, CidrEnd)
    assert len(every.provider.networks) == 10
    assert every.description == (
        "among them r0.test, r1.test, r10.test, r11.test, r12.test and 25 more"
    )


@pytest.mark.parametrize("space", ["app", "shop"])
@pytest.mark.parametrize("asked", [False, True])
def test_whoever_asks_a_resolver_uses_those_that_it_asks(asked: bool, space: str) -> None:
    """By UDP as by TCP, though the clients have UDP alone, before and after it in the inventory."""
    day = Asking(space)
    for name in ("front", "carts", "orders") if asked else ():
        day.asks_the_resolver(day.of(name, 0))
    for protocol in ("UDP", "TCP"):
        day.asks(day.resolver, "203.0.113.53", "dns.test", port=53, protocol=protocol)
    told = of_core(day, "dns-upstream")
    assert {one.protocol for one in told.values()} == {UDP, TCP}
    assert all(bool(one.review) is not asked for one in told.values())


def test_a_name_is_allowed_as_policies_write_it() -> None:
    made = named(seen_by_name("API.test.", ("TCP", 443)))
    assert made["front-to-api.test"].provider == FqdnEnd("api.test")


@pytest.mark.parametrize(("slots", "steady"), [(11, False), (12, True)])
def test_a_name_is_its_address_once_that_was_seen_to_stay(slots: int, steady: bool) -> None:
    day = Asking()
    times = range(0, slots * SLOT, SLOT)
    for pod in range(2):
        day.asks(day.of("front", pod), "203.0.113.1", "api.test", *times, port=443, protocol="TCP")
    provider = named(day.found().workspace)["front-to-api.test"].provider
    assert isinstance(provider, CidrEnd if steady else FqdnEnd)


def test_an_address_dialled_without_a_name_is_the_one_host_that_has_it() -> None:
    day = Asking()
    for name, host in (("api.test", 1), ("", 1), ("a.test", 2), ("b.test", 2), ("", 2)):
        times = range(0, 40 * SLOT, SLOT)
        day.asks(day.of("front", 0), f"203.0.113.{host}", name, *times, port=443, protocol="TCP")
    seen = day.found().observed
    hosts = {name_of(seen.peers[at]) for at in seen.provider.tolist()}
    assert hosts - {"carts", "db", "orders"} == {"api.test", "a.test", "b.test", "203.0.113.2"}


def test_the_nearest_ancestor_gets_a_workspace_for_them_if_asked(seen: Seen) -> None:
    usual = found(seen, SHOP)
    assert (usual.proposal.ancestors, "dns" in named(usual.workspace)) == ((), True)
    said = answer(usual, (), NOTHING, every_edge=False)["summary"]["warnings"]
    assert any("with --begin they stand in one for top" in one for one in said)
    told = discover(*seen, TREE, SHOP, WorkspaceName(SHOP), Wanted(begin=True))
    (top,) = told.proposal.ancestors
    assert (top.scope, top.primary, top.catch_all) == (TOP, True, CatchAll(*[Action.ALLOW] * 2))
    assert named(top)["dns"].consumer == ScopeEnd(TOP)
    assert "dns" not in named(told.workspace)
    made = answer(told, (), NOTHING, every_edge=False)
    assert "kind: Workspace\nmetadata:\n  name: top" in made["documents"]
    assert any("workspace top is new" in one for one in made["summary"]["warnings"])
    assert found(seen, SHOP, PROD).begun == usual.begun, "another scope's is not above"
    assert found(seen, SHOP, SHOP).begun == usual.begun, "and neither is its own"
    assert found(seen, TOP).begun is None, "above it there is nothing"
    assert found(seen, SHOP, TOP).begun is None, "there is one"


@pytest.mark.parametrize(
    ("own", "wanted"),
    [
        pytest.param(TOP, Wanted(), id="by its own"),
        pytest.param(SHOP, Wanted(taken=[WorkspaceName(TOP)]), id="by one that there is"),
        pytest.param(SHOP, Wanted(above=[Workspace(WorkspaceName(TOP), TOP, False, OPEN, (), ())]),
                     id="by one that is not primary"),
    ],
)  # fmt: skip
def test_no_workspace_begins_under_a_name_that_is_taken(
    seen: Seen, own: ScopeName, wanted: Wanted
) -> None:
    assert discover(*seen, TREE, SHOP, WorkspaceName(own), wanted).begun is None
    with pytest.raises(InputError, match="another is called so"):
        discover(*seen, TREE, SHOP, WorkspaceName(own), replace(wanted, begin=True))


def test_who_asks_kubelets_from_outside_is_named(seen: Seen) -> None:
    records, timeline = seen
    outside = parse_address("198.51.100.77")
    nodes = [one for one in timeline.latest().items if one.kind == "node"]
    to_kubelet = records.column("provider_port") == 10250
    assert nodes
    assert to_kubelet.any()
    table = records.table
    for name in ("first_consumer", "last_consumer", "consumer"):
        if name in table.column_names:
            column = table[name].to_pylist()
            moved = [outside if at else one for one, at in zip(column, to_kubelet, strict=True)]
            column = pa.array(moved, table[name].type)
            table = table.set_column(table.column_names.index(name), name, column)
    for name in ("first_consumer_revision",):
        column = np.where(to_kubelet, 0, records.column(name)).astype(np.uint64)
        held = pa.array(column).cast(table[name].type)
        table = table.set_column(table.column_names.index(name), name, held)
    told = found((replace(records, table=table), timeline), NODES)
    (policy,) = (one for said, one in named(told.workspace).items() if said.startswith("kubelets"))
    assert policy.consumer == CidrEnd((host_network(outside),))
    assert policy.review


def test_what_was_seen_for_too_short_is_not_tried_on_the_rest(seen: Seen) -> None:
    records, timeline = seen
    assert found(seen, SHOP).coverage.would_block is not None
    begin = int(records.column("first_ns").min())
    few = records.column("first_ns") < begin + 12 * 60 * 10**9
    told = found((records.take(few), timeline), SHOP).coverage
    assert told.edges
    assert told.would_block is None
    assert "too early to tell" in " ".join(told.sentences())


def test_dns_by_tcp_is_proposed_where_the_resolvers_service_has_it() -> None:
    day = Asking()
    day.asks_the_resolver(day.of("front", 0))
    assert {"dns", "dns-tcp"} & of_core(day, "dns").keys() == {"dns"}
    day.service_ports.append({"name": "dns-tcp", "protocol": "TCP", "port": 53})
    assert {"dns", "dns-tcp"} <= of_core(day, "dns").keys()
