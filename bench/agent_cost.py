"""What an agent takes of its node with 100,000 live flows: processor time and memory.

    .venv/bin/python -m bench.agent_cost

A whole agent runs as a process of its own in a node's namespace, with a container runtime and a
control plane to talk to. Real packets make the flows: each second RATE records begin, half of them
SYNs from a pod, half of them the SYN-ACKs to it, so that a window of 15 s holds 150,000 (the agent
cuts it short when its map is half full, at 131,072). A flow is a record of the kernel: one way of
one connection at one interface. Connections of one window are not those of the window before.
"""

import os
import statistics
import struct
import tempfile
import time
from collections.abc import Iterable, Iterator
from itertools import cycle
from pathlib import Path

import pyarrow.compute as pc

from bench.figures import Figure, load
from ringfence.model.address import parse_address
from ringfence.model.flow import Loss
from ringfence.model.protocol import TCP
from ringfence.wire import batch
from ringfence.wire.generated.agent_pb2 import Directive
from tests.kernel.frames import ethernet, ipv4, tcp
from tests.kernel.txring import TxRing
from tests.kernel.world import World, world_in

WINDOW_SECONDS = 15
WINDOWS = 3
RATE = 10_240
PROVIDERS = 1_000
MOST_MB, MOST_PERCENT = 120, 3
PORT = 443
SYN, SYN_ACK = 0x02, 0x12
ADDRESSES_AT = 14 + 12


def figures() -> Iterator[Figure]:
    with (
        tempfile.TemporaryDirectory(prefix="ringfence-agent-cost-") as directory,
        world_in(Path(directory)) as world,
    ):
        yield from measured(world)


def measured(world: World) -> Iterator[Figure]:
    world.say(Directive(interval_seconds=WINDOW_SECONDS))
    turns = cycle([second_of_flows(world, at) for at in range(WINDOWS * WINDOW_SECONDS)])
    world.start_agent()
    pid = world.processes["agent"].pid
    world.await_("both pods seen", lambda: len(world.state().pods) == len(world.node.pods))
    idle = Course(pid)
    idle.follow(WINDOW_SECONDS, cycle([()]))
    what = f"agent without traffic ({load()})"
    yield Figure(what, "", f"{idle.percent()}; {idle.at_rest():.0f} MB")
    # The first window finds nothing known, and memory not grown yet.
    Course(pid).follow(WINDOW_SECONDS, turns)
    busy = Course(pid)
    busy.follow(WINDOWS * WINDOW_SECONDS, turns)
    user, rest = busy.user_percent, busy.at_rest()
    what = f"agent at {RATE:,} flows a second: user time"
    yield Figure(what, f"<= {MOST_PERCENT} %", f"{busy.percent()}; {load()}", user <= MOST_PERCENT)
    what = "agent with 100,000 live flows: resident between reports"
    private = f"{memory(pid, 'smaps_rollup', 'Anonymous'):.0f} MB of it anonymous"
    yield Figure(what, f"<= {MOST_MB} MB", f"{rest:.0f} MB ({private})", rest <= MOST_MB)
    yield Figure("… while it makes one, at most", "", f"{memory(pid, 'status', 'VmHWM'):.0f} MB")
    yield lost(world, (1 + WINDOWS) * WINDOW_SECONDS * RATE // 2)


class Course:
    """What a process takes while time passes."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.sizes: list[float] = []
        """Resident, MB, ten times a second."""
        self.user_percent = self.system_percent = 0.0
        """Of a core."""

    def follow(self, seconds: int, turns: Iterator[Iterable[TxRing]]) -> None:
        """Send one turn each second."""
        Path(f"/proc/{self._pid}/clear_refs").write_text("5")  # forget the highest size so far
        began, before = time.monotonic(), spent(self._pid)
        for second in range(1, seconds + 1):
            for ring in next(turns):
                ring.send()
            while time.monotonic() < began + second:
                self.sizes.append(memory(self._pid, "status", "VmRSS"))
                time.sleep(0.1)
        took = time.monotonic() - began
        self.user_percent, self.system_percent = (
            100 * (after - one) / took for one, after in zip(before, spent(self._pid), strict=True)
        )

    def at_rest(self) -> float:
        """The resident size half of the time: making a report takes far less."""
        return statistics.median(self.sizes)

    def percent(self) -> str:
        return f"{self.user_percent:.1f} % of a core, system {self.system_percent:.1f} %"


def second_of_flows(world: World, number: int) -> tuple[TxRing, TxRing]:
    """The SYNs and SYN-ACKs of RATE / 2 connections."""
    pod = world.node.pods[0]
    consumer = parse_address(pod.address)[-4:]
    ways: tuple[list[bytes], list[bytes]] = ([], [])
    for at in range(number * RATE // 2, (number + 1) * RATE // 2):
        port, provider = (
            1024 + at // PROVIDERS,
            struct.pack("!I", (198 << 24) + (18 << 16) + at % PROVIDERS),
        )
        there, back = tcp(port, PORT, SYN), tcp(PORT, port, SYN_ACK)
        for frames, ends, segment in zip(
            ways, (consumer + provider, provider + consumer), (there, back), strict=True
        ):
            frame = bytearray(ethernet(0x0800, ipv4(TCP, segment)))
            frame[ADDRESSES_AT : ADDRESSES_AT + 8] = ends
            frames.append(bytes(frame))
    return TxRing(pod, "eth0", ways[0]), TxRing(world.node, pod.host_device, ways[1])


def spent(pid: int) -> tuple[float, float]:
    """User and system time so far, s (proc_pid_stat(5), fields 14 and 15)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    tick = os.sysconf("SC_CLK_TCK")
    return int(fields[11]) / tick, int(fields[12]) / tick


def memory(pid: int, file: str, name: str) -> float:
    """A size of a process, MB (proc_pid_status(5), proc_pid_smaps(5))."""
    lines = Path(f"/proc/{pid}/{file}").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024 / 10**6


def lost(world: World, sent: int) -> Figure:
    """Connections that were opened and are in no report."""
    until = time.monotonic() + 2 * WINDOW_SECONDS
    while (missing := sent - told(world)) and time.monotonic() < until:
        time.sleep(1)
    full = world.state().audit.losses[Loss.FLOW_MAP_FULL]
    measured = f"{missing} of {sent:,}; {full} packets found no room"
    return Figure("connections lost meanwhile", "0", measured, not missing)


def told(world: World) -> int:
    """How many of our connections reports tell of."""
    reports = [batch.decode(batch.FLOWS, each.flows) for each in world.batches()]
    ours = [flows.filter(pc.field("provider_port") == PORT)["opened"] for flows in reports]
    return sum(pc.sum(opened).as_py() or 0 for opened in ours)


def main() -> None:
    for what, _, told, _ in figures():
        print(f"{what}: {told}")


if __name__ == "__main__":
    main()
