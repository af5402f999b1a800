"""Others who write rules too: what they drop is dropped, and nobody touches the other's rules."""

import itertools
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from ringfence.agent.mechanisms import Kind, enforcer
from ringfence.agent.plan import Order
from ringfence.agent.pods import Place
from ringfence.kernel.bpf import object_path
from ringfence.kernel.drops import DropCapture
from ringfence.kernel.netns import inode
from ringfence.model.address import host_network, parse_address
from ringfence.model.flow import DropSource
from ringfence.model.ids import ClusterId, NodeName
from ringfence.model.policy import Action
from ringfence.model.protocol import TCP
from ringfence.policy.program import NodeBinding, NodePolicy, Program, Rule
from ringfence.wire import batch
from tests.kernel.firewalld import firewalld
from tests.kernel.netns import Node, Pod, node_with_pods
from tests.kernel.test_backends import refused
from tests.kernel.test_cut import CATCH_ALL, FRIENDS, IN, policy_of, ports
from tests.kernel.test_enforce import ADMIT, ANYTHING, _changed
from tests.kernel.traffic import tcp_echo, tcp_exchange


@pytest.fixture
def node() -> Iterator[Node]:
    with node_with_pods(2) as made:
        yield made


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("first", ["theirs", "ours"])
@pytest.mark.parametrize(
    ("priority", "verdict"), [(0, "drop"), (-150, "drop"), (-300, "drop"), (0, "reject")]
)
def test_what_another_drops_is_dropped_and_told_as_theirs(
    node: Node, kind: Kind, first: str, priority: int, verdict: str
) -> None:
    friend, pod = node.pods
    other = (
        f"table inet other {{ chain c {{ type filter hook input priority {priority};\n"
        f"tcp dport 80 {verdict}\n}}; }}"
    )
    policy = policy_of(pod, ADMIT, ANYTHING, friend)
    place = Place("uid", pod.path, inode(pod.path))
    drops = DropCapture(object_path("drop"))
    drops.open()
    with closing(drops), closing(enforcer(kind)) as keeper, tcp_echo(pod, pod.address, 80):
        if first == "theirs":
            pod.nft(other)
        assert not keeper.apply(Order(1, policy), [place]).problem
        if first == "ours":
            tcp_exchange(friend, pod.address, 80, b"allowed by all")
            pod.nft(other)
        assert _closed(friend, pod.address, 80)
        keeper.read_drops(drops.drain(), {place: [parse_address(pod.address)]})
        ((told, _),) = keeper.ledger.take()
        rows = batch.decode(batch.DROPS, told).to_pylist()
        assert {(row["source"], row["provider_port"], row["rule"]) for row in rows} == {
            (DropSource.OTHER, 80, "")
        }
        pod.nft("delete table inet other")
        tcp_exchange(friend, pod.address, 80, b"allowed by all")


def node_policy(node: Node) -> NodePolicy:
    """The node admits its first pod to TCP 80 and 81, and nobody else to anything."""
    friend = node.pods[0]
    admit = Rule("default/nodes/p1/in", Action.ALLOW, TCP, ports(80, 81), FRIENDS)
    own = tuple(parse_address(pod.gateway) for pod in node.pods)
    return NodePolicy(
        ClusterId("c1"),
        NodeName("n1"),
        {FRIENDS: (host_network(parse_address(friend.address)),)},
        {IN: Program((admit, CATCH_ALL))},
        (),
        NodeBinding(own, IN, None, None),
        (),
    )


@pytest.mark.parametrize("kind", Kind)
def test_firewalld_and_ours_leave_each_other_alone(node: Node, kind: Kind, tmp_path: Path) -> None:
    """It opens the ports 80 and 82 of the node, ours 80 and 81, and only to the friend."""
    friend, _ = node.pods
    order, place = Order(1, node_policy(node)), Place("", node.path, inode(node.path))

    def passing() -> set[tuple[Pod, int]]:
        return {
            (pod, port)
            for pod in node.pods
            for port in (80, 81, 82)
            if not _closed(pod, pod.gateway, port)
        }

    with ExitStack() as stack:
        for pod, port in itertools.product(node.pods, (80, 81, 82)):
            stack.enter_context(tcp_echo(node, pod.gateway, port))
        keeper = stack.enter_context(closing(enforcer(kind)))
        with firewalld(node, tmp_path, (80, 82)) as their:
            before = their.rules()
            assert passing() == {(pod, port) for pod in node.pods for port in (80, 82)}
            assert not keeper.apply(order, [place]).problem
            assert their.rules() == before
            assert passing() == {(friend, 80)}
            their.ask("reload")
            assert their.rules() == before
            # firewalld empties all tables of iptables whenever it reads its configuration.
            assert _changed(keeper) is (kind is Kind.IPTABLES_NFT)
            assert not keeper.apply(order, [place]).problem
            assert passing() == {(friend, 80)}
            keeper.door.remove(node.path)
            assert their.rules() == before
            assert _changed(keeper)
            assert not keeper.apply(order, [place]).problem
        assert _changed(keeper) is (kind is Kind.IPTABLES_NFT)
        assert not keeper.apply(order, [place]).problem
        assert passing() == {(friend, 80), (friend, 81)}


def _closed(where: Pod, address: str, port: int) -> bool:
    """Whether a TCP connection is dropped or rejected."""
    try:
        return refused(where, address, port)
    except OSError:
        return True
