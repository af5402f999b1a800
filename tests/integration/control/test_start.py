"""What stands in the way of a start is said, with what to do; and nothing stays behind."""

import asyncio
import contextlib
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import grpc
import pytest

from ringfence.control import server
from ringfence.control.config import Listen
from ringfence.control.errors import StartError
from ringfence.control.server import ControlPlane
from ringfence.link.enrolment import find_port
from ringfence.link.identity import LinkConfig
from ringfence.model.client import ClientKind
from ringfence.store.errors import StoreError
from ringfence.wire.generated import agent_pb2 as wire
from tests.integration.control.conftest import World, make_config
from tests.integration.control.test_enforcement import FakeNode
from tests.unit.control.shop import CLUSTER


async def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = Listen("127.0.0.1", taken.getsockname()[1])
        for option in ("http_listen", "grpc_listen"):
            plane = ControlPlane(make_config(tmp_path / option, **{option: listen}))
            with pytest.raises(StartError, match=f"{listen}.*--{option.replace('_', '-')}"):
                await plane.start()
            again = ControlPlane(make_config(tmp_path / option))
            await again.start()
            await again.stop()
            assert again.admin_token, "a failed start makes no token that nobody sees"


async def test_a_data_directory_has_one_owner_at_a_time(world: World, tmp_path: Path) -> None:
    second = ControlPlane(make_config(world.data_dir))
    with pytest.raises(StartError, match="in use by another control plane"):
        await second.start()
    assert (await world.http.get("/readyz")).status_code == 200
    blocked = tmp_path / "file"
    blocked.touch()
    with pytest.raises(StartError, match=r"cannot be used.*--data-dir"):
        await ControlPlane(make_config(blocked / "data")).start()


async def test_a_directory_that_others_use_is_left_as_it_is(tmp_path: Path) -> None:
    for name, mode, says in (("tmp", 0o1777, "everybody may write"), ("home", 0o755, "it holds")):
        directory = tmp_path / name
        directory.mkdir()
        (directory / "letter").touch()
        directory.chmod(mode)
        with pytest.raises(StartError, match=f"{says}.*--data-dir"):
            await ControlPlane(make_config(directory)).start()
        assert directory.stat().st_mode & 0o7777 == mode
        assert [path.name for path in directory.iterdir()] == ["letter"]


async def test_who_only_listens_is_not_waited_for_at_the_end(
    start: Callable[[], Awaitable[World]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_GRACE_SECONDS", 3600)
    world = await start()
    agent = FakeNode(await world.enrol("agent", "n1"))
    await agent.tell()
    await agent.directive()
    publishing = (await world.enrol("connector", "c")).Publish()
    at_ns = time.time_ns()
    gone = wire.InventoryEvent(kubernetes_cluster=CLUSTER, at_ns=at_ns, gone=f"{CLUSTER}/pod/x")
    await publishing.write(gone)
    assert (await publishing.read()).through_ns == at_ns
    async with asyncio.timeout(60):
        await world.plane.stop()
    assert await agent.call.read() is grpc.aio.EOF
    assert await publishing.read() is grpc.aio.EOF


async def test_nothing_is_ready_before_there_is_an_administrator(world: World) -> None:
    with contextlib.closing(sqlite3.connect(world.data_dir / "control.db")) as held, held:
        held.execute("DELETE FROM tokens")
    answer = await world.http.get("/readyz")
    assert (answer.status_code, answer.json()["detail"]) == (503, "the first start is under way")


async def test_a_failed_start_lets_go_of_everything(tmp_path: Path) -> None:
    gone = "postgresql://127.0.0.1:1/none"
    with pytest.raises(StoreError, match="cannot be used"):
        await ControlPlane(make_config(tmp_path / "data", database_url=gone)).start()
    plane = ControlPlane(make_config(tmp_path / "data"))
    await plane.start()
    assert (plane.admin_token or "").startswith("rf_")
    await plane.stop()


@pytest.mark.parametrize("option", ["http_listen", "grpc_listen"])
async def test_an_address_that_is_not_here_is_said(tmp_path: Path, option: str) -> None:
    elsewhere = Listen("192.0.2.1", 0)  # for documentation (RFC 5737), so nobody's
    with pytest.raises(StartError, match="no interface of this machine has that address"):
        await ControlPlane(make_config(tmp_path, **{option: elsewhere})).start()


def test_the_command_prints_the_token_once_and_ends_on_a_signal(tmp_path: Path) -> None:
    free = ["--http-listen", "127.0.0.1:0", "--grpc-listen", "127.0.0.1:0"]
    ringfence = Path(sys.executable).with_name("ringfence")
    command = [str(ringfence), "server", "--data-dir", str(tmp_path / "data"), *free]
    said = []
    for _ in range(2):
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert process.stderr is not None
        for line in process.stderr:
            if "ready" in line:
                break
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=30)
        assert process.returncode == 0
        said.append(out.strip())
    assert said[0].startswith("rf_")
    assert said[1] == ""


async def test_decisions_may_live_in_postgresql(tmp_path: Path, postgresql_url: str) -> None:
    for given in (True, False):
        plane = ControlPlane(make_config(tmp_path / "data", database_url=postgresql_url))
        await plane.start()
        assert (plane.admin_token is not None) is given
        await plane.stop()
    assert not (tmp_path / "data" / "control.db").exists()


async def test_where_clients_dial_is_told_to_who_has_no_token(world: World) -> None:
    config = LinkConfig(
        server=str(world.http.base_url),
        ca_file=world.data_dir / "ca.pem",
        token_file=world.data_dir / "none",
        state_dir=world.data_dir / "none",
        kind=ClientKind.AGENT,
        name="node1",
    )
    assert await find_port(config) == world.plane.grpc_port
