"""Processes at the ends of flows, as the whole agent reports them."""

import contextlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ringfence.agent.owners import Places, SocketOwners
from ringfence.agent.pods import Place
from ringfence.flows.keys import join, octets
from ringfence.flows.owners import Owners
from ringfence.kernel.netns import inode
from ringfence.model.address import parse_address
from ringfence.model.protocol import TCP, UDP
from ringfence.wire.generated.agent_pb2 import DETAILED, Directive
from tests.kernel.netns import Namespace, namespace
from tests.kernel.test_processes import running
from tests.kernel.world import Row, World

SERVER = """
call_me(b"parent")
address, *container = sys.argv[1:]
for cgroup in container:
    open(cgroup, "w").write("0")
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
    signal.pause()
"""
LISTENER = """
open(sys.argv[1], "w").write("0")
listener = socket.socket()
listener.bind(("127.0.0.1", 1)); listener.listen()
print(flush=True)
signal.pause()
"""
GREEDY = """
held = [socket.socket(type=socket.SOCK_DGRAM) for _ in range(40)]
for port, each in enumerate(held, 1):
    each.bind(("127.0.0.1", port))
print(flush=True)
signal.pause()
"""
WEB, BATCH = "7e" * 32, "8f" * 32


@contextlib.contextmanager
def container(name: str) -> Iterator[str]:
    """A cgroup such as a container runtime makes: the file by which processes join it."""
    pids = Path("/sys/fs/cgroup/pids")
    top = pids if pids.is_dir() else Path("/sys/fs/cgroup")
    group, ours = top / f"test-{os.getpid()}-{name}", Path("/proc/self/cgroup").read_text()
    line = next(one for one in ours.splitlines() if top != pids or ":pids:" in one)
    before = top / line.rpartition(":")[2].strip("/")
    group.mkdir()
    try:
        yield str(group / "cgroup.procs")
    finally:
        until = time.monotonic() + 10
        while group.exists():
            with contextlib.suppress(OSError):  # killed, and not gone yet
                for left in (group / "cgroup.procs").read_text().split():
                    (before / "cgroup.procs").write_text(left)
                group.rmdir()
            assert time.monotonic() < until, "processes stay in the cgroup"
            time.sleep(0.01)


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
    """An agent that asks what a container is called has looked: it saw a socket in one."""
    (world.directory / "containers.json").write_text(json.dumps({WEB: "web"}))
    world.say(Directive(interval_seconds=3600, mode=DETAILED))
    client, server = world.node.pods
    with (
        container(WEB) as web,
        container(BATCH) as batch,
        running(server, SERVER, server.address, web) as (parent, worker),
    ):
        world.start_agent()
        world.await_("the containers that are there", lambda: asked(world) == 1)
        world.await_("a long window", lambda: world.state().mode == DETAILED)
        with running(client, CLIENT, server.address) as (pid, answered):
            assert answered == "answered"
            with running(client, LISTENER, batch):
                world.await_("a look at the client's pod", lambda: asked(world) == 2)
        report_now(world)
        rows = {protocol: told(world, protocol) for protocol in (TCP, UDP)}
    consumer = ("short�lived", pid, "")
    assert ends(rows[TCP]) == {(*consumer, "worker", int(worker), "web")}
    assert ends(rows[UDP]) == {(*consumer, "parent", parent, "web")}
    assert {row["interface"] for row in rows[TCP]} == {client.host_ifindex, server.host_ifindex}


def asked(world: World) -> int:
    """How many times the runtime was asked for its containers."""
    path = world.directory / "asked"
    return len(path.read_text().splitlines()) if path.exists() else 0


def provider(owners: Owners, address: str) -> tuple[str, str]:
    """Who answers TCP on port 8080: process and container."""
    end = join(np.array([list(parse_address(address))], np.uint8), octets(np.array([8080]), ">u2"))
    wire = np.stack([end, end])
    of_one = np.array([TCP], np.uint8), wire, wire, np.zeros(1, np.bool_)
    _, choice = owners.of(*of_one)
    found = owners.columns("provider", choice)
    return found["provider_process"][0], found["provider_container"][0]


def place(where: Namespace) -> Place:
    return Place(where.name, where.path, inode(where.path))


def test_an_address_that_went_to_another_pod_takes_no_process_along() -> None:
    address = parse_address("127.0.0.1")

    def process(looks: SocketOwners, places: Places) -> str:
        return provider(looks.report(places)[1], "127.0.0.1")[0]

    with namespace("one") as one, namespace("other") as other:
        old, new = place(one), place(other)
        looks = SocketOwners()
        with running(one, SERVER, "127.0.0.1"):
            assert process(looks, [(old, [address])]) == "parent"
        assert process(looks, []) == "parent", "its last packets may be told late"
        with running(one, SERVER, "127.0.0.1"):
            looks.report([(old, [address])])
        assert process(looks, [(new, [address])]) == ""
        assert process(looks, [(new, [address])]) == ""


def test_a_pod_with_more_sockets_than_are_kept_costs_no_other_pod_a_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ringfence.agent.owners._MOST_SOCKETS", 16)
    with namespace("greedy") as greedy, namespace("modest") as modest:
        places = [
            (place(greedy), [parse_address("127.0.0.1")]),
            (place(modest), [parse_address("127.0.0.2")]),
        ]
        looks = SocketOwners()
        with running(greedy, GREEDY):
            looks.look_again(places)
            with running(modest, SERVER, "127.0.0.2"):
                _, owners = looks.report(places)
    assert provider(owners, "127.0.0.2") == ("parent", "")


def test_a_container_that_a_look_finds_while_the_runtime_is_asked_is_asked_about_as_well() -> None:
    places = []
    looks = SocketOwners()
    with (
        namespace("one") as one,
        namespace("other") as other,
        container(WEB) as web,
        container(BATCH) as batch,
    ):
        places.append((place(one), [parse_address("127.0.0.1")]))
        with running(one, SERVER, "127.0.0.1", web):
            looks.report(places)
            asked = looks.unnamed()
            assert WEB in asked
            places.append((place(other), [parse_address("127.0.0.2")]))
            with running(other, SERVER, "127.0.0.2", batch):
                looks.report(places)
                looks.name(asked, {WEB: "web"})
                asked = looks.unnamed()
                assert BATCH in asked
                looks.name(asked, {WEB: "web", BATCH: "batch"})
                assert not looks.unnamed()
                _, owners = looks.report(places)
    assert provider(owners, "127.0.0.1") == ("parent", "web")
    assert provider(owners, "127.0.0.2") == ("parent", "batch")


@pytest.mark.timeout(120)
def test_without_the_right_to_look_nobody_is_named_and_the_log_says_so_once(
    world: World,
) -> None:
    world.start_agent(capabilities="+bpf,+perfmon,+net_admin,+sys_admin")
    world.await_("both pods seen", lambda: len(world.state().pods) == 2)
    client, server = world.node.pods
    log = world.directory / "agent.log"
    with running(server, SERVER, server.address), running(client, CLIENT, server.address):
        world.await_("a report", lambda: told(world, TCP) and told(world, UDP))
        world.await_("a line in the log", lambda: "will not name processes" in log.read_text())
        shown = len(world.batches())
        world.await_("more reports", lambda: len(world.batches()) > shown + 2)
    assert ends(told(world, TCP)) == {("", 0, "", "", 0, "")}
    assert log.read_text().count("will not name processes") == 1
