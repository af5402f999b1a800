"""`ringfence lint`, `fmt` and `schema`: against a real control plane, and without one."""

import json
import time
from dataclasses import replace
from pathlib import Path

from ringfence.model.protocol import TCP
from ringfence.model.workload import ContainerPort
from tests.integration.control.conftest import World
from tests.integration.control.test_enforcement import publish
from tests.unit.control.shop import DB, DOCUMENTS, FRONT, NODE

TWICE = (
    DOCUMENTS
    + """\
  - id: again
    action: DENY
    consumer: {filter: 'name = "front"'}
    provider: {filter: 'name = "db"'}
    protocol: TCP
    ports: [3306]
    priority: 5
"""
)


async def test_findings_of_the_control_plane(world: World) -> None:
    await publish(await world.enrol("connector", "c"), [NODE, FRONT, DB])
    await world.ok("POST", "/apply", json={"files": [{"name": "f", "documents": TWICE}]})
    why = "shop/again decides all its connections before it, and says DENY, not ALLOW"
    code, out, _ = await world.run("lint")
    assert code == 2
    assert out.splitlines() == [
        "FINDING        POLICY            WHY",
        f"contradictory  shop/front-to-db  {why}",
    ]
    _, out, _ = await world.run("lint", "--unused", "1h", "-o", "json")
    assert [(one["kind"], one["policy"]) for one in json.loads(out)] == [
        ("contradictory", "front-to-db"),
        ("unused", "front-to-db"),
        ("unused", "again"),
    ]


async def test_findings_of_files_have_their_place(world: World, tmp_path: Path) -> None:
    await publish(await world.enrol("connector", "c"), [NODE, FRONT, DB])
    why = "shop/again decides all its connections before it, and says DENY, not ALLOW"
    file, inventory = tmp_path / "shop.yaml", tmp_path / "inventory.json"
    file.write_text(TWICE)
    inventory.write_text((await world.run("inventory", "-o", "json"))[1])
    for more in ((), ("--inventory", str(inventory))):
        code, out, said = await world.run("lint", str(file), *more, "-o", "sarif")
        assert (code, said) == (2, "")
        (run,) = json.loads(out)["runs"]
        (result,) = run["results"]
        assert result["ruleId"] in {rule["id"] for rule in run["tool"]["driver"]["rules"]}
        assert result["message"]["text"] == f"shop/front-to-db: {why}"
        place = result["locations"][0]["physicalLocation"]
        line = place["region"]["startLine"]
        assert place["artifactLocation"]["uri"] == str(file)
        assert TWICE.splitlines()[line - 1] == "  - id: front-to-db"
    file.write_text(DOCUMENTS.replace("3306", "X"))
    code, _, said = await world.run("lint", str(file))
    line = DOCUMENTS.splitlines().index("    ports: [3306]") + 1
    assert (code, said.split(" ")[1]) == (1, f"{file}:{line}:")


async def test_an_inventory_of_a_file_knows_the_names_of_ports(
    world: World, tmp_path: Path
) -> None:
    database = replace(DB, containers=(ContainerPort("mysql", TCP, 3306),))
    await publish(await world.enrol("connector", "c"), [NODE, FRONT, database])
    file, inventory = tmp_path / "shop.yaml", tmp_path / "inventory.json"
    inventory.write_text((await world.run("inventory", "-o", "json"))[1])
    asked = ("lint", str(file), "--inventory", str(inventory), "-o", "json")
    for name, kinds in (("mysql", ["contradictory"]), ("postgres", ["matches-nothing"])):
        file.write_text(TWICE.replace("[3306]", f"[{name}]", 1))
        code, out, _ = await world.run(*asked)
        assert [one["kind"] for one in json.loads(out)] == kinds
        assert code == (2 if kinds else 0)


