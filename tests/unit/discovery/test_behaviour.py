"""Who stands at an end whose address nobody was known to hold at the time."""

import numpy as np
import pyarrow as pa

from ringfence.discovery.behaviour import PeerNumbers
from ringfence.flows.connections import Records
from ringfence.inventory.snapshot import Snapshot
from ringfence.model.address import Address, parse_address
from ringfence.model.ids import ClusterId, ItemKey, RevisionId
from ringfence.model.workload import Item, ItemKind

NODE, POD, OUTSIDE = (parse_address(one) for one in ("10.244.1.1", "10.244.1.7", "192.0.2.9"))


def item(name: str, kind: ItemKind, address: Address) -> Item:
    key = ItemKey(f"east/{kind}/{name}")
    return Item(key, kind, ClusterId("east"), "", name, (address,), {})


def test_addresses_that_a_node_told_of_later_are_the_node() -> None:
    """What a pod had later may have been another's before; what a node has, it had."""
    held = [item("node1", ItemKind.NODE, NODE), item("carts", ItemKind.POD, POD)]
    snapshot = Snapshot((RevisionId(at), one) for at, one in enumerate(held, 1))
    addresses = pa.array([NODE, POD, OUTSIDE, NODE], type=pa.binary(16))
    table = pa.table({"provider": addresses, "provider_revision": np.zeros(4, dtype=np.uint64)})
    records = Records(table, np.zeros(4, dtype=np.uint64), np.zeros(4, dtype=np.bool_))
    numbers = PeerNumbers(snapshot, lambda _: None)
    node, pod, outside, again = numbers.peers(records, "provider").tolist()
    assert node == again == snapshot.position(held[0].key)
    assert sorted(numbers.addresses) == sorted([POD, OUTSIDE])
    assert {pod, outside} == {2, 3}
