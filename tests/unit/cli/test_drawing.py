"""The graph in DOT and Mermaid, with names made to break out; Graphviz itself reads the DOT."""

import html
import json
import re
import subprocess
from typing import Any

import pytest

from ringfence.cli.flows.drawing import dot, mermaid, node_names

HOSTILE = [
    'quote" -> evil [label="x',
    "back\\slash\\N\\n\\",
    "line\nbreak\r]; evil",
    "<b>html</b> <<i>x</i>>",
    "&amp; &#65; &lt;",
    "\x1b[31mred\x1b[0m\x9b2J",
    "]; click n0 call alert() #quot;",
    "`**markdown**` %% comment",
    "\u202eright to left",
    "end",
    "Ünïcode-日本",
]


def volume(count: int) -> dict[str, int]:
    return {"bytes": count, "packets": 1}


def graph(names: list[str]) -> dict[str, Any]:
    port = {"protocol": "TCP", "port": 80}
    edge = {"forward": volume(1536), "reverse": volume(0), "ports": [port] * 4, "total_ports": 9}
    return {
        "nodes": [
            *(
                {"id": number, "group": {"cluster": "lab", "workload": name}, "outside": None}
                for number, name in enumerate(names)
            ),
            {
                "id": len(names),
                "group": {"cluster": None, "workload": None},
                "outside": "2001:db8::1",
            },
        ],
        "edges": [
            {**edge, "consumer": number, "provider": number + 1, "dropped": number % 2}
            for number in range(len(names))
        ],
    }


def cleaned(name: str) -> str:
    return "".join(letter if letter.isprintable() else "�" for letter in name)


def test_graphviz_reads_the_names_as_they_are() -> None:
    drawn = "\n".join(dot(graph(HOSTILE)))
    done = subprocess.run(
        ["dot", "-Tsvg"], input=drawn, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    texts = [html.unescape(text) for text in re.findall(r"<text[^>]*>(.*?)</text>", done.stdout)]
    # Graphviz writes spaces that stand together as no-break spaces.
    shown = {text.replace("\xa0", " ") for text in texts}
    assert shown == {
        *map(cleaned, HOSTILE),
        "2001:db8::1",
        "TCP 80, TCP 80, TCP 80, 6 more: 1.5 KiB",
    }
    done = subprocess.run(
        ["dot", "-Tjson"], input=drawn, capture_output=True, text=True, check=True
    )
    read = json.loads(done.stdout)
    assert (len(read["objects"]), len(read["edges"])) == (len(HOSTILE) + 1, len(HOSTILE))


def test_mermaid_strings_hold_nothing_that_ends_them() -> None:
    lines = list(mermaid(graph(HOSTILE)))
    assert lines[0] == "flowchart LR"
    nodes = lines[1 : len(HOSTILE) + 1]
    for number, (line, name) in enumerate(zip(nodes, HOSTILE, strict=True)):
        written = re.fullmatch(rf'  n{number}\["((?:[\w ._:/,-]|#\d+;)*)"\]', line)
        assert written, line
        read = re.sub(r"#(\d+);", lambda found: chr(int(found[1])), written[1])
        assert read == cleaned(name)
    assert lines[len(HOSTILE) + 1] == f'  n{len(HOSTILE)}(["2001:db8::1"])'
    assert lines[-1].endswith('-->|"TCP 80, TCP 80, TCP 80, 6 more: 1.5 KiB"| n11')


def test_names_leave_out_what_is_the_same_for_all() -> None:
    def named(*groups: tuple[str | None, str | None]) -> list[str]:
        return node_names([{"group": {"c": c, "w": w}, "outside": None} for c, w in groups])

    assert named(("lab", "a"), ("lab", None)) == ["a", "(none)"]
    assert named(("lab", "a"), ("other", "a")) == ["lab", "other"]
    assert named(("lab", "a")) == ["lab a"]
    assert node_names([{"group": {"w": None}, "outside": ""}]) == ["outside"]


@pytest.mark.parametrize("draw", [dot, mermaid])
def test_an_empty_graph_is_one(draw: Any) -> None:
    assert list(draw({"nodes": [], "edges": []}))
