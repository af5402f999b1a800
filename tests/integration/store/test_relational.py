"""What the relational store promises, on both of its engines."""

import asyncio
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, select

from ringfence.inventory.as_known import FOREVER
from ringfence.inventory.timeline import Change, Timeline
from ringfence.inventory.uploaded import make_upload
from ringfence.model.address import parse_address
from ringfence.model.flow import Mode
from ringfence.model.ids import (
    DEFAULT_TENANT,
    ClusterId,
    NodeName,
    ScopeName,
    TenantId,
    Version,
    WorkspaceName,
    item_key,
)
from ringfence.model.labels import make_labels
from ringfence.model.protocol import TCP
from ringfence.model.query import parse
from ringfence.model.scope import Scope
from ringfence.model.workload import Backend, Item, ItemKind, ServicePort, ServiceSpec, ServiceType
from ringfence.store.errors import StaleError, StoreError
from ringfence.store.relational import (
    changes,
    enforcement,
    modes,
    revisions,
    scopes,
    tokens,
    uploads,
    workspaces,
)
from ringfence.store.relational.database import Database
from ringfence.store.relational.tables import metadata

OTHER = TenantId("other")
SHOP = WorkspaceName("shop")


async def test_migrations_make_just_the_schema_of_the_tables(database: Database) -> None:
    def differences(connection: Connection) -> list[object]:
        return list(compare_metadata(MigrationContext.configure(connection), metadata))

    async with database.read() as connection:
        assert await connection.run_sync(differences) == []


async def test_starting_again_keeps_what_is_there(database: Database, url: str) -> None:
    token = tokens.Token("d", DEFAULT_TENANT, "ann", "admin", 1, None)
    async with database.write() as connection:
        assert not await tokens.any_token(connection)
        await tokens.add_token(connection, token)
    again = Database(url)
    await again.start()
    async with again.read() as connection:
        assert await tokens.find_token(connection, "d") == token
        assert await tokens.any_token(connection)
    await again.stop()


async def test_an_enrolment_token_is_used_as_often_as_it_says(database: Database) -> None:
    made = tokens.EnrolmentToken("d", DEFAULT_TENANT, "ann", "agent", ClusterId("lab"), 3, 100, 200)
    async with database.write() as connection:
        await tokens.add_enrolment_token(connection, made)

    async def use(now_ns: int) -> bool:
        async with database.write() as connection:
            return await tokens.use_enrolment_token(connection, "d", now_ns) is not None

    assert not await use(200)
    assert sum(await asyncio.gather(*(use(150) for _ in range(10)))) == 3
    async with database.read() as connection:
        assert not await tokens.is_enrolment_token(connection, "d", 150)


async def test_scopes_come_back_as_they_were_within_their_tenant(database: Database) -> None:
    root = Scope(ScopeName("all"), None, parse("everything"))
    shop = Scope(ScopeName("shop"), root.name, parse('a = "b" and not c exists'), 3)
    async with database.write() as connection:
        await scopes.put_scopes(connection, DEFAULT_TENANT, [shop, root], "ann", 1)
        await scopes.put_scopes(connection, OTHER, [root], "bob", 1)
    moved = replace(shop, order=1)
    async with database.write() as connection:
        await scopes.put_scopes(connection, DEFAULT_TENANT, [moved], "ann", 2)
    async with database.read() as connection:
        assert await scopes.all_scopes(connection, DEFAULT_TENANT) == [root, moved]
        assert await scopes.all_scopes(connection, OTHER) == [root]


async def test_versions_count_up_and_never_change(database: Database) -> None:
    head = workspaces.WorkspaceHead(SHOP, ScopeName("shop"), True, Version(1), "ann", 10)
    second = replace(head, latest=Version(2), actor="bob", changed_ns=20)
    for one in (head, second):
        async with database.write() as connection:
            await workspaces.add_version(connection, DEFAULT_TENANT, one, f"document {one.latest}")
    with pytest.raises(StaleError):
        async with database.write() as connection:
            await workspaces.add_version(connection, DEFAULT_TENANT, second, "another")
    async with database.read() as connection:
        assert await workspaces.heads(connection, DEFAULT_TENANT) == [second]
        kept = await workspaces.versions(connection, DEFAULT_TENANT, SHOP)
        assert [(one.version, one.document, one.actor) for one in kept] == [
            (2, "document 2", "bob"),
            (1, "document 1", "ann"),
        ]
        found = await workspaces.find_version(connection, DEFAULT_TENANT, SHOP)
        assert found == kept[0]
        found = await workspaces.find_version(connection, DEFAULT_TENANT, SHOP, Version(1))
        assert found == kept[1]
        assert await workspaces.find_version(connection, OTHER, SHOP) is None


