"""Days without traffic are told only of time of which something is known."""

from pathlib import Path

from ringfence.control.continuous import KEPT_NS
from ringfence.control.hits import watched
from ringfence.model.ids import DEFAULT_TENANT, Version, WorkspaceName
from ringfence.store.relational.database import Database
from ringfence.store.relational.enforcement import Enforced, enforce
from ringfence.store.relational.verdicts import Analysis, begin_analysis

DAY = 24 * 3600 * 10**9
NOW = 20_000 * DAY
SHOP = WorkspaceName("shop"), Version(1)


async def spans(folder: Path, *sets: Enforced, asked_days_ago: int | None = None) -> list[int]:
    """Of the last 300 days, in whole days ago, when SHOP was watched."""
    database = Database(f"sqlite:///{folder}/x.db")
    await database.start()
    async with database.write() as connection:
        for one in sets:
            await enforce(connection, DEFAULT_TENANT, one)
        if asked_days_ago is not None:
            asked = Analysis(*SHOP, "ann", NOW - asked_days_ago * DAY)
            await begin_analysis(connection, DEFAULT_TENANT, asked)
    async with database.read() as connection:
        whole = NOW - 300 * DAY, NOW
        found = await watched(connection, DEFAULT_TENANT, SHOP, whole, NOW)
    await database.stop()
    return [(NOW - at) // DAY for span in found for at in span]


async def test_what_is_forgotten_is_not_known(tmp_path: Path) -> None:
    enforced = Enforced(1, (SHOP,), "ann", NOW - 250 * DAY)
    assert await spans(tmp_path, enforced) == [KEPT_NS // DAY, 0]


async def test_nothing_is_told_of_a_version_on_trial(tmp_path: Path) -> None:
    trial = Enforced(1, (SHOP,), "ann", NOW - 40 * DAY, NOW - 30 * DAY)
    assert await spans(tmp_path, trial, asked_days_ago=60) == [60, 40, 30, 0]
