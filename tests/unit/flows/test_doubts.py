"""What an inventory in a file leaves in doubt of rows is told, once for each kind."""

import json
from pathlib import Path

import pytest

from ringfence.cli.recorded import distinct_flows, recorded_inventory
from ringfence.flows.connections import Records

POD = {"kind": "pod", "namespace": "shop"}
EAST, WEST = {"kubernetes_cluster": "east"}, {"kubernetes_cluster": "west"}
ITEMS = [
    POD | EAST | {"name": "front", "addresses": ["10.1.0.2"]},
    POD | EAST | {"name": "carts", "addresses": ["10.1.0.3"]},
    POD | EAST | {"name": "only-here", "addresses": ["10.1.0.9"]},
    POD | EAST | {"name": "again", "addresses": ["10.1.0.9"], "from": "2030-01-01T06:00:00Z"},
    POD | WEST | {"name": "db", "addresses": ["10.1.0.2"]},
    POD | WEST | {"name": "cache", "addresses": ["10.1.0.3"]},
]
WHOLE = {
    "kind": "Inventory",
    "from": "2030-01-01T00:00:00Z",
    "to": "2030-01-02T00:00:00Z",
    "items": ITEMS,
}
NOON = "2030-01-01T12:00:00Z"


def row(consumer: str, provider: str, cluster: str | None, at: str = NOON) -> str:
    told = {
        "first": at,
        "last": at,
        "consumer_address": consumer,
        "provider_address": provider,
        "protocol": "TCP",
        "port": 80,
        "dialled_address": provider,
        "dialled_port": 80,
        "kubernetes_cluster": cluster,
    }
    return json.dumps(told)


def read(folder: Path, *rows: str) -> tuple[Records, list[tuple[str, str]]]:
    """The rows, and the names at their ends."""
    inventory, flows = folder / "inventory.json", folder / "flows.jsonl"
    inventory.write_text(json.dumps(WHOLE))
    flows.write_text("\n".join(rows))
    held = recorded_inventory(inventory)
    seen = distinct_flows(flows, held, ())
    ends = ("first_consumer", "provider")
    names = [
        [
            held.timeline.revision(revision)[0].name if revision else ""
            for revision in seen.column(f"{end}_revision").tolist()
        ]
        for end in ends
    ]
    return seen, list(zip(*names, strict=True))


def test_rows_are_of_the_cluster_that_they_tell(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [row("10.1.0.2", "10.1.0.3", cluster) for cluster in ("east", "west")]
    assert read(tmp_path, *rows)[1] == [("front", "carts"), ("db", "cache")]
    assert capsys.readouterr().err == ""


def test_where_one_end_is_in_no_doubt_the_other_is_in_its_cluster(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    early = "2030-01-01T03:00:00Z"
    seen, names = read(tmp_path, row("10.1.0.9", "10.1.0.3", None, early))
    assert names == [("only-here", "carts")]
    assert seen.table["kubernetes_cluster"].to_pylist() == ["east"]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("rows", "names", "told"),
    [
        (
            [row("10.1.0.2", "10.1.0.3", None)] * 2,
            ("", ""),
            "2 rows of addresses that several Kubernetes clusters hold, and nothing tells in"
            " which they were seen: these are nobody's, such as 10.1.0.2 to 10.1.0.3 at " + NOON,
        ),
        (
            [row("10.1.0.9", "10.1.0.3", "east")],
            ("again", "carts"),
            "1 row of addresses that two pods of one Kubernetes cluster hold at once: the later"
            " counts, such as 10.1.0.9 to 10.1.0.3 in east at " + NOON,
        ),
        (
            [row("10.1.0.2", "203.0.113.9", "far")],
            ("", ""),
            None,
        ),
        (
            [row("10.1.0.2", "10.1.0.3", "east", "2029-12-31T12:00:00Z")],
            ("front", "carts"),
            (
                "1 row outside of the time that the inventory tells of, such as"
                " 10.1.0.2 to 10.1.0.3 in east at 2029-12-31T12:00:00Z"
            ),
        ),
    ],
)
def test_doubts_are_told_with_a_count_and_an_example(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    rows: list[str],
    names: tuple[str, str],
    told: str | None,
) -> None:
    assert set(read(tmp_path, *rows)[1]) == {names}
    lines = capsys.readouterr().err.splitlines()
    if told is not None:
        assert lines == [f"warning: {tmp_path}/flows.jsonl: {told}"]
        return
    unknown, shared = lines
    assert "1 row of Kubernetes clusters that the inventory has nothing of, taken" in unknown
    assert "1 row of addresses that several Kubernetes clusters hold" in shared