async def test_what_is_enforced(database: Database) -> None:
    first = enforcement.Enforced(1, ((SHOP, Version(1)),), "ann", 100)
    off = enforcement.Enforced(2, (), "bob", 200)
    for one in (first, off):
        async with database.write() as connection:
            await enforcement.enforce(connection, DEFAULT_TENANT, one)
    with pytest.raises(StaleError):
        async with database.write() as connection:
            await enforcement.enforce(connection, DEFAULT_TENANT, replace(off, since_ns=300))
    async with database.read() as connection:
        now = enforcement.enforced_now
        assert await now(connection, DEFAULT_TENANT) == off
        assert await now(connection, OTHER) == enforcement.NEVER


async def test_the_version_before_is_found_over_gaps_and_stages(database: Database) -> None:
    one, two = ((SHOP, Version(1)),), ((SHOP, Version(2)),)
    for revision, pairs in enumerate((one, (), two, (), two), 1):
        staged = None if revision == 5 else 0
        held = enforcement.Enforced(revision, pairs, "ann", revision, staged)
        async with database.write() as connection:
            await enforcement.enforce(connection, DEFAULT_TENANT, held)
    async with database.write() as connection:
        await enforcement.spread(connection, DEFAULT_TENANT, 5, 9)
    async with database.read() as connection:
        before = enforcement.version_before
        assert await before(connection, DEFAULT_TENANT, SHOP, Version(2)) == 1
        assert await before(connection, DEFAULT_TENANT, SHOP, Version(1)) is None
        assert (await enforcement.enforced_now(connection, DEFAULT_TENANT)).staged_until_ns == 9


async def test_a_failed_transaction_leaves_nothing(database: Database) -> None:
    change = changes.Change(1, "ann", "192.0.2.1", "workspace/shop", "tried", "+ a\n- b")

    async def fail() -> None:
        async with database.write() as connection:
            await changes.add_change(connection, DEFAULT_TENANT, change)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await fail()
    async with database.read() as connection:
        assert await changes.find_changes(connection, DEFAULT_TENANT, changes.Sought(), 10) == []
    for number in (1, 2):
        async with database.write() as connection:
            await changes.add_change(connection, DEFAULT_TENANT, replace(change, at_ns=number))
    async with database.read() as connection:
        found = await changes.find_changes(connection, DEFAULT_TENANT, changes.Sought(), 1)
        assert [one for _, one in found] == [replace(change, at_ns=2)]


async def test_writers_that_wait_keep_no_reader_waiting(database: Database) -> None:
    async def write() -> None:
        async with database.write() as connection:
            await connection.execute(select(1))

    async with asyncio.TaskGroup() as tasks, database.write() as writer:
        await writer.execute(select(1))  # begins the transaction
        for _ in range(20):
            tasks.create_task(write())
        await asyncio.sleep(0.5)  # time enough to take all connections
        async with asyncio.timeout(10), database.read() as connection:
            await connection.execute(select(1))


