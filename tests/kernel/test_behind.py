"""Services of which not all backends may be reached: a node rejects what is sent on to those.

The backends of a Service stand on two nodes, and answer even source ports and odd ones.
"""

import contextlib
import errno
import itertools
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from ringfence.agent.enforce import Enforcer
from ringfence.agent.mechanisms import MECHANISMS, Kind, enforcer
from ringfence.agent.plan import Order
from ringfence.agent.pods import Pod as Seen
from ringfence.inventory.snapshot import Snapshot
from ringfence.kernel import conntrack, nft
from ringfence.kernel.drops import DROP_DTYPE
from ringfence.model.address import parse_address, parse_network
from ringfence.model.ids import NodeName, PolicyId, RevisionId, ScopeName, Version, WorkspaceName
from ringfence.model.policy import Action, CatchAll, CidrEnd, Policy, Rank, ScopeEnd, Workspace
from ringfence.model.protocol import TCP, UDP, PortRange
from ringfence.model.query import parse
from ringfence.model.scope import Scope, ScopeTree
from ringfence.policy import program
from ringfence.policy.compile import compile_policies
from ringfence.policy.errors import UnprovableError
from ringfence.policy.order import PolicySet
from ringfence.policy.program import NodePolicy
from ringfence.policy.proof.prove import prove
from ringfence.wire import batch
from tests.kernel.cluster import CLUSTER, NODES, SERVICES, Cluster, address, cluster, home
from tests.kernel.gating import Sink, place, seen
from tests.kernel.netns import Namespace, Pod
from tests.kernel.traffic import family, open_socket, tcp_echo

WEB, DNS = (next(one for one in SERVICES if one.name == name) for name in ("web", "dns"))
PODS = ScopeName("pods")
MACHINES = ScopeName("nodes")
ALL = ScopeName("all")
TREE = ScopeTree(
    [
        Scope(ALL, None, parse('kubernetes.cluster = "test"')),
        Scope(PODS, ALL, parse('kind = "pod"')),
        Scope(MACHINES, ALL, parse('kind = "node"')),
    ]
)
SILENT = "nothing came"
FORGED = "192.0.2.7"
PORTS = itertools.count(10000)
PROHIBITED = {4: errno.EHOSTUNREACH, 6: errno.EACCES}
"""What Linux makes of the code of either ICMP."""
AGENTS = next(one for one in SERVICES if one.name == "agents")
NEAR, FAR = 2, 5
"""A pod beside the Service's first backend, and one beside its second."""


@dataclass
class World:
    """A cluster whose nodes are programmed as agents do it."""

    cluster: Cluster
    enforcers: list[Enforcer]
    known: bool = False
    """Whether agents are told which interfaces lead to the pods."""
    policies: list[NodePolicy] = field(default_factory=list)
    revisions: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def enforce(
        self, *policies: Policy, catch_all: Action = Action.DENY, scope: ScopeName = PODS
    ) -> None:
        snapshot = Snapshot((RevisionId(at), one) for at, one in enumerate(self.cluster.items, 1))
        said = CatchAll(inbound=Action.ALLOW, outbound=catch_all)
        workspace = Workspace(WorkspaceName("w"), scope, True, said, (), policies)
        compiled = compile_policies(PolicySet(snapshot, TREE, [(workspace, Version(1))]), ())
        revision, self.policies = next(self.revisions), []
        for at, one in enumerate(self.enforcers):
            policy = compiled.policies[CLUSTER, NodeName(f"n{at + 1}")]
            mine = [(n, pod) for n, pod in enumerate(self.cluster.pods, 1) if home(n) == at]
            places = [place(self.cluster.nodes[at]), *(place(pod, f"pod{n}") for n, pod in mine)]
            decoded = program.decode(program.encode(policy))
            here = [alone(pod, f"pod{n}") for n, pod in mine] if self.known else None
            assert not one.apply(Order(revision, decoded), places, here).problem
            self.policies.append(decoded)

    def pod(self, number: int) -> Namespace:
        return self.cluster.pods[number - 1]

    def end(self, number: int) -> tuple[Namespace, tuple[str, str]]:
        """A pod by its number, or a node by that of its place, from -1 down, and its addresses."""
        if number < 0:
            return self.cluster.nodes[-1 - number], NODES[-1 - number]
        return self.pod(number), address(number)

    def dialled(
        self, number: int, front: tuple[str, int], *, second: bool, kind: int = socket.SOCK_STREAM
    ) -> object:
        """What a pod or node meets: who answers, an error's number, or nothing."""
        with self.opened(number, front, second=second, kind=kind) as client:
            try:
                client.connect(front)
                client.send(b"x")
                client.recv(1)
            except TimeoutError:
                return SILENT
            except OSError as error:
                return error.errno
        return None

    def opened(
        self, number: int, front: tuple[str, int], *, second: bool, kind: int = socket.SOCK_STREAM
    ) -> socket.socket:
        where, held = self.end(number)
        client = open_socket(where, front[0], socket.SocketKind(kind))
        client.settimeout(0.7)
        client.bind((held[family(front[0]) == socket.AF_INET6], 2 * next(PORTS) + second))
        return client

    def drops(self, node: int) -> list[dict[str, object]]:
        one = self.enforcers[node]
        one.read_drops(np.zeros(0, DROP_DTYPE), {})
        return [
            row
            for drops, _ in one.ledger.take()
            for row in batch.decode(batch.DROPS, drops).to_pylist()
        ]


