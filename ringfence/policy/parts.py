"""One policy as the rules that it comes to, each with ports that are numbers.

A port's name stands for other numbers at other workloads, and an API server is that of whoever
decides: such a policy becomes several rules of one decision, of which each says a part.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from pyroaring import BitMap

from ringfence.inventory.snapshot import NOWHERE, View
from ringfence.model.address import host_network
from ringfence.model.ids import ClusterId
from ringfence.model.policy import Policy
from ringfence.model.protocol import PortName, PortRange
from ringfence.model.ranges import spans
from ringfence.policy.ends import ResolvedEnd


@dataclass(frozen=True)
class Part:
    """A rule that a policy comes to; `members` are the positions at which it decides."""

    members: BitMap
    consumer: ResolvedEnd
    provider: ResolvedEnd
    ports: tuple[PortRange, ...]


def parts(
    policy: Policy,
    members: BitMap,
    consumer: ResolvedEnd,
    provider: ResolvedEnd,
    snapshot: View,
) -> Iterator[Part]:
    """The rules of a policy, at least one, whose ends are resolved and which decides at members."""
    numbered = list(_numbered(policy, provider, snapshot))
    for place, opener in _openers(consumer, members, snapshot):
        for named, ports in numbered:
            yield Part(place, opener, named, ports)


def _openers(
    consumer: ResolvedEnd, members: BitMap, snapshot: View
) -> Iterator[tuple[BitMap, ResolvedEnd]]:
    """The consumer as it opens connections: of a Service, the hosts behind it, by cluster."""
    if not consumer.services:
        yield members, consumer
        return
    for cluster, services in sorted(_by_cluster(consumer.services, snapshot).items()):
        hosts = _hosts_behind(services, snapshot, f"of {cluster}")
        if consumer.same_cluster:
            here = BitMap(at for at in members if snapshot.items[at].cluster in (cluster, ""))
            yield here, hosts
        else:
            yield members, hosts


def _by_cluster(services: BitMap, snapshot: View) -> dict[ClusterId, BitMap]:
    found: dict[ClusterId, BitMap] = {}
    for at in services:
        found.setdefault(snapshot.items[at].cluster, BitMap()).add(at)
    return found


def _hosts_behind(services: BitMap, snapshot: View, part: str) -> ResolvedEnd:
    backends = {
        (backend.address, item.cluster)
        for item in map(snapshot.items.__getitem__, services)
        for backend in (item.service.backends if item.service else ())
    }
    holders = {one: snapshot.at(*one) for one in backends}
    items = BitMap(at for at in holders.values() if at != NOWHERE) & snapshot.subjects
    free = [address for (address, _), at in holders.items() if at == NOWHERE]
    return ResolvedEnd(items, spans(map(host_network, free)), part=part)


def _numbered(
    policy: Policy, provider: ResolvedEnd, snapshot: View
) -> Iterator[tuple[ResolvedEnd, tuple[PortRange, ...]]]:
    """The provider and its ports, once for each number that a port's name stands for there.

    A name that nobody has stands for no port. What is unknown of an unknown provider is its
    ports as well, so that a DENY means all of them.
    """
    ranges = tuple(port for port in policy.ports if isinstance(port, PortRange))
    names = {port for port in policy.ports if isinstance(port, str)}
    if not names or provider.unknown:
        yield provider, () if names else ranges or tuple(one.ports for one in policy.icmp)
        return
    if ranges:
        yield provider, ranges
    items, services = declared(policy.protocol, names, provider, snapshot)
    for number in sorted({*items, *services}):
        end = replace(
            provider,
            items=items.get(number, BitMap()),
            services=services.get(number, BitMap()),
            part=f"{','.join(sorted(names))} = {number}",
        )
        yield end, (PortRange(number, number),)
    if not ranges and not items and not services:
        yield ResolvedEnd(unknown=True, part=f"port {','.join(sorted(names))}"), ()


def declared(
    protocol: int | None, names: set[PortName], provider: ResolvedEnd, snapshot: View
) -> tuple[dict[int, BitMap], dict[int, BitMap]]:
    """By number the provider's workloads, and its Services, that have a port of such a name."""
    items, services = dict[int, BitMap](), dict[int, BitMap]()
    for at in provider.items | provider.services:
        item = snapshot.items[at]
        spec, found = item.service, services if item.service else items
        for port in spec.ports if spec else item.containers:
            if port.name in names and port.protocol == protocol:
                found.setdefault(port.port, BitMap()).add(at)
    return items, services
