"""What an agent follows, over restarts, broken files and clocks that jump."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ringfence.agent import orders
from ringfence.agent.orders import Orders
from ringfence.agent.plan import Order
from ringfence.control.pki import Authority
from ringfence.link.errors import RefusedError
from ringfence.link.identity import Identity
from ringfence.model.address import parse_address
from ringfence.model.ids import ClusterId, NodeName
from ringfence.policy import program
from ringfence.policy.program import NodeBinding, NodePolicy
from ringfence.wire.generated.agent_pb2 import Directive, Fallback, SignedDirective

SECOND = 10**9
NOW = 1_900_000_000 * SECOND
"""By the control plane's clock."""


def policy(port: int) -> NodePolicy:
    """One of which there are several."""
    return NodePolicy(
        ClusterId("lab"), NodeName("n1"), {}, {}, (), NodeBinding((), None, None, None),
        ((parse_address("192.0.2.9"), port),),
    )  # fmt: skip


OLD, NEW = policy(1), policy(2)


@dataclass
class Node:
    """An agent's orders, and the boot clock that they go by."""

    directory: Path
    authority: Authority
    now_ns: int = 500 * SECOND
    orders: Orders = field(init=False)

    def __post_init__(self) -> None:
        ca = self.authority.certificate_pem.decode()
        self.identity = Identity(1, "", ca, "")
        self.restart()

    def restart(self) -> None:
        """As a process anew."""
        file = self.directory / "directive"
        self.orders = Orders(file, ("lab", "n1"), self.identity.verify, lambda: self.now_ns)
        self.orders.recall()

    def signed(
        self, revision: int, new: NodePolicy, until_ns: int = 0, at_ns: int = NOW, node: str = "n1"
    ) -> SignedDirective:
        """A directive; on trial until a time, if one is given."""
        said = Directive(
            revision=revision, node_policy=program.encode(new), kubernetes_cluster="lab", node=node
        )
        if until_ns:
            said.fallback.CopyFrom(Fallback(node_policy=program.encode(OLD), at_ns=until_ns))
        data = said.SerializeToString()
        signature = self.authority.sign_directive(data)
        return SignedDirective(directive=data, signature=signature, now_ns=at_ns)

    def order(self) -> Order | None:
        return self.orders.order

    @property
    def policy(self) -> NodePolicy | None:
        order = self.orders.order
        return order.policy if order else None


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path, Authority.load(tmp_path, NOW))


def test_what_is_heard_is_followed_after_a_restart_too(node: Node) -> None:
    assert node.order() is None
    assert node.orders.hear(node.signed(3, NEW)) is not None
    for _ in range(2):
        assert node.order() == Order(3, NEW)
        assert not node.orders.problem
        node.restart()


def test_a_trial_of_which_no_more_is_heard_is_over_in_time(node: Node) -> None:
    node.orders.hear(node.signed(3, NEW, NOW + 60 * SECOND))
    node.now_ns += 59 * SECOND
    node.restart()
    assert node.order() == Order(3, NEW)
    node.now_ns += SECOND
    for _ in range(2):
        assert node.order() == Order(0, OLD)
        assert "revision 3 was on trial, and nothing was heard in time" in node.orders.problem
        node.restart()
    node.orders.hear(node.signed(4, NEW))
    assert (node.order(), node.orders.problem) == (Order(4, NEW), "")


def test_a_trial_that_is_told_again_ends_no_later(node: Node) -> None:
    """Be it that pods came and went, or that somebody set the control plane's clock back."""
    until_ns = NOW + 60 * SECOND
    node.orders.hear(node.signed(3, NEW, until_ns))
    node.now_ns += 50 * SECOND
    node.restart()
    node.orders.hear(node.signed(4, NEW, until_ns, NOW - 3600 * SECOND))
    assert node.order() == Order(4, NEW)
    node.now_ns += 10 * SECOND
    assert node.policy == OLD
    node.orders.hear(node.signed(5, NEW, until_ns, NOW - 3600 * SECOND))
    assert node.policy == OLD
    node.orders.hear(node.signed(6, NEW, until_ns + 60 * SECOND, until_ns))  # another
    assert node.policy == NEW


def test_a_node_that_was_booted_meanwhile_goes_back_until_it_hears(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.orders.hear(node.signed(3, NEW, NOW + 60 * SECOND))
    (tmp_path / "boot_id").write_text("another\n")
    monkeypatch.setattr(orders, "_BOOT_ID", tmp_path / "boot_id")
    node.now_ns = SECOND
    node.restart()
    assert node.policy == OLD
    node.orders.hear(node.signed(3, NEW, NOW + 60 * SECOND, NOW + 30 * SECOND))
    assert node.policy == NEW
    node.now_ns += 30 * SECOND
    assert node.policy == OLD


def test_a_directive_that_nobody_signed_for_this_node_is_refused(node: Node) -> None:
    node.orders.hear(node.signed(3, OLD))
    good = node.signed(4, NEW)
    another = node.signed(4, NEW, node="n2")
    changed = SignedDirective(
        directive=node.signed(5, NEW).directive, signature=good.signature, now_ns=NOW
    )
    for signed, why in (
        (changed, "the control plane's CA did not sign it"),
        (SignedDirective(directive=good.directive), "did not sign it"),
        (another, "it is for lab/n2"),
    ):
        assert node.orders.hear(signed) is None
        assert why in node.orders.problem
        assert node.order() == Order(3, OLD)
    assert node.orders.hear(good) is not None
    assert not node.orders.problem


@pytest.mark.parametrize("at", [0, 1, 5, 40, -1])
def test_a_file_that_was_changed_is_refused_and_rules_stay(node: Node, at: int) -> None:
    node.orders.hear(node.signed(3, NEW))
    file = node.directory / "directive"
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    if at == -1:  # not of what is signed
        data = data[:20]
    file.write_bytes(data)
    node.restart()
    assert node.order() is None
    assert "is refused, and rules stay as they were found" in node.orders.problem
    node.orders.hear(node.signed(4, NEW))
    assert (node.order(), node.orders.problem) == (Order(4, NEW), "")


def test_another_control_planes_signature_is_none(node: Node, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = Node(tmp_path / "other", Authority.load(tmp_path / "other", NOW))
    assert node.orders.hear(other.signed(3, NEW)) is None
    with pytest.raises(RefusedError, match="cannot be read"):
        Identity(1, "", "no certificate", "").verify(b"", b"")