def alone(pod: Pod, uid: str) -> Seen:
    """A pod as its agent sees it, behind an interface of its own."""
    return replace(seen(pod, uid), alone=frozenset({pod.host_device}))


@pytest.fixture(scope="module")
def made() -> Iterator[Cluster]:
    with cluster() as it:
        yield it


@pytest.fixture(params=[False, True], ids=["by-address", "by-interface"])
def world(made: Cluster, request: pytest.FixtureRequest) -> Iterator[World]:
    it = World(made, [enforcer(Kind.NFTABLES), enforcer(Kind.NFTABLES)], request.param)
    yield it
    for one in it.enforcers:
        one.close()
    for where in (*made.nodes, *made.pods):
        for kind in (Kind.NFTABLES, Kind.IPTABLES_NFT):
            MECHANISMS[kind].door.remove(where.path)


def allow(
    number: int,
    port: int = WEB.target,
    action: Action = Action.ALLOW,
    scope: ScopeName = PODS,
) -> Policy:
    """One that means a single pod, by its addresses."""
    protocol, ports = UDP if port == DNS.target else TCP, (PortRange(port, port),)
    ends = CidrEnd(tuple(map(parse_network, address(number))))
    name, rank = PolicyId(f"{action.value.lower()}-{number}"), Rank.ABSOLUTE
    return Policy(name, ScopeEnd(scope), ends, protocol, ports, action, rank, 1)


@pytest.fixture
def web(made: Cluster) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for number in WEB.backends:
            for held in address(number):
                stack.enter_context(tcp_echo(made.pods[number - 1], held, WEB.target))
        yield


@pytest.mark.usefixtures("web")
@pytest.mark.parametrize("number", [NEAR, FAR])
@pytest.mark.parametrize("of", [0, 1])
def test_a_backend_that_no_allow_means_is_refused(world: World, number: int, of: int) -> None:
    world.enforce(allow(1))
    front = WEB.address[of], WEB.port
    began = time.monotonic()
    for _ in range(2):
        assert world.dialled(number, front, second=False) is None
        assert world.dialled(number, front, second=True) == errno.ECONNREFUSED
    assert time.monotonic() - began < 5  # a reset was heard: nobody waited
    assert world.dialled(number, (address(4)[of], 8080), second=False) == SILENT
    node = home(number)
    told = {
        (row["rule"], row["direction"], row["provider"], row["provider_port"])
        for row in world.drops(node)
        if row["pod"] == ""
    }
    assert told == {("catch-all/w/p1", "outbound", parse_address(address(4)[of]), 8080)}
    own = NODES[node][of], WEB.node_port
    assert world.dialled(number, own, second=True) == errno.ECONNREFUSED
    assert world.dialled(number, own, second=False) is None
    # Another node translates: what is reported as wider there, passes.
    other = NODES[1 - node][of], WEB.node_port
    assert world.dialled(number, other, second=True) is None


@pytest.mark.usefixtures("web")
@pytest.mark.parametrize("number", [NEAR, FAR])
@pytest.mark.parametrize("of", [0, 1])
def test_a_backend_that_a_deny_means_is_refused(world: World, number: int, of: int) -> None:
    world.enforce(allow(1, action=Action.DENY), catch_all=Action.ALLOW)
    front = WEB.address[of], WEB.port
    assert world.dialled(number, front, second=True) is None
    assert world.dialled(number, front, second=False) == errno.ECONNREFUSED
    rules = {row["rule"] for row in world.drops(home(number)) if row["pod"] == ""}
    assert rules == {"absolute/w/p1/deny-1"}


@pytest.mark.parametrize("number", [NEAR, FAR])
@pytest.mark.parametrize("of", [0, 1])
def test_a_backend_in_the_network_of_a_node_is_refused(world: World, number: int, of: int) -> None:
    """Of the pod's own node too, which then receives what it has translated."""
    world.enforce(allow(3, AGENTS.target))
    held = NODES[1][of], AGENTS.target
    with (
        tcp_echo(world.cluster.nodes[1], *held),
        tcp_echo(world.pod(3), address(3)[of], AGENTS.target),
    ):
        for front in (
            (AGENTS.address[of], AGENTS.port),
            (NODES[home(number)][of], AGENTS.node_port),
        ):
            assert world.dialled(number, front, second=True) is None
            assert world.dialled(number, front, second=False) == errno.ECONNREFUSED


