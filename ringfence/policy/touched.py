"""Of which facts it is that the inventory has changed so.

What is made of a rule depends on whom its queries choose, on these items as they are but for
their labels, on what Services they serve, and on the facts that were noted besides.
"""

from collections.abc import Hashable, Iterable

from ringfence.inventory.living import Alteration, Living
from ringfence.model.address import Address
from ringfence.model.workload import Item, ItemKind
from ringfence.policy.ends import API_SERVICE, OUTSIDE
from ringfence.policy.fronts import Fronts
from ringfence.policy.sets import within
from ringfence.policy.who import NODE_PORTS, SERVICE_ADDRESSES, SUBJECTS, Held, Served

Ranged = Held | Served
_API_SERVICE = f"{API_SERVICE.namespace}/{API_SERVICE.name}"


def touched(
    living: Living,
    fronts: Fronts,
    alterations: Iterable[Alteration],
    ranged: Iterable[Ranged],
) -> set[Hashable] | None:
    """The facts that are other ones now, queries' choices aside; None where all may be.

    `fronts` are brought up to date; `ranged` are the facts about ranges that anything depends on.
    """
    facts = set[Hashable]()
    around, serving = set[Address](), set[Address]()
    for one in alterations:
        if one.of_labels_only and not _shares(living, one):
            continue
        if any(_is_everywhere(side) for side in one.sides):
            return None
        if one.kind is ItemKind.SERVICE:
            fronts.replace(one.at, one.after)
            facts |= _of_service(one)
            serving |= {backend for side in one.sides for backend in _backends(side)}
        facts |= _of_addresses(one)
        around |= one.addresses
    serving |= {address for address in around if fronts.behind(address)}
    facts |= _of_holders(living, fronts, around | serving)
    # A Service is found by whichever of its backends somebody holds.
    beside = {
        backend.address
        for address in around
        for front in fronts.behind(address)
        for backend in front.backends
    }
    for fact in ranged:
        meant = around if isinstance(fact, Held) else serving | beside
        if any(within(address, fact.ranges) for address in meant):
            facts.add(fact)
    return facts


def _is_everywhere(item: Item) -> bool:
    """Whether rules of all sorts depend on an item, without saying so.

    The addresses of nodes stand for much, and so does the Service of the API servers.
    """
    of_all = item.kind in (ItemKind.NODE, ItemKind.HOST)
    return of_all or (item.kind is ItemKind.SERVICE and item.display == _API_SERVICE)


def _of_holders(living: Living, fronts: Fronts, addresses: Iterable[Address]) -> set[Hashable]:
    """The facts about all that holds or serves one of the addresses."""
    facts = set[Hashable]()
    for address in addresses:
        for at in living.holding(address):
            facts.update(living.choosing(at))
        for front in fronts.behind(address):
            facts.add((front.service.namespace, front.service.name))
    return facts


def _of_addresses(one: Alteration) -> set[Hashable]:
    facts: set[Hashable] = {*one.addresses}
    if any(side.is_workload for side in one.sides):
        facts.add(SUBJECTS)
    if not one.before or not one.after or one.before.addresses != one.after.addresses:
        facts.add(OUTSIDE)
    return facts


def _shares(living: Living, one: Alteration) -> bool:
    """Whether others hold its addresses with the same claim: which counts may have changed."""
    for address in one.addresses:
        guests = [living.items[at].host_network for at in living.holding(address)]
        if guests.count(False) > 1 or (len(guests) > 1 and all(guests)):
            return True
    return False


def _of_service(one: Alteration) -> set[Hashable]:
    facts: set[Hashable] = {(side.namespace, side.name) for side in one.sides}
    before, after = (_dialled(side) for side in (one.before, one.after))
    if before[0] != after[0]:
        facts.add(SERVICE_ADDRESSES)
    if before[1] != after[1]:
        facts.add(NODE_PORTS)
    return facts


def _dialled(service: Item | None) -> tuple[set[Hashable], set[tuple[int, int]]]:
    """Where a Service is dialled, of external addresses the ports that lead to backends.

    And its node ports.
    """
    if service is None or service.service is None:
        return set(), set()
    spec = service.service
    places: set[Hashable] = {*service.addresses} if spec.ports else set()
    places |= {
        (address, address in spec.balancer_addresses, port.protocol, port.port)
        for port in spec.ports
        if spec.external_addresses and spec.serving(port)
        for address in spec.external_addresses
    }
    return places, {(one.protocol, one.node_port) for one in spec.ports if one.node_port}


def _backends(service: Item) -> set[Address]:
    return {one.address for one in service.service.backends} if service.service else set()
