"""An inventory that changes: positions, choices, and who holds an address."""

from dataclasses import replace

from ringfence.inventory.living import Living
from ringfence.inventory.ports import DeclaredPorts
from ringfence.inventory.snapshot import NOWHERE, Snapshot
from ringfence.inventory.timeline import Timeline
from ringfence.model.address import parse_address
from ringfence.model.ids import ClusterId, RevisionId, item_key
from ringfence.model.labels import make_labels
from ringfence.model.protocol import TCP
from ringfence.model.query import parse
from ringfence.model.workload import ContainerPort, Item, ItemKind

EAST = ClusterId("east")
CARTS = parse('app = "carts"')


def pod(name: str, app: str, address: str = "10.0.0.1", port: int = 0) -> Item:
    held = (parse_address(address),)
    declared = (ContainerPort("", TCP, port),) if port else ()
    labels = make_labels([("app", app)])
    key = item_key(EAST, "pod", name)
    return Item(key, ItemKind.POD, EAST, "shop", name, held, labels, "n1", containers=declared)


A, B, C = pod("a", "carts"), pod("b", "carts", "10.0.0.2"), pod("c", "user", "10.0.0.3")


def living() -> Living:
    return Living((RevisionId(at), one) for at, one in enumerate((C, B, A), 1))


def test_a_position_that_is_given_up_is_taken_again() -> None:
    there = living()
    at = there.position(A.key)
    new = pod("new", "carts")
    altered, _ = there.change({A.key: None, new.key: (RevisionId(4), new)})
    assert [(one.at, one.before is None, one.after is None) for one in altered] == [
        (at, False, True),
        (at, True, False),
    ]
    assert there.position(A.key) == NOWHERE


def test_a_query_is_told_of_only_where_it_chooses_another() -> None:
    there = living()
    assert set(there.chosen(CARTS)) == {there.position(A.key), there.position(B.key)}
    assert there.change({C.key: (RevisionId(4), pod("c", "front", "10.0.0.3"))})[1] == set()
    assert there.change({C.key: (RevisionId(5), pod("c", "carts", "10.0.0.3"))})[1] == {CARTS}
    assert len(there.chosen(CARTS)) == 3
    moved = {A.key: (RevisionId(6), pod("a", "carts", "10.0.0.9"))}
    assert there.change(moved)[1] == {CARTS}, "whom it chooses is another one now"
    assert there.change(moved)[1] == set(), "told again"


def test_of_two_pods_with_one_address_that_holds_it_which_came_to_it_last() -> None:
    """Revisions, which have no order, do not tell."""
    first, second = replace(A, since_ns=1), replace(B, addresses=A.addresses, since_ns=2)
    for revisions in ((7, 8), (8, 7)):
        pairs = [(RevisionId(n), one) for n, one in zip(revisions, (first, second), strict=True)]
        there, then = Living(pairs), Snapshot(pairs)
        assert there.holder(A.addresses[0], A.cluster) == there.position(B.key)
        assert then.at(A.addresses[0], A.cluster) == then.position(B.key)


def test_of_two_holders_the_later_counts() -> None:
    there, held = living(), A.addresses[0]
    there.change({B.key: (RevisionId(9), pod("b", "carts"))})
    assert there.holder(held, A.cluster) == there.position(B.key)
    there.change({B.key: None})
    assert there.holder(held, A.cluster) == there.position(A.key)


def test_a_follower_hears_of_all_items_and_then_of_those_that_change() -> None:
    timeline = Timeline()
    timeline.observe(1, A)
    timeline.observe(1, B)
    altered = timeline.follow()
    assert altered == {A.key, B.key}
    altered.clear()
    timeline.observe(2, A)
    assert not altered
    timeline.gone(3, A.key)
    assert altered == {A.key}
    assert timeline.living(A.key) is None
    assert timeline.living(B.key) is not None


def test_a_port_is_declared_as_long_as_somebody_declares_it() -> None:
    ports = DeclaredPorts()
    one, other = pod("a", "carts", port=80), pod("b", "carts", port=80)
    assert ports.take({one.key: one})
    assert not ports.take({other.key: other})
    assert not ports.take({one.key: None})
    assert ports.of(EAST) == {(TCP, 80)}
    assert ports.take({other.key: pod("b", "carts", port=81)})
    assert ports.of(EAST) == {(TCP, 81)}
    assert ports.take({other.key: None})
    assert ports.of(EAST) == frozenset()


def test_of_two_nodes_by_one_name_each_may_go() -> None:
    """A node that was made anew is told beside the old one for a while."""
    first, second = (
        Item(item_key(EAST, "node", uid), ItemKind.NODE, EAST, "", "n1", (), {}) for uid in "12"
    )
    pairs = [(RevisionId(at), one) for at, one in enumerate((first, second, A), 1)]
    there = Living(pairs)
    there.change({first.key: None})
    assert there.runner(there.position(A.key)) == there.position(second.key)
    there = Living(pairs)
    there.change({first.key: None, second.key: None})
    assert there.runner(there.position(A.key)) == NOWHERE
