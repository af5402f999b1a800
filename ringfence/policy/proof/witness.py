"""Which of the rules in force a packet meets, and which elements of the sets they ask hold it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ringfence.model.address import Address, is_v4
from ringfence.model.protocol import ICMP, ICMPV6
from ringfence.policy.proof import reading_iptables
from ringfence.policy.proof.matches import Json, boxes, conditions, keys_of
from ringfence.policy.proof.packets import SYN, Axis, Packet, Table, trace
from ringfence.policy.proof.reading import element_of, read

_SOME_PORT = 49152
"""The first that is nobody's (RFC 6335), from where connections are opened."""


@dataclass(frozen=True, slots=True)
class MetElement:
    """An element as nft or ipset prints it, and the mark that a map gives for it."""

    set: str
    text: str
    mark: int | None


@dataclass(frozen=True, slots=True)
class MetRule:
    """A rule by its number."""

    handle: int
    elements: tuple[MetElement, ...]


def opening(
    protocol: int, source: Address, destination: Address, port: int, *, to_own: bool
) -> Packet:
    """The first packet of a connection; of ICMP the port is type * 256 + code."""
    v4 = is_v4(destination)
    ends = (int.from_bytes(one[12:] if v4 else one) for one in (source, destination))
    head, to = (port, 0) if protocol in (ICMP, ICMPV6) else (_SOME_PORT, port)
    numbers = {
        Axis.TO_OWN: int(to_own),
        Axis.PROTOCOL: protocol,
        Axis.FLAGS: SYN,
        Axis.HEAD: head,
        Axis.PORT: to,
        **dict(zip((Axis.SOURCE, Axis.DESTINATION), ends, strict=True)),
    }
    return Packet(4 if v4 else 6, numbers)


def met(objects: Sequence[Json], hook: str, packet: Packet) -> tuple[MetRule, ...]:
    """The rules of the table, as nft lists it, that judge a packet at a hook, the last in the end.

    Raises UnprovableError where the table holds anything whose meaning is not known.
    """
    judging = _judging(read(objects, packet.family), hook, packet)
    rules = {found["rule"]["handle"]: found["rule"] for found in objects if "rule" in found}
    sets = _sets(objects)
    return tuple(
        MetRule(handle, tuple(_holding(rules[handle]["expr"], sets, packet))) for handle in judging
    )


def met_of_iptables(objects: Sequence[Json], hook: str, packet: Packet) -> tuple[MetRule, ...]:
    """The same of iptables, as `kernel.iptables` lists it; a rule's number is its place there."""
    judging = _judging(reading_iptables.read(objects, packet.family), hook, packet)
    texts = [found["rule"]["text"] for found in objects if "rule" in found]
    sets = _sets(objects)
    held = {at: reading_iptables.holding(texts[at - 1], sets, packet) for at in judging}
    return tuple(
        MetRule(at, tuple(MetElement(name, text, None) for name, text in elements))
        for at, elements in held.items()
    )


def _judging(table: Table, hook: str, packet: Packet) -> list[int]:
    return [clause.rule for clause in trace(table, hook, packet) if clause.rule]


def _sets(objects: Sequence[Json]) -> dict[str, Json]:
    return {
        body["name"]: body
        for found in objects
        for kind, body in found.items()
        if kind in ("set", "map")
    }


def _holding(
    parts: Iterable[Json], sets: Mapping[str, Json], packet: Packet
) -> Iterator[MetElement]:
    for part in parts:
        match part:
            case {"match": {"left": left, "op": operator, "right": str(name)}} if name[:1] == "@":
                if operator == "!=":
                    continue
            case {"mangle": {"value": {"map": {"key": left, "data": str(name)}}}}:
                pass
            case _:
                continue
        keys, name = keys_of(left), name.removeprefix("@")
        for held in sets[name].get("elem", ()):
            element = element_of(held)
            tested = (
                boxes(keys, [element.value], packet.family)
                if len(keys) > 1
                else conditions(keys, "==", [element.value], packet.family)
            )
            if any(all(one.holds(packet) for one in matches) for matches in tested):
                mark = element.verdict if isinstance(element.verdict, int) else None
                yield MetElement(name, _written(element.value) + _counted(held), mark)


def _counted(held: Json) -> str:
    """What nft adds to an element that tells whom it counts for."""
    match held:
        case {"elem": {"comment": whose, "counter": {"packets": packets, "bytes": size}}}:
            return f' counter packets {packets} bytes {size} comment "{whose}"'
    return ""


def _written(value: Json) -> str:
    match value:
        case {"concat": [*parts]}:
            return " . ".join(map(_written, parts))
        case {"range": [first, last]}:
            return f"{first}-{last}"
        case {"prefix": {"addr": address, "len": length}}:
            return f"{address}/{length}"
    return str(value)
