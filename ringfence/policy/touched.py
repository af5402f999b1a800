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
_EVERYWHERE = frozenset({ItemKind.NODE, ItemKind.HOST})
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
        kinds = {side.kind for side in one.sides}
        if kinds & _EVERYWHERE:
            return None
        if ItemKind.SERVICE in kinds:
            if any(side.display == _API_SERVICE for side in one.sides):
                return None
            fronts.replace(one.at, one.after)
            facts |= _of_service(one)
            serving |= {backend for side in one.sides for backend in _backends(side)}
        elif any(side.is_workload for side in one.sides):
            facts.add(SUBJECTS)
        if not one.before or not one.after or one.before.addresses != one.after.addresses:
            facts.add(OUTSIDE)
        facts |= one.addresses
        around |= one.addresses
    serving |= {address for address in around if fronts.behind(address)}
    for address in around | serving:
        for at in living.holding(address):
            facts.update(living.choosing(at))
        for front in fronts.behind(address):
            facts.add((front.service.namespace, front.service.name))
    for fact in ranged:
        meant = around if isinstance(fact, Held) else serving
        if any(within(address, fact.ranges) for address in meant):
            facts.add(fact)
    return facts


def _shares(living: Living, one: Alteration) -> bool:
    """Whether others hold its addresses: which of them counts may have changed."""
    return any(len(living.holding(address)) > 1 for address in one.addresses)


def _of_service(one: Alteration) -> set[Hashable]:
    facts: set[Hashable] = {(side.namespace, side.name) for side in one.sides}
    before, after = (_dialled(side) for side in (one.before, one.after))
    if before[0] != after[0]:
        facts.add(SERVICE_ADDRESSES)
    if before[1] != after[1]:
        facts.add(NODE_PORTS)
    return facts


def _dialled(service: Item | None) -> tuple[set[Address], set[tuple[int, int]]]:
    """The addresses of a Service, and its node ports."""
    if service is None or service.service is None:
        return set(), set()
    spec = service.service
    addresses = {*service.addresses, *spec.external_addresses} if spec.ports else set()
    return addresses, {(one.protocol, one.node_port) for one in spec.ports if one.node_port}


def _backends(service: Item) -> set[Address]:
    return {one.address for one in service.service.backends} if service.service else set()
