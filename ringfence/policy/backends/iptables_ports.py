"""Protocols, ports and messages of ICMP as matches of iptables."""

from collections.abc import Iterable, Iterator

from ringfence.model.protocol import ICMP, ICMPV6, PortRange

_MOST_PORTS = 15
"""Of one match of multiport (iptables-extensions(8)); a range takes two."""
_MOST_ICMP_CODES = 256


def dialled(protocol: int, ports: tuple[PortRange, ...], icmp: int) -> Iterator[str]:
    """What matches packets of the protocol to one of the ports, any of the texts.

    `icmp` is the one protocol of that kind in the family of the rules.
    """
    if not ports:
        yield f"-p {protocol}"
    elif protocol in (ICMP, ICMPV6):
        if protocol == icmp:
            kind = "icmp --icmp-type" if protocol == ICMP else "icmp6 --icmpv6-type"
            yield from (f"-p {protocol} -m {kind} {each}" for p in ports for each in _messages(p))
    else:
        for some in _port_lists(ports):
            yield f"-p {protocol} -m multiport --dports {some}"


def _port_lists(ports: Iterable[PortRange]) -> Iterator[str]:
    """The ports as often as multiport has to be asked."""
    some: list[str] = []
    room = _MOST_PORTS
    for each in ports:
        takes = 1 if each.first == each.last else 2
        if takes > room:
            yield ",".join(some)
            some, room = [], _MOST_PORTS
        some.append(str(each).replace("-", ":"))
        room -= takes
    yield ",".join(some)


def _messages(ports: PortRange) -> Iterator[str]:
    """Messages of ICMP, kept as type * 256 + code: each with its code, or a type with all."""
    for kind in range(ports.first >> 8, (ports.last >> 8) + 1):
        first, last = max(ports.first, kind << 8) & 0xFF, min(ports.last, kind << 8 | 0xFF) & 0xFF
        if last - first + 1 == _MOST_ICMP_CODES:
            yield str(kind)
        else:
            yield from (f"{kind}/{code}" for code in range(first, last + 1))
