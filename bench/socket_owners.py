"""What it costs an agent to know whose sockets are.

Run as root: python bench/socket_owners.py PODS PROCESSES SOCKETS, for all pods together; prints the
processor time of looks, user's and system's.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack

from ringfence.agent.owners import SocketOwners
from ringfence.agent.pods import Place
from ringfence.kernel.netns import inode
from ringfence.model.address import parse_address
from tests.kernel.netns import namespace

POD = """
import os, signal, socket, sys
processes, sockets = int(sys.argv[1]), int(sys.argv[2])
listener = socket.socket()
listener.bind(("127.0.0.1", 80))
listener.listen(4096)
for _ in range(processes - 1):
    if not os.fork():
        signal.pause()
held = []
def connect(count):
    for _ in range(count):
        held.append(socket.create_connection(("127.0.0.1", 80)))
        held.append(listener.accept())
    print("ready", flush=True)
connect(sockets // 2)
for line in sys.stdin:
    connect(int(line))
"""


def timed(what: str, function: Callable[[], object], times: int = 1) -> None:
    began = time.process_time()
    for _ in range(times):
        function()
    print(f"{what}: {(time.process_time() - began) / times * 1e3:.0f} ms")


def main(pods: int, processes: int, sockets: int) -> None:
    with ExitStack() as stack:
        places, running = [], []
        for _ in range(pods):
            where = stack.enter_context(namespace("pod"))
            places.append(
                (Place(where.name, where.path, inode(where.path)), [parse_address("127.0.0.1")])
            )
            sizes = [str(processes // pods), str(sockets // pods)]
            pod = subprocess.Popen(
                ["nsenter", f"--net={where.path}", sys.executable, "-c", POD, *sizes],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
            )  # fmt: skip
            stack.callback(pod.wait)
            stack.callback(os.killpg, pod.pid, signal.SIGKILL)
            running.append(pod)
        await_(running)
        owners = SocketOwners()
        timed("first report", lambda: owners.report(places))
        timed("report, no new sockets", lambda: owners.report(places), 10)
        for pod in running:
            assert pod.stdin
            pod.stdin.write("5\n")
            pod.stdin.flush()
        await_(running)
        timed("report, ten new sockets in each pod", lambda: owners.report(places))
        began, used = time.monotonic(), time.process_time()
        while time.monotonic() < began + 60:
            time.sleep(1)
            owners.look_again(places)
        share = (time.process_time() - used) / (time.monotonic() - began)
        print(f"looks between reports: {share:.1%} of a processor")


def await_(pods: list[subprocess.Popen[str]]) -> None:
    for pod in pods:
        assert pod.stdout
        assert pod.stdout.readline() == "ready\n"


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
