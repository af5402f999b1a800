"""The graph of flows as text that others draw: Graphviz' DOT, and Mermaid.

Names come from clusters and are hostile: each may try to end its string, to be markup, or to
steer a terminal.
"""

from collections.abc import Iterator, Sequence

from ringfence.cli.output import Row, human_bytes, printable
from ringfence.model.protocol import format_port, parse_protocol

_TOLD_PORTS = 3


def node_names(nodes: Sequence[Row]) -> list[str]:
    """Nodes as people read them: the address, or their values of all keys that differ."""
    inside = [node["group"] for node in nodes if node["outside"] is None]
    keys = list(nodes[0]["group"]) if nodes else []
    differing = [key for key in keys if len({group[key] for group in inside}) > 1] or keys
    told = [differing if node["outside"] is None else keys for node in nodes]
    return [
        node["outside"]
        or " ".join(node["group"][key] for key in shown if node["group"][key])
        or ("(none)" if node["outside"] is None else "outside")
        for node, shown in zip(nodes, told, strict=True)
    ]


def edge_name(edge: Row) -> str:
    """An edge's first ports, how many more there are, and its volume."""
    ports = [
        f"{port['protocol']} {format_port(parse_protocol(port['protocol']), port['port'])}"
        for port in edge["ports"][:_TOLD_PORTS]
    ]
    more = edge["total_ports"] - len(ports)
    told = ", ".join([*ports, f"{more} more"] if more else ports)
    volume = edge["forward"]["bytes"] + edge["reverse"]["bytes"]
    return f"{told}: {human_bytes(volume)}"


def dot(graph: Row) -> Iterator[str]:
    """Lines of DOT (https://graphviz.org/doc/info/lang.html); addresses outside are dashed."""
    yield "digraph flows {"
    yield "  rankdir=LR; node [shape=box];"
    for node, name in zip(graph["nodes"], node_names(graph["nodes"]), strict=True):
        style = "" if node["outside"] is None else ", style=dashed"
        yield f"  n{node['id']} [label={dot_quoted(name)}{style}];"
    for edge in graph["edges"]:
        color = ", color=red" if edge["dropped"] else ""
        ends = f"n{edge['consumer']} -> n{edge['provider']}"
        yield f"  {ends} [label={dot_quoted(edge_name(edge))}{color}];"
    yield "}"


def mermaid(graph: Row) -> Iterator[str]:
    """Lines of a Mermaid flowchart; edges with dropped packets are dotted."""
    yield "flowchart LR"
    for node, name in zip(graph["nodes"], node_names(graph["nodes"]), strict=True):
        left, right = ("[", "]") if node["outside"] is None else ("([", "])")
        yield f"  n{node['id']}{left}{_mermaid(name)}{right}"
    for edge in graph["edges"]:
        arrow = "-.->" if edge["dropped"] else "-->"
        label = _mermaid(edge_name(edge))
        yield f"  n{edge['consumer']} {arrow}|{label}| n{edge['provider']}"


def dot_quoted(text: str) -> str:
    """A quoted string; in a label Graphviz reads escapes and HTML's entities besides."""
    safe = printable(text).replace("&", "&amp;").replace("\\", "\\\\").replace('"', '\\"')
    return f'"{safe}"'


def _mermaid(text: str) -> str:
    """A quoted string; what is neither letter, digit nor harmless is written by its number."""
    letters = (
        letter if letter.isalnum() or letter in " ._:/,-" else f"#{ord(letter)};"
        for letter in printable(text)
    )
    return f'"{"".join(letters)}"'