@pytest.mark.parametrize("number", [1, 4])
@pytest.mark.parametrize("of", [0, 1])
def test_datagrams_to_a_denied_backend_are_answered(world: World, number: int, of: int) -> None:
    world.enforce(allow(2, DNS.target))
    front = DNS.address[of], DNS.port
    servers = []
    for backend in DNS.backends:
        server = open_socket(world.pod(backend), address(backend)[of], socket.SOCK_DGRAM)
        server.bind((address(backend)[of], DNS.target))
        servers.append(server)
    try:
        for second, meets in ((False, SILENT), (True, PROHIBITED[6 if of else 4])):
            told = world.dialled(number, front, second=second, kind=socket.SOCK_DGRAM)
            assert told == meets
        assert servers[0].recv(10) == b"x"
        servers[1].settimeout(0.2)
        with pytest.raises(TimeoutError):
            servers[1].recv(10)
    finally:
        for server in servers:
            server.close()


@pytest.mark.parametrize("source", [FORGED, address(6)[0]], ids=["nobody's", "the-backend's"])
def test_a_forged_source_gets_no_further(world: World, source: str) -> None:
    """Where the node knows which interface leads to the pod; one way is all there is."""
    world.enforce(allow(2, DNS.target))
    pod = world.pod(NEAR)
    with Sink(world.pod(6), DNS.target) as sink:
        pod.run("ip", "addr", "add", f"{source}/32", "dev", "lo")
        try:
            with open_socket(pod, source, socket.SOCK_DGRAM) as forged:
                forged.bind((source, 2 * next(PORTS) + 1))
                forged.sendto(b"x", (DNS.address[0], DNS.port))
            time.sleep(0.2)
        finally:
            pod.run("ip", "addr", "del", f"{source}/32", "dev", "lo")
        assert sink.count() == (0 if world.known else 1)


@pytest.mark.usefixtures("web")
def test_a_pod_may_come_back_to_itself(world: World) -> None:
    world.enforce(allow(4))
    assert world.dialled(1, (WEB.address[0], WEB.port), second=False) is None
    assert world.dialled(NEAR, (WEB.address[0], WEB.port), second=False) == errno.ECONNREFUSED


@pytest.mark.usefixtures("web")
@pytest.mark.parametrize("of", [0, 1])
def test_an_open_connection_to_a_backend_that_is_denied_now_is_cut(world: World, of: int) -> None:
    world.enforce(allow(1), replace(allow(4), id=PolicyId("both")))
    front = WEB.address[of], WEB.port
    clients = [world.opened(NEAR, front, second=second) for second in (False, True)]
    for client in clients:
        client.connect(front)
        client.sendall(b"x")
        assert client.recv(1) == b"x"
    kept, cut = clients
    world.enforce(allow(1))
    tracked = {one.source_port for one in conntrack.entries(world.cluster.nodes[0].path)}
    assert kept.getsockname()[1] in tracked
    assert cut.getsockname()[1] not in tracked
    kept.sendall(b"x")
    assert kept.recv(1) == b"x"
    cut.sendall(b"x")
    with pytest.raises(ConnectionResetError):
        cut.recv(1)
    for client in clients:
        client.close()


@pytest.mark.usefixtures("web")
@pytest.mark.parametrize("number", [-1, -2])
@pytest.mark.parametrize("of", [0, 1])
def test_a_node_itself_is_refused_too(world: World, number: int, of: int) -> None:
    front = WEB.address[of], WEB.port
    world.enforce(allow(1, scope=MACHINES), scope=MACHINES)
    began = time.monotonic()
    assert world.dialled(number, front, second=False) is None
    assert world.dialled(number, front, second=True) == errno.ECONNREFUSED
    assert world.dialled(NEAR, front, second=True) is None  # a pod that nothing governs
    assert time.monotonic() - began < 3  # a reset was heard: nobody waited
    told = {
        (row["rule"], row["direction"], row["provider"], row["provider_port"])
        for row in world.drops(-1 - number)
    }
    assert told == {("catch-all/w/p1", "outbound", parse_address(address(4)[of]), 8080)}
    world.enforce(
        allow(1, action=Action.DENY, scope=MACHINES), catch_all=Action.ALLOW, scope=MACHINES
    )
    assert world.dialled(number, front, second=True) is None
    assert world.dialled(number, front, second=False) == errno.ECONNREFUSED


