"""The stand-in for SCTP of the lab's agnhost, as a firewall sees it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ringfence.lab import conformance
from tests.kernel.netns import Pod, node_with_pods

PROGRAM = Path(conformance.__file__).parent / "agnhost/sctp.py"


@contextmanager
def porter(pod: Pod, port: int) -> Iterator[None]:
    argv = ["ip", "netns", "exec", pod.name, sys.executable, str(PROGRAM), "porter"]
    with subprocess.Popen(argv, env=os.environ | {f"SERVE_SCTP_PORT_{port}": "foo"}) as process:
        try:
            yield
        finally:
            process.kill()


def connect(pod: Pod, address: str, port: int) -> str:
    """What it says of a failure."""
    words = ["connect", f"{address}:{port}", "--timeout=2s", "--protocol=sctp"]
    argv = ["ip", "netns", "exec", pod.name, sys.executable, str(PROGRAM), *words]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode == 0) is (done.stderr == "")
    return done.stderr.strip()


def test_an_init_is_answered_tracked_and_dropped_like_that_of_a_kernel() -> None:
    with node_with_pods(2) as node:
        client, server = node.pods
        server.nft(
            "table inet t { chain i { type filter hook input priority 0; policy drop;"
            " ct state established accept; ct state new sctp dport { 80, 81 } accept; }\n}"
        )
        client.nft(
            "table inet t { chain i { type filter hook input priority 0; policy drop;"
            " ct state established accept; }\n"
            "chain o { type filter hook output priority 0; sctp dport 82 drop; }\n}"
        )
        with porter(server, 80):
            assert connect(client, server.address, 80) == ""
            assert connect(client, server.address, 81) == "TIMEOUT"  # nobody answers there
            assert connect(client, server.address, 82) == "TIMEOUT"  # dropped on its way out
            assert connect(client, server.address, 83) == "TIMEOUT"  # dropped on arrival
