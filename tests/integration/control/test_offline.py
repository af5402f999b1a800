"""What was exported gives, with no server, the proposal and the verdicts that live data give."""

import asyncio
import json
import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from ringfence.model.address import parse_address
from ringfence.model.protocol import UDP
from ringfence.wire.generated import agent_pb2 as wire
from tests.integration.control.conftest import COMMAND, World
from tests.integration.control.test_enforcement import publish
from tests.integration.control.test_flows_api import NODE, POD, apply, report, through_service
from tests.integration.world import CARTS2, DB, FRONT, ITEMS, NODE1, NODE2, OUTSIDE, pod

SCOPES = """
apiVersion: ringfence.io/v1alpha1
kind: Scope
metadata: {name: all}
spec: {query: everything}
"""
STRANGER = "203.0.113.77"
WHAT_IF = ("--if-enforced",)
DENYING = """
apiVersion: ringfence.io/v1alpha1
kind: Workspace
metadata: {name: all}
spec: {scope: all, catchAll: {inbound: DENY, outbound: DENY}}
"""
FILES = ("--inventory", "{i}", "--flows", "{bad}")
SHUT = ("--policies", "{shut}", "--inventory", "{i}", "--flows", "{empty}")
AFTER = (*(item for item in ITEMS if item.name != "user-db-1"), pod("other-1", DB, "node2"))


@pytest.fixture
async def seen(world: World) -> World:
    """Connections of every sort, before and after an address went from one pod to another."""
    connector = await world.enrol("connector", "c")
    stubs = {name: await world.enrol("agent", name) for name in ("node1", "node2")}
    await apply(world, SCOPES)
    for number, items in enumerate((ITEMS, AFTER)):
        await publish(connector, items)
        await asyncio.sleep(0.01)
        answer = wire.DnsAnswer(
            name="api.example", addresses=[parse_address(OUTSIDE)], ttl_seconds=300,
            at_ns=time.time_ns(), resolver=parse_address(NODE1),
        )  # fmt: skip
        await stubs["node1"].Resolve(wire.DnsAnswers(answers=[answer]))
        at: dict[str, Any] = {"first_ns": time.time_ns(), "last_ns": time.time_ns()}
        one, two = through_service(at)
        one.saw(POD, 7, FRONT, (DB, 3306), **at)
        two.saw(POD, 8, FRONT, (DB, 3306), **at)
        one.saw(POD, 7, FRONT, (OUTSIDE, 443), provider_dns_name="api.example", **at)
        one.saw(NODE, 2, NODE1, (FRONT, 8079), **at)
        two.saw(NODE, 2, NODE2, (CARTS2, 53), protocol=UDP, **at)
        one.saw(NODE, 2, FRONT, (OUTSIDE, 9), answered=0, refused=1, **at)
        one.saw(NODE, 2, OUTSIDE, (FRONT, 8079), (OUTSIDE, (NODE1, 31095)), **at)
        one.saw(NODE, 2, STRANGER, (NODE1, 31095), **at)
        two.dropped(FRONT, (CARTS2, 22), **at)
        for agent in (one, two):
            await report(stubs[agent.node], agent, f"{agent.node}-{number}")
        await asyncio.sleep(1.1)  # windows are told with the second in which they end
    return world