async def test_no_writer_waits_for_ever(
    database: Database, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ringfence.store.relational.database._WAIT_SECONDS", 0.2)
    another = Database(url)
    await another.start()
    try:
        async with database.write() as writer:
            await writer.execute(select(1))
            for one in (database, another):
                with pytest.raises(StoreError):
                    async with asyncio.timeout(10), one.write() as waiting:
                        await waiting.execute(select(1))
        async with another.write() as writer:
            await writer.execute(select(1))
    finally:
        await another.stop()


async def test_changes_are_found_by_what_is_known_of_them(database: Database) -> None:
    made = [
        changes.Change(1, "ann", "192.0.2.1", "workspace/shop", "one", ""),
        changes.Change(2, "bob", "192.0.2.1", "scope/shop", "two", ""),
        changes.Change(3, "ann", "192.0.2.1", "scope/my_shop", "three", ""),
        changes.Change(4, "ann", "192.0.2.1", "scope/myxshop", "four", ""),
    ]
    async with database.write() as connection:
        for one in made:
            await changes.add_change(connection, DEFAULT_TENANT, one)

    async def find(limit: int = 10, **sought: Any) -> list[int]:
        async with database.read() as connection:
            found = await changes.find_changes(
                connection, DEFAULT_TENANT, changes.Sought(**sought), limit
            )
            assert await changes.find_changes(connection, OTHER, changes.Sought(), limit) == []
        return [change.at_ns for _, change in found]

    assert await find(object="shop") == [2, 1]
    assert await find(object="scope/shop") == [2]
    assert await find(object="my_shop") == [3]
    assert await find(object="%") == []
    assert await find(actor="ann", since_ns=1, until_ns=4) == [3, 1]
    async with database.read() as connection:
        (last, _), *_ = await changes.find_changes(connection, DEFAULT_TENANT, changes.Sought(), 1)
    assert await find(before=last, limit=2) == [3, 2]


async def test_a_timeline_comes_back_whole(database: Database) -> None:
    cluster = ClusterId("lab")
    pod = Item(
        key=item_key(cluster, ItemKind.POD, "1"),
        kind=ItemKind.POD,
        cluster=cluster,
        namespace="shop",
        name="carts",
        addresses=(parse_address("10.0.0.1"), parse_address("fd00::1")),
        labels=make_labels([("name", "carts"), ("CVE", "b"), ("cve", "a")]),
        probe_ports=((TCP, 80),),
    )
    backend = Backend("http", TCP, pod.addresses[0], 8080, True, pod.key)
    ports = (ServicePort("http", TCP, 80, 31095),)
    service = Item(
        key=item_key(cluster, ItemKind.SERVICE, "2"),
        kind=ItemKind.SERVICE,
        cluster=cluster,
        namespace="shop",
        name="carts",
        addresses=(parse_address("10.100.0.1"),),
        labels={},
        service=ServiceSpec(ServiceType.NODE_PORT, ports, (backend,)),
    )
    timeline = Timeline()
    told: list[Change] = [
        *timeline.observe(100, pod),
        *timeline.observe(110, service),
        *timeline.observe(200, replace(pod, labels={})),
        *timeline.gone(300, pod.key),
    ]
    for change in told:
        async with database.write() as connection:
            await revisions.put_revisions(connection, DEFAULT_TENANT, [change])
    async with database.read() as connection:
        again = Timeline()
        again.load(await revisions.load_revisions(connection, DEFAULT_TENANT))
        assert await revisions.load_revisions(connection, OTHER) == []
    for at_ns in (99, 100, 150, 200, 299, 300, FOREVER - 1):
        before, after = timeline.at(at_ns), again.at(at_ns)
        assert before.items == after.items
        assert before.revisions.tolist() == after.revisions.tolist()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("postgresql://nobody:secret@127.0.0.1:1/none", "nobody:***@127.0.0.1:1/none"),
        ("mysql://host/name", "use sqlite or postgresql"),
        ("what is this", "cannot be read: write postgresql://"),
    ],
)
async def test_a_database_that_cannot_be_used_is_named(url: str, says: str) -> None:
    with pytest.raises(StoreError, match=says.replace("*", r"\*")) as caught:
        await Database(url).start()
    assert "secret" not in str(caught.value)


async def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be used"):
        await Database(f"sqlite:///{tmp_path / 'no' / 'such' / 'directory.db'}").start()


@pytest.mark.parametrize(
    "url",
    [
        "swordfish",
        "postgresql://ann:swordfish@host:port/none",
        "postgresql://ann:sword/swordfish@host",
        "postgresql://ann:swordfish@127.0.0.1:1/none",
        "postgresql://127.0.0.1:1/none?password=swordfish",
    ],
)
async def test_no_message_repeats_a_password(url: str) -> None:
    with pytest.raises(StoreError) as caught:
        await Database(url).start()
    assert "swordfish" not in "".join(traceback.format_exception(caught.value))


async def test_the_last_choice_of_an_agents_mode_counts_within_its_tenant(
    database: Database,
) -> None:
    here, there = (ClusterId("lab"), NodeName("n1")), (ClusterId(""), NodeName("n1"))
    for tenant, node, mode in (
        (DEFAULT_TENANT, here, Mode.DETAILED),
        (DEFAULT_TENANT, there, Mode.DETAILED),
        (DEFAULT_TENANT, here, Mode.CONVERSATION),
        (OTHER, here, Mode.DETAILED),
    ):
        async with database.write() as connection:
            await modes.set_agent_mode(connection, tenant, node, mode, "ann", 1)
    async with database.read() as connection:
        held = await modes.agent_modes(connection, DEFAULT_TENANT)
    assert held == {here: Mode.CONVERSATION, there: Mode.DETAILED}


async def test_uploaded_labels_are_kept_by_network(database: Database) -> None:
    made = [
        uploads.Uploaded(make_upload(address, "n", {"site": "ö"}), "ann", at)
        for at, address in enumerate(("10.0.0.0/8", "10.0.0.1", "2001:db8::/32"))
    ]
    again = replace(made[1], upload=make_upload("10.0.0.1", "", {}), actor="bob")
    async with database.write() as connection:
        await uploads.put_uploads(connection, DEFAULT_TENANT, made)
        await uploads.put_uploads(connection, OTHER, made[:1])
        await uploads.put_uploads(connection, DEFAULT_TENANT, [again])
        await uploads.remove_uploads(connection, DEFAULT_TENANT, [made[0].upload.network])
    async with database.read() as connection:
        kept = await uploads.load_uploads(connection, DEFAULT_TENANT)
        assert kept == {one.upload.network: one for one in (again, made[2])}
        assert list((await uploads.load_uploads(connection, OTHER)).values()) == made[:1]
