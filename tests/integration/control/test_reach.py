"""`ringfence reach` and `ringfence diff --reach`, with a real control plane."""

from tests.integration.control.conftest import World
from tests.integration.control.test_enforce_command import files
from tests.integration.control.test_enforcement import publish
from tests.unit.control.shop import DB, DOCUMENTS, FRONT, NODE


async def test_reach_and_what_a_version_changes(world: World) -> None:
    await publish(await world.enrol("connector", "c"), [NODE, FRONT, DB])
    await world.ok("POST", "/apply", json=files())
    await world.ok("POST", "/apply", json=files(DOCUMENTS.replace("3306", "3307, 8000-8100")))
    code, out, said = await world.run("reach", "shop/db", "--with", "shop@p1", "-o", "csv")
    assert (code, out.splitlines()) == (
        0,
        [
            "DIRECTION,PEERS,CONNECTIONS",
            'outbound,"nodes, other addresses",any',
            "inbound,shop/*,TCP 3306",
        ],
    ), said
    everyone = await world.ok("GET", "/reach", params={"workload": "shop/db"})
    assert everyone["inbound"] == [
        {"names": ["nodes", "shop/*", "other addresses"], "connections": "any"}
    ]
    code, out, said = await world.run("diff", "--reach", "shop@p1", "shop@p2")
    assert code == 2, said
    assert [line.split(maxsplit=3) for line in out.splitlines()[1:]] == [
        ["gained", "shop/front", "shop/db", "TCP 3307, 8000-8100"],
        ["lost", "shop/front", "shop/db", "TCP 3306"],
    ]
    assert (await world.run("diff", "--reach", "shop@p1", "shop@p1"))[0] == 0
    code, _, said = await world.run("reach", "shop/nobody")
    assert (code, "'shop/nobody' is no pod" in said) == (1, True)
    assert (await world.run("diff"))[0] == 3