async def offline(*words: str) -> tuple[int | None, str, str]:
    """Run the command where there is no server."""
    process = await asyncio.create_subprocess_exec(
        COMMAND, *words, env={**os.environ, "RINGFENCE_SERVER": "https://127.0.0.1:1"},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, said = await process.communicate()
    return process.returncode, out.decode(), said.decode()


def facts(record: Any) -> str:
    """A record without what files do not tell: counts of TCP's flags, the second half of hops."""
    flow = dict(record["flow"])
    for way in ("forward", "reverse"):
        flow[way] = {name: flow[way][name] for name in ("packets", "bytes", "retransmitted")}
    decided = {
        role: one and (one["policy"], one["action"]) for role, one in record["deciding"].items()
    }
    told = (record["category"], record["conversations"], record["node"], record["allowed"])
    return json.dumps([*told, flow, decided], sort_keys=True)


async def test_files_give_what_live_data_give(seen: World, tmp_path: Path) -> None:
    inventory, flows = str(tmp_path / "inventory.yaml"), str(tmp_path / "flows.parquet")
    policies, scopes = tmp_path / "all.yaml", tmp_path / "scopes.yaml"
    code, live, live_said = await seen.run("discover", "all", "--since", "10m")
    assert code == 0, live_said
    assert "warning: less than two hours were seen" in live_said
    exported = await seen.run("inventory", "export", "--since", "10m", "--file", inventory)
    assert exported == (0, "", "")
    words = ("flows", "export", "--since", "10m", "-o", "parquet", "--file", flows)
    assert await seen.run(*words) == (0, "", "")

    files = ("--inventory", inventory, "--flows", flows)
    code, out, said = await offline("discover", *files)
    assert (code, said) == (0, live_said)
    scope, workspace = yaml.safe_load_all(out)
    assert scope["kind"] == "Scope"
    assert workspace == yaml.safe_load(live)
    scopes.write_text(SCOPES)
    code, out, _ = await offline("discover", *files, "--scopes", str(scopes), "--scope", "all")
    assert (code, out) == (0, live)

    # Something that passed is denied, so that every category has its case.
    workspace["spec"]["policies"] = [
        one
        for one in workspace["spec"]["policies"]
        if one["provider"] != {"service": "sock-shop/carts"}
    ]
    changed = yaml.safe_dump_all([scope, workspace])
    policies.write_text(changed)
    await apply(seen, yaml.safe_dump(workspace))
    _, out, _ = await seen.run("analyze", "all", "--since", "10m", "-o", "json")
    told = json.loads(out)
    code, out, said = await offline("analyze", "--policies", str(policies), *files, "-o", "json")
    assert (code, said) == (0, "")
    found = json.loads(out)
    assert found["counts"] == told["counts"]
    assert {name for name, count in found["counts"].items() if count} >= {"permitted", "escaped"}
    assert Counter(map(facts, found["records"])) == Counter(map(facts, told["records"]))
    assert found.keys() == told.keys()
    assert found["records"][0].keys() == told["records"][0].keys()
    names = {record["flow"]["provider"]["name"] for record in found["records"]}
    assert {"user-db-1", "other-1"} <= names, "each row is told of its own time"

    alone = [
        record["node"]
        for record in found["records"]
        if record["flow"]["consumer"]["address"] == STRANGER
        and not (record["deciding"]["consumer"] or record["deciding"]["provider"])
    ]
    assert alone == ["node1"], "nothing else decides of what goes no further than the node"
    code, out, said = await offline("analyze", "--policies", str(policies), *files)
    assert code == 0
    (line,) = (line for line in out.splitlines() if STRANGER in line)
    assert line.endswith(" at node1"), line
    assert said.startswith("all p1: permitted ")
    assert "are shown" not in said
    one_each = ("analyze", "--policies", str(policies), *files, "--limit", "1")
    code, out, said = await offline(*one_each)
    shown = Counter(line.split()[0] for line in out.splitlines()[1:])
    assert set(shown.values()) == {1}
    listed = Counter(one["category"] for one in found["records"])
    assert found["listed"] == {name: listed[name] for name in found["counts"]} == told["listed"]
    assert f"1 of {listed['permitted']} permitted" in said


async def test_files_tell_what_would_be_blocked_as_live_data_do(
    seen: World, tmp_path: Path
) -> None:
    inventory, flows = str(tmp_path / "inventory.yaml"), str(tmp_path / "flows.parquet")
    policies, accepted = tmp_path / "all.yaml", tmp_path / "accepted.yaml"
    policies.write_text(f"{SCOPES}---{DENYING}")
    await apply(seen, DENYING)
    await seen.run("inventory", "export", "--since", "10m", "--file", inventory)
    slots = ("--since", "10m", "--every", "1m", "-o", "parquet", "--file", flows)
    assert await seen.run("flows", "export", *slots) == (0, "", "")
    live_words = ("analyze", "all", "--since", "10m", *WHAT_IF)
    code, live, live_said = await seen.run(*live_words, "-o", "json")
    assert (code, live_said) == (2, "")
    files = ("--inventory", inventory, "--flows", flows, *WHAT_IF)
    words = ("analyze", "--policies", str(policies), *files)
    assert await offline(*words, "-o", "json") == (2, live, "")
    blocked = json.loads(live)["blocked"]
    assert len(blocked) > 3

    code, out, said = await offline(*words, "--accept", "2", "-o", "yaml")
    assert (code, said) == (0, "")
    (workspace,) = yaml.safe_load_all(out)
    assert workspace["spec"]["policies"] == [blocked[1]["policy"]]
    _, out, _ = await offline(*words, "--accept", "all")
    accepted.write_text(out)
    noise = [one["policy"]["id"] for one in blocked if one["noise"]]
    assert noise
    code, out, _ = await offline(*words, "--policies", str(accepted), "-o", "json")
    assert (code, [one["policy"]["id"] for one in json.loads(out)["blocked"]]) == (0, noise)
    every = ",".join(str(number + 1) for number in range(len(blocked)))
    _, out, _ = await offline(*words, "--accept", every)
    accepted.write_text(out)
    code, out, said = await offline(*words, "--policies", str(accepted))
    assert (code, out) == (0, "")
    assert "nothing that passes would be blocked" in said


async def test_files_tell_the_coverage_that_live_data_have(seen: World, tmp_path: Path) -> None:
    inventory, flows = str(tmp_path / "inventory.yaml"), str(tmp_path / "flows.parquet")
    await seen.run("inventory", "export", "--since", "10m", "--file", inventory)
    await seen.run("flows", "export", "--since", "10m", "-o", "parquet", "--file", flows)
    files = ("--inventory", inventory, "--flows", flows)
    code, out, said = await offline("coverage", *files, "-o", "json")
    assert (code, said) == (0, "")
    _, covered, _ = await seen.run("coverage", "all", "--since", "10m", "-o", "json")
    assert json.loads(out) == json.loads(covered)


async def test_slots_add_up_to_the_whole(seen: World) -> None:
    _, out, _ = await seen.run("flows", "export", "--since", "10m")
    whole = [json.loads(line) for line in out.splitlines()]
    _, out, _ = await seen.run("flows", "export", "--since", "10m", "--every", "1m")
    slots = [json.loads(line) for line in out.splitlines()]
    key = ("consumer_name", "provider_name", "provider_address", "port", "dialled_port")

    def sums(rows: list[Any]) -> Counter[tuple[str, ...]]:
        added: Counter[tuple[str, ...]] = Counter()
        for row in rows:
            for name in ("opened", "answered", "dropped", "forward_bytes", "refused"):
                added[*(row[one] for one in key), name] += row[name]
        return added

    assert sums(slots) == sums(whole)
    for wrong in ("1s", "2d", "x"):
        code, _, said = await seen.run("flows", "export", "--every", wrong)
        assert (code, said[:6]) == (3, "error:")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("discover",), 3, "name a scope"),
        (("discover", "--inventory", "{i}"), 3, "--inventory and --flows go together"),
        (("discover", "--inventory", "{i}", "--flows", "{none}"), 1, "no file"),
        (("discover", "--inventory", "{bad}", "--flows", "{bad}"), 1, "bad: not an inventory as"),
        (("discover", "--inventory", "{i}", "--flows", "{bad}"), 1, "bad: "),
        (("discover", "--inventory", "{dir}", "--flows", "{i}"), 1, "is a folder; name a file"),
        (
            ("discover", "--inventory", "{i}", "--flows", "{i}", "--approved", "{dir}"),
            1,
            "is a folder; name a file",
        ),
        (("lint", "{p}", "--inventory", "{dir}"), 1, "is a folder; name a file"),
        (("analyze", *SHUT), 0, "no connection in view"),
        (("analyze", *SHUT, *WHAT_IF, "--accept", "all"), 0, "there is nothing to accept"),
        (("analyze", *SHUT, *WHAT_IF), 2, "nothing passed that"),
        (("discover", *FILES, "--anew"), 3, "leave --anew out"),
        (("discover", *FILES, "--since", "1h"), 3, "--since: of files all is taken"),
        (("discover", *FILES, "--exclude", "name ="), 3, "filter, line 1, column 7"),
        (("discover", *FILES, "--scopes", "{p}", "--scope", "x"), 1, "there is no scope 'x'"),
        (("discover", "--inventory", "{i}", "--flows", "{empty}"), 2, "no connection was observed"),
        (("analyze", *FILES, "--policies", "{p}", "--until", "1h"), 3, "--until: of files"),
        (("analyze", "x", *FILES, "--policies", "{p}"), 1, "there is no workspace 'x'"),
        (("analyze", *FILES, "--policies", "{p}", "--accept", "1"), 3, "go with --if-enforced"),
        (("analyze", *FILES, "--policies", "{p}", "--yes"), 3, "leave --dry-run and --yes out"),
        (("analyze", *FILES, "--policies", "{p}", "--with", "x"), 3, "leave --with out"),
        (("analyze", *FILES, "--policies", "{p}", *WHAT_IF, "--limit", "9"), 3, "--limit out"),
        (("analyze", *FILES, "--policies", "{p}", *WHAT_IF, "--category", "escaped"), 3, "out"),
        (("analyze", "x", *FILES, "--policies", "{p}", "--workspace", "x"), 3, "named twice"),
        (("analyze", "--policies", "{p}"), 3, "--policies, --inventory and --flows go together"),
        (
            ("analyze", "--policies", "{p}", "--inventory", "{i}", "--flows", "{bad}"),
            1,
            "no workspace",
        ),
        (("analyze", *SHUT), 0, "the file of flows tells of no conversation"),
        (("coverage", "--inventory", "{i}"), 3, "--inventory and --flows go together"),
        (("coverage",), 3, "name a scope"),
        (("coverage", *FILES, "--since", "1h"), 3, "--since: of files all is taken"),
    ],
)
async def test_what_cannot_be_read_is_told(
    tmp_path: Path, words: tuple[str, ...], code: int, said: str
) -> None:
    texts = {"i": "[]", "bad": "bad", "p": SCOPES, "empty": "", "shut": f"{SCOPES}---{DENYING}"}
    paths = {name: tmp_path / name for name in (*texts, "none")} | {"dir": tmp_path}
    for name, text in texts.items():
        paths[name].write_text(text)
    found = await offline(*(word.format(**paths) for word in words))
    assert (found[0], said in found[2]) == (code, True), found
