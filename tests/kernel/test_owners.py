"""Processes at the ends of flows, as the whole agent reports them."""

import contextlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ringfence.agent.owners import SocketOwners
from ringfence.agent.pods import Place
from ringfence.flows.keys import join, octets
from ringfence.flows.owners import Owners
from ringfence.kernel.netns import inode
from ringfence.model.address import parse_address
from ringfence.model.protocol import TCP, UDP
from ringfence.wire.generated.agent_pb2 import DETAILED, Directive
from tests.kernel.netns import namespace
from tests.kernel.test_processes import running
from tests.kernel.world import Row, World

SERVER = """
call_me(b"parent")
address = sys.argv[1]
listener, datagrams = socket.socket(), socket.socket(type=socket.SOCK_DGRAM)
listener.bind(("0.0.0.0", 8080)); listener.listen()
datagrams.bind((address, 5300))
if not os.fork():
    call_me(b"worker")
    print(os.getpid(), flush=True)
    while True:
        connection, _ = listener.accept()
        while data := connection.recv(100):
            connection.sendall(data)
        connection.close()
os.wait()
"""
CLIENT = """
call_me(b"short\\xfflived")
address = sys.argv[1]
datagrams = socket.socket(type=socket.SOCK_DGRAM)
datagrams.sendto(b"x", (address, 5300))
with socket.create_connection((address, 8080)) as connection:
    connection.sendall(b"x")
    assert connection.recv(1) == b"x"
    print("answered", flush=True)
    time.sleep(float(sys.argv[2]))
"""
CONTAINER = "7e" * 32


@contextlib.contextmanager
def contained(pid: int) -> Iterator[None]:
    """A process in a cgroup such as a container runtime makes."""
    pids = Path("/sys/fs/cgroup/pids")
    top = pids if pids.is_dir() else Path("/sys/fs/cgroup")
    group, other = top / f"test-{os.getpid()}", Path(f"/proc/{pid}/cgroup").read_text()
    line = next(one for one in other.splitlines() if top != pids or ":pids:" in one)
    before = top / line.rpartition(":")[2].strip("/")
    (group / CONTAINER).mkdir(parents=True)
    try:
        (group / CONTAINER / "cgroup.procs").write_text(str(pid))
        yield
    finally:
        for left in (group / CONTAINER / "cgroup.procs").read_text().split():
            (before / "cgroup.procs").write_text(left)
        (group / CONTAINER).rmdir()
        group.rmdir()


def report_now(world: World) -> None:
    """End a window that would last for an hour."""
    world.say(Directive(interval_seconds=1))
    world.await_("a report", lambda: told(world, TCP) and told(world, UDP))


def told(world: World, protocol: int) -> list[Row]:
    ports = {TCP: 8080, UDP: 5300}
    return [
        row
        for row in world.flows()
        if (row["protocol"], row["provider_port"]) == (protocol, ports[protocol])
    ]


def ends(rows: list[Row]) -> set[tuple[object, ...]]:
    return {
        tuple(row[f"{end}_{what}"] for end in ("consumer", "provider") for what in
              ("process", "pid", "container"))
        for row in rows
    }  # fmt: skip


@pytest.mark.timeout(120)
def test_both_ends_are_named_though_the_client_is_gone_when_its_window_ends(world: World) -> None:
    (world.directory / "containers.json").write_text(json.dumps({CONTAINER: "web"}))
    world.say(Directive(interval_seconds=3600, mode=DETAILED))
    world.start_agent()
    world.await_("both pods seen", lambda: len(world.state().pods) == 2)
    world.await_("a long window", lambda: world.state().mode == DETAILED)
    client, server = world.node.pods
    with running(server, SERVER, server.address) as (parent, worker), contained(parent):
        with running(client, CLIENT, server.address, "8") as (pid, answered):
            assert answered == "answered"
            time.sleep(8)  # the agent looks once a second, or less often on a busy machine
        report_now(world)
        rows = {protocol: told(world, protocol) for protocol in (TCP, UDP)}
    consumer = ("short�lived", pid, "")
    assert ends(rows[TCP]) == {(*consumer, "worker", int(worker), "")}
    assert ends(rows[UDP]) == {(*consumer, "parent", parent, "web")}
    assert {row["interface"] for row in rows[TCP]} == {client.host_ifindex, server.host_ifindex}


def test_an_address_that_went_to_another_pod_takes_no_process_along() -> None:
    address = parse_address("127.0.0.1")

    def provider(owners: Owners) -> object:
        end = join(np.array([list(address)], np.uint8), octets(np.array([8080]), ">u2"))
        wire = np.stack([end, end])
        of_one = np.array([TCP], np.uint8), wire, wire, np.zeros(1, np.bool_)
        _, choice = owners.of(*of_one)
        return owners.columns("provider", choice)["provider_process"].tolist()

    with namespace("one") as one, namespace("other") as other:
        old, new = (Place(at.name, at.path, inode(at.path)) for at in (one, other))
        looks = SocketOwners()
        with running(one, SERVER, "127.0.0.1"):
            assert provider(looks.report([(old, [address])])[1]) == ["parent"]
        assert provider(looks.report([])[1]) == ["parent"], "its last packets may be told late"
        with running(one, SERVER, "127.0.0.1"):
            looks.report([(old, [address])])
        assert provider(looks.report([(new, [address])])[1]) == [""]
        assert provider(looks.report([(new, [address])])[1]) == [""]


@pytest.mark.timeout(120)
def test_without_the_right_to_look_nobody_is_named_and_the_log_says_so_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "tests.kernel.world.CAPABILITIES", "+bpf,+perfmon,+net_admin,+sys_admin"
    )  # fmt: skip
    world.start_agent()
    world.await_("both pods seen", lambda: len(world.state().pods) == 2)
    client, server = world.node.pods
    log = world.directory / "agent.log"
    with running(server, SERVER, server.address), running(client, CLIENT, server.address, "3"):
        world.await_("a report", lambda: told(world, TCP) and told(world, UDP))
        world.await_("a line in the log", lambda: "will not name processes" in log.read_text())
        shown = len(world.batches())
        world.await_("more reports", lambda: len(world.batches()) > shown + 2)
    assert ends(told(world, TCP)) == {("", 0, "", "", 0, "")}
    assert log.read_text().count("will not name processes") == 1
