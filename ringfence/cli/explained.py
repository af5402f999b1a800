"""Explanations of a folder's connectivity, as text, as JSON and as a drawing."""

from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum

from ringfence.cli.flows.drawing import dot_quoted
from ringfence.cli.output import Row, printable
from ringfence.model.protocol import SCTP, TCP, UDP, format_protocol
from ringfence.policy.kubernetes.explanation import Effect, End, Explanation, Part, Reason

_PROTOCOLS = (TCP, UDP, SCTP)
_DEFAULT = "the system default (Allow all)"
_MAX_PORT = 65535
_LINE = "-" * 160
_SENTENCES = {
    Effect.ALLOWS: "allows connections by {way} rule {rule}",
    Effect.DENIES: "denies connections by {way} rule {rule}",
    Effect.PASSES: "passes connections by {way} rule {rule}",
    Effect.HAS_NO_RULES: (
        "selects {own}, but {peer} is not allowed by any {way} rule (no rules defined)"
    ),
    Effect.OMITS_PEER: "selects {own}, but {peer} is not allowed by any {way} rule",
    Effect.OMITS_PORTS: (
        "selects {own}, and {way} rule {rule} selects {peer}, "
        "but the protocols and ports do not match"
    ),
    Effect.UNKNOWN_PORT_NAME: (
        "selects {own}, and {way} rule {rule} selects {peer}, but named ports of the rule have "
        "no match in the configuration of the destination peer"
    ),
    Effect.PUBLISHES: "allows ingress connections through service {service}",
    Effect.PUBLISHES_OTHER_PORTS: (
        "allows ingress to service {service}, but the protocols and ports do not match"
    ),
}


class ExplainOnly(StrEnum):
    """Which connections are explained."""

    ALLOW = "allow"
    DENY = "deny"


def restrict(explained: Iterable[Explanation], only: ExplainOnly | None) -> list[Explanation]:
    """The explanations in order of their ends, of allowed or denied connections only."""
    kept = (
        Explanation(
            one.source,
            one.target,
            [
                part
                for part in one.parts
                if only is None or part.allowed == (only is ExplainOnly.ALLOW)
            ],
        )
        for one in explained
    )
    return sorted(
        (one for one in kept if one.parts), key=lambda one: f"{one.source} => {one.target}"
    )


def text(explained: Sequence[Explanation]) -> Iterator[str]:
    """Lines: pairs of ends with what some policy decides, then all others."""
    by_default = [one for one in explained if _is_default(one)]
    specific = [one for one in explained if not _is_default(one)]
    if specific:
        yield from _headed("Specific connections and their reasons")
    for one in specific:
        yield from _pair(one)
    if by_default:
        yield from _headed(f"All Connections due to {_DEFAULT}")
        yield from (printable(f"{one.source} => {one.target}") for one in by_default)


def rows(explained: Iterable[Explanation]) -> list[Row]:
    """For each pair of ends its connections in parts, each with both ends' reasons."""
    return [
        {
            "src": one.source,
            "dst": one.target,
            "connections": [
                {
                    "conn": _connections(part),
                    "allowed": part.allowed,
                    "egress": _end(part.outbound),
                    "ingress": _end(part.inbound),
                }
                for part in _in_order(one)
            ],
        }
        for one in explained
    ]


def dot(explained: Iterable[Explanation]) -> Iterator[str]:
    """A graph with an edge for each part; what is denied is dashed."""
    yield "digraph connectivity {"
    for one in explained:
        for part in _in_order(one):
            style = "" if part.allowed else ", style=dashed, color=red"
            lines = [_connections(part), *(line.strip() for line in _both_ends(one, part))]
            label = '"' + "\\l".join(dot_quoted(line)[1:-1] for line in lines if line) + '\\l"'
            ends = f"{dot_quoted(one.source)} -> {dot_quoted(one.target)}"
            yield f"  {ends} [label={label}{style}];"
    yield "}"


def _is_default(one: Explanation) -> bool:
    return all(part.is_default and part.whole for part in one.parts)


def _headed(title: str) -> Iterator[str]:
    rule = "#" * (len(title) + 4)
    yield from ("", rule, f"# {title} #", rule)


def _pair(one: Explanation) -> Iterator[str]:
    yield _LINE
    yield printable(f"Connections between {one.source} => {one.target}:")
    yield ""
    for allowed, word in ((True, "Allowed"), (False, "Denied")):
        parts = [part for part in _in_order(one) if part.allowed is allowed]
        if parts:
            yield f"{word} connections:"
        for part in parts:
            due = _DEFAULT if part.is_default else "the following policies and rules:"
            yield f"\t{word} {_connections(part)} due to {due}"
            if not part.is_default:
                yield from (f"\t\t{line}" if line else "" for line in _both_ends(one, part))
            yield ""


def _in_order(one: Explanation) -> list[Part]:
    return sorted(one.parts, key=lambda part: (not part.allowed, _connections(part)))


def _both_ends(one: Explanation, part: Part) -> Iterator[str]:
    yield from _end_lines("Egress", part.outbound, one.source, one.target)
    yield from _end_lines("Ingress", part.inbound, one.target, one.source)


def _end_lines(way: str, end: End, own: str, peer: str) -> Iterator[str]:
    head = f"{way} ({'Allowed' if end.allowed else 'Denied'})"
    if not end.reasons:
        yield f"{head} due to {_DEFAULT}"
        return
    yield head
    for kind in sorted({one.kind for one in end.reasons}):
        sentences = sorted(
            _sentence(one, way, own, peer) for one in end.reasons if one.kind == kind
        )
        if len(sentences) == 1:
            yield f"\t{sentences[0]}"
        else:
            yield f"\t{kind} list:"
            yield from (f"\t\t- {one}" for one in sentences)
            yield ""
    if all(one.effect is Effect.PASSES for one in end.reasons):
        yield f"\t{_DEFAULT}"


def _sentence(one: Reason, way: str, own: str, peer: str) -> str:
    told = _SENTENCES[one.effect].format(
        way=way, rule=one.rule, own=own, peer=peer, service=one.service
    )
    return printable(f"{one.kind} '{one.name}' {told}")


def _connections(part: Part) -> str:
    """`TCP:[80,90-100], UDP`: no ports are all of the protocol's."""
    told = []
    for protocol in _PROTOCOLS:
        listed = part.ports.get(protocol, ())
        whole = [(one.first, one.last) for one in listed] == [(1, _MAX_PORT)]
        ports = "" if whole else f":[{','.join(map(str, listed))}]"
        told += [f"{format_protocol(protocol)}{ports}"] if listed else []
    return ", ".join(told)


def _end(end: End) -> Row:
    return {
        "allowed": end.allowed,
        "reasons": [
            {
                "kind": one.kind,
                "name": one.name,
                "effect": one.effect.name.lower(),
                **({"rule": one.rule} if one.rule else {}),
                **({"service": one.service} if one.service else {}),
            }
            for one in end.reasons
        ],
    }
