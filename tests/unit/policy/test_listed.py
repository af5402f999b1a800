"""A workload's rules as people read them."""

from dataclasses import replace

from ringfence.model.address import parse_network
from ringfence.model.policy import Action, CidrEnd, OutsideEnd, ServiceEnd
from ringfence.model.protocol import TCP
from ringfence.policy.compile import Compiled, compile_policies
from ringfence.policy.listed import MOST_NAMED, Listing, listed
from tests.golden.shop import CLUSTER, ITEMS, address, allow, app, pod, policy_set

TO_CARTS = allow("carts", app("front-end"), app("carts"), 8081)


def listing(name: str, *policies: object, items: object = ITEMS) -> Listing:
    held = policy_set(*policies, items=items)  # type: ignore[arg-type]
    compiled = compile_policies(held, ())
    (position,) = (at for at, one in enumerate(held.snapshot.items)
                   if one.name == name and not one.service)  # fmt: skip
    return listed(held.snapshot, compiled, position)


def test_rules_stand_in_order_with_members_by_name() -> None:
    found = listing("carts", TO_CARTS)
    assert (found.node, found.uid) == ("node2", "carts")
    inbound = [one for one in found.rules if one.hook == "input"]
    assert [(one.program, one.place, one.rule.action) for one in inbound] == [
        (1, 1, Action.ALLOW),
        (1, 2, Action.DENY),
    ]
    peers = inbound[0].peers
    assert peers
    assert (peers.first, peers.count) == (("sock-shop/front-end",), 1)
    assert inbound[1].peers is None


def test_neighbours_in_one_block_are_told_apart_and_blocks_of_nobody_are_not() -> None:
    more = [pod(f"front-end-{n}", "front-end", "node1", f"10.244.3.{n}") for n in range(16)]
    found = listing("carts", TO_CARTS, items=[*ITEMS, *more])
    peers = found.rules[0].peers
    assert peers
    assert (len(peers.first), peers.count) == (MOST_NAMED, 17)
    assert {"sock-shop/front-end", "sock-shop/front-end-0"} <= {*peers.first}
    outside = replace(TO_CARTS, consumer=CidrEnd((parse_network("192.0.2.0/24"),)))
    peers = listing("carts", outside).rules[0].peers
    assert peers
    assert (peers.first, peers.count) == (("192.0.2.0/24",), 1)


def test_a_widened_rule_tells_what_it_admits() -> None:
    shop = allow("shop", app("payment"), ServiceEnd("sock-shop", "front-end"), 80)
    found = listing("front-end", shop)
    ((handle, (told,)),) = {
        (one.rule.handle, one.widenings) for one in found.rules if one.widenings
    }
    assert handle == "default/sock-shop/p3/shop+widened"
    assert told.startswith("admits node addresses to port 8079: nodes masquerade")
    assert not found.widenings
    assert not any(one.widenings for one in listing("payment", shop).rules)


def test_what_is_left_out_of_a_denial_is_told_beside_the_rules() -> None:
    shop = allow("shop", OutsideEnd(), ServiceEnd("sock-shop", "front-end"), 80)
    never = replace(shop, consumer=CidrEnd((parse_network("172.30.0.0/16"),)), action=Action.DENY)
    found = listing("front-end", never)
    assert not any(one.widenings for one in found.rules)
    (told,) = found.widenings
    assert told.startswith("sock-shop/shop@p3: does not deny node addresses")


def test_a_nodes_fail_safes_come_first_and_what_it_receives_last() -> None:
    shop = allow("shop", app("payment"), ServiceEnd("sock-shop", "front-end"), 80)
    found = listing("node1", shop)
    assert found.uid == ""
    assert {one.program for one in found.rules} == {0, 1}
    assert found.rules[0].rule.handle.startswith("fail-safe/")
    received = [one for one in found.rules if one.hook == "prerouting"]
    assert received[0].rule.protocol == TCP
    assert received[0].peers


def test_where_nothing_governs_there_are_no_rules() -> None:
    held = policy_set(TO_CARTS)
    position = held.snapshot.at(address("10.244.2.20"), CLUSTER)
    assert not listed(held.snapshot, Compiled({}, ()), position).rules