@pytest.mark.usefixtures("web")
@pytest.mark.parametrize("of", [0, 1])
def test_what_a_node_has_open_to_a_backend_that_is_denied_now_is_cut(world: World, of: int) -> None:
    both = allow(1, scope=MACHINES), replace(allow(4, scope=MACHINES), id=PolicyId("both"))
    world.enforce(*both, scope=MACHINES)
    clients = [
        world.opened(-1, (WEB.address[of], WEB.port), second=second) for second in (False, True)
    ]
    for client in clients:
        client.connect((WEB.address[of], WEB.port))
        client.sendall(b"x")
        assert client.recv(1) == b"x"
    kept, cut = clients
    world.enforce(*both[:1], scope=MACHINES)
    kept.sendall(b"x")
    assert kept.recv(1) == b"x"
    with pytest.raises(ConnectionError):
        cut.sendall(b"x")
    for client in clients:
        client.close()


def test_a_node_comes_to_itself_and_to_what_keeps_it_a_node() -> None:
    """Though its policy means neither: the first backend is a node's kubelet."""
    kubelet = replace(AGENTS, name="kubelets", address=("10.96.0.8", "fd00:96::8"), target=10250)
    with cluster((kubelet,)) as made:
        enforcers = [enforcer(Kind.NFTABLES), enforcer(Kind.NFTABLES)]
        world = World(made, enforcers)
        with tcp_echo(made.nodes[1], NODES[1][0], kubelet.target):
            world.enforce(allow(3, kubelet.target, scope=MACHINES), scope=MACHINES)
            front = kubelet.address[0], kubelet.port
            policy = world.policies[0]
            assert policy.parting(), "judged once more"
            for number in (-1, -2):
                assert world.dialled(number, front, second=False) is None
        for one in enforcers:
            one.close()


@pytest.mark.usefixtures("web")
def test_with_iptables_the_service_stays_admitted_whole(world: World) -> None:
    world.enforcers = [enforcer(Kind.IPTABLES_NFT), enforcer(Kind.IPTABLES_NFT)]
    world.enforce(allow(1))
    front = WEB.address[0], WEB.port
    assert world.dialled(NEAR, front, second=True) is None
    assert world.dialled(NEAR, (address(4)[0], 8080), second=False) == SILENT


@pytest.mark.parametrize(
    "script",
    [
        "insert rule inet ringfence rf_behind_forward accept",
        "insert rule inet ringfence rf_behind_0 meta l4proto tcp ct original proto-dst 80 return",
        "insert rule inet ringfence rf_behind_0_0_4 ip daddr 10.99.4.2 return",
        "insert rule inet ringfence rf_behind_0_0_4 ct original ip daddr != 10.96.0.9 return",
        "insert rule inet ringfence rf_behind_input accept",
        "insert rule inet ringfence rf_behind_0 ct status snat return",
        "flush chain inet ringfence rf_behind_0_0_6",
        "delete element inet ringfence {pods}",
        "add element inet ringfence {itself}",
    ],
)
def test_what_the_node_judges_is_proved(world: World, script: str) -> None:
    world.enforce(allow(1))
    by = f'"{world.cluster.pods[NEAR - 1].host_device}"'
    pods, itself = (
        (f"rf_pods0 {{ {by} }}", f"rf_itself_by_4 {{ {by} . 10.99.2.2 . 10.99.4.2 }}")
        if world.known
        else ("rf_pods0_4 { 10.99.2.2 }", "rf_itself_4 { 10.99.2.2 . 10.99.4.2 }")
    )
    script = script.format(pods=pods, itself=itself)
    node, policy = world.cluster.nodes[0], world.policies[0]
    mine = {f"pod{n}": frozenset({pod.host_device}) for n, pod in enumerate(world.cluster.pods, 1)}
    guarded = mine if world.known else {}
    assert not str(prove(policy, policy.binding, nft.list_table(node.path) or [], guarded=guarded))
    node.nft(script)
    try:
        listed = nft.list_table(node.path) or []
        told = str(prove(policy, policy.binding, listed, guarded=guarded))
    except UnprovableError as error:
        told = str(error)
    assert told


@pytest.mark.parametrize(
    "script",
    [
        "insert rule inet ringfence rf_behind_output accept",
        "insert rule inet ringfence rf_behind_0_0_4 ip daddr 10.99.4.2 return",
        "flush chain inet ringfence rf_behind_0",
        "table inet ringfence { chain more { type filter hook output priority -99; drop; }; }",
    ],
)
def test_what_the_node_judges_of_its_own_is_proved(world: World, script: str) -> None:
    world.enforce(allow(1, scope=MACHINES), scope=MACHINES)
    node, policy = world.cluster.nodes[0], world.policies[0]
    assert not str(prove(policy, policy.binding, nft.list_table(node.path) or []))
    node.nft(script)
    assert str(prove(policy, policy.binding, nft.list_table(node.path) or []))
