"""Looks at our rules in one namespace as they are in the kernel, for who asks at a distance."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from ringfence.agent.pods import Place
from ringfence.kernel import nft
from ringfence.kernel.iptables import Iptables
from ringfence.kernel.libnftables import NftError
from ringfence.model.address import Address
from ringfence.policy.errors import UnprovableError
from ringfence.policy.proof.packets import Packet
from ringfence.policy.proof.reading_iptables import comment_of
from ringfence.policy.proof.witness import MetRule, met, met_of_iptables, opening
from ringfence.wire.generated.agent_pb2 import (
    Inspected,
    Inspection,
    KernelRule,
    Met,
    MetElement,
    Probe,
)
from ringfence.wire.generated.agent_pb2 import (
    MetRule as WireRule,
)
from ringfence.wire.limits import LONGEST_RULE, MOST_RULES

Table = list[dict[str, Any]]
Find = Callable[[Sequence[Any], str, Packet], tuple[MetRule, ...]]
"""Tells the rules of a listing that judge a packet at a hook."""
Inspect = Callable[[Place, Inspection], Inspected]
"""Tells what stands in a namespace; blocks. Raises KernelError where it cannot be read."""


def inspect(place: Place, question: Inspection) -> Inspected:
    """What stands in a namespace, of nftables; an `Inspect`."""
    table = nft.list_table(place.netns) or []
    texts = nft.rule_texts(place.netns) if table else {}
    bodies = [found["rule"] for found in table if "rule" in found][:MOST_RULES]
    sets = {found["set"]["name"]: found["set"] for found in table if "set" in found}
    return Inspected(
        id=question.id,
        rules=[
            _rule(body, texts.get(body["handle"], ""), _admitted(body["expr"], sets))
            for body in bodies
        ],
        met=[_met(table, probe) for probe in question.probes],
    )


def inspect_iptables(door: Iptables, place: Place, question: Inspection) -> Inspected:
    """The same of a variant of iptables."""
    listing = door.list_table(place.netns) or []
    lines = [found["rule"] for found in listing if "rule" in found][:MOST_RULES]
    return Inspected(
        id=question.id,
        rules=[_line(number, body) for number, body in enumerate(lines, start=1)],
        met=[_met(listing, probe, met_of_iptables) for probe in question.probes],
    )


def _line(number: int, body: dict[str, Any]) -> KernelRule:
    """A rule as `iptables-save -c` prints it, but for protocols, which are numbers."""
    text, counters = body["text"], {name: body[name] for name in ("packets", "bytes")}
    return KernelRule(
        chain=text.split(" ", 2)[1],
        handle=number,
        text=f"[{body['packets']}:{body['bytes']}] {text}"[:LONGEST_RULE],
        comment=comment_of(text),
        counted=True,
        **counters,
    )


def _rule(body: dict[str, Any], text: str, admitted: Mapping[str, int]) -> KernelRule:
    counters = (part["counter"] for part in body["expr"] if isinstance(part.get("counter"), dict))
    counter = next(counters, None)
    return KernelRule(
        chain=body["chain"],
        handle=body["handle"],
        text=text[:LONGEST_RULE],
        comment=body.get("comment", ""),
        counted=counter is not None,
        admitted=admitted,
        **(counter or {}),
    )


def _admitted(parts: Iterable[Any], sets: Mapping[str, Any]) -> Counter[str]:
    """Packets by the handles that stand at the elements of a set that a rule asks."""
    found: Counter[str] = Counter()
    for part in parts:
        match part:
            case {"match": {"right": str(name)}}:
                for held in sets.get(name.removeprefix("@"), {}).get("elem", ()):
                    match held:
                        case {"elem": {"comment": handle, "counter": {"packets": packets}}}:
                            found[handle] += packets
    return found


def _met(table: Table, probe: Probe, find: Find = met) -> Met:
    source, destination = Address(probe.source), Address(probe.destination)
    packet = opening(probe.protocol, source, destination, probe.port, to_own=probe.to_own)
    try:
        rules = find(table, probe.hook, packet)
        return Met(rules=list(_with_counters(table, rules)))
    except (UnprovableError, NftError) as error:
        return Met(problem=str(error))


def _with_counters(table: Table, rules: Iterable[MetRule]) -> Iterator[WireRule]:
    for rule in rules:
        elements = [
            MetElement(
                set=one.set,
                element=one.text if one.mark is None else f"{one.text} : {one.mark:#x}",
                denied_packets=_denied(table, one.mark),
            )
            for one in rule.elements
        ]
        yield WireRule(handle=rule.handle, elements=elements)


def _denied(table: Table, mark: int | None) -> int:
    """Packets of the tuples that are remembered under a mark."""
    if mark is None:
        return 0
    remembering = [found["set"]["name"] for found in table if "timeout" in found.get("set", ())]
    drops = nft.read_drops(table, remembering)
    return int(drops.packets[drops.mark == mark].sum()) + drops.overflow.get(mark, 0)