async def test_apply_and_diff_tell_what_changed_policies_name_in_vain(
    world: World, tmp_path: Path
) -> None:
    file = tmp_path / "shop.yaml"
    vain = DOCUMENTS.replace('name = "db"', 'name = "dbb"')
    file.write_text(vain)
    code, _, said = await world.run("apply", "-f", str(file), "--dry-run")
    assert (code, said) == (0, "")  # nothing is known of anybody
    await publish(await world.enrol("connector", "c"), [NODE, FRONT, DB])
    warning = "warning: shop/front-to-db: provider: it matches no workload\n"
    code, _, said = await world.run("diff", "-f", str(file))
    assert (code, said) == (2, warning)
    code, _, said = await world.run("apply", "-f", str(file))
    assert (code, said) == (0, warning)
    code, _, said = await world.run("apply", "-f", str(file))
    assert (code, said) == (0, "")  # what did not change is not told again
    assert (await world.run("lint"))[0] == 2


async def test_policies_that_expire_are_found_in_time(world: World, tmp_path: Path) -> None:
    await publish(await world.enrol("connector", "c"), [NODE, FRONT, DB])
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 10 * 86_400))
    file, inventory = tmp_path / "shop.yaml", tmp_path / "inventory.json"
    inventory.write_text((await world.run("inventory", "-o", "json"))[1])
    for expires, more, kinds in (
        (at, (), []),
        (at, ("--expiring", "9d"), []),
        (at, ("--expiring", "11d"), ["expiring"]),
        ("2026-01-31", (), ["expired"]),
    ):
        lent = f"action: ALLOW\n    expires: {expires}\n"
        file.write_text(DOCUMENTS.replace("action: ALLOW\n", lent))
        await world.ok("POST", "/apply", json={
            "files": [{"name": "f", "documents": file.read_text()}]
        })  # fmt: skip
        for where in ((), (str(file), "--inventory", str(inventory))):
            code, out, said = await world.run("lint", *where, *more, "-o", "json")
            assert [one["kind"] for one in json.loads(out)] == kinds, said
            assert code == (2 if kinds else 0)
    assert (await world.run("lint", "--expiring", "soon"))[0] in {1, 3}


async def test_lint_is_silent_where_nothing_is_odd(world: World, tmp_path: Path) -> None:
    file, inventory = tmp_path / "shop.yaml", tmp_path / "inventory.json"
    file.write_text(DOCUMENTS)
    for words in ([str(file)], ["-f", str(file)]):
        assert await world.run("lint", *words) == (0, "", "nothing is odd\n")
    inventory.write_text("[{}]")
    assert (await world.run("lint", str(file), "--inventory", str(inventory)))[0] == 1
    assert (await world.run("lint", "--workspace", "nothing"))[0] == 1


async def test_files_are_formatted_in_place(world: World, tmp_path: Path) -> None:
    file, bad = tmp_path / "shop.yaml", tmp_path / "worse.yaml"
    text = DOCUMENTS.replace("metadata: {name: all}", "metadata: {name: all}  # the root")
    file.write_text(text)
    assert (await world.run("fmt", "--check", str(tmp_path)))[:2] == (2, f"{file}\n")
    assert file.read_text() == text
    bad.write_text("kind: Scope")
    code, _, said = await world.run("fmt", str(tmp_path))
    assert code == 1
    assert str(bad) in said
    assert file.read_text() == text
    bad.unlink()
    assert (await world.run("fmt", str(tmp_path)))[:2] == (0, f"{file}\n")
    assert "  name: all  # the root\n" in file.read_text()
    assert (await world.run("fmt", "--check", str(tmp_path)))[:2] == (0, "")
    # Formatting says the same.
    await world.ok("POST", "/apply", json={"files": [{"name": "f", "documents": DOCUMENTS}]})
    assert (await world.run("diff", "-f", str(file)))[0] == 0
    code, out, _ = await world.run("schema")
    assert (code, json.loads(out)["title"]) == (
        0,
        "Ringfence scope, filter, address set or workspace",
    )
