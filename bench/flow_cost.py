"""What one packet costs in the flow program: nanoseconds a run, by BPF_PROG_TEST_RUN.

    .venv/bin/python bench/flow_cost.py

Runs in a network namespace of its own, every packet of a row in one flow that exists already.
A flow whose connection is tracked looks it up once; one without an entry, on every packet. A
tunnel's packet counts in two flows.
"""

from ringfence.kernel.bpf import object_path, run_on_frame
from ringfence.kernel.capture import FlowCapture
from tests.kernel.frames import A4, B4, ethernet, icmp, ipv4, ipv6, tcp, udp
from tests.kernel.netns import Namespace, namespace

REPEAT = 1_000_000
ROUNDS = 5
ACK = 0x10
INSIDE = tcp(1001, 80, ACK, bytes(100))
FRAMES = {
    "ARP": ethernet(0x0806, bytes(28)),
    "IPv4 ICMP, never looked up": ethernet(0x0800, ipv4(1, icmp(8, 0))),
    "IPv4 TCP, tracked": ethernet(0x0800, ipv4(6, tcp(1000, 80, ACK, bytes(100)))),
    "IPv4 TCP, no entry": ethernet(0x0800, ipv4(6, tcp(1001, 80, ACK, bytes(100)))),
    "IPv4 UDP, no entry": ethernet(0x0800, ipv4(17, udp(1000, 53, bytes(100)))),
    "IPv6 TCP, no entry": ethernet(0x86DD, ipv6(6, tcp(1000, 80, ACK, bytes(100)))),
    "IPv4 TCP in VXLAN, no entry": ethernet(
        0x0800, ipv4(17, udp(1000, 4789, bytes(8) + ethernet(0x0800, ipv4(6, INSIDE))))
    ),
    "IPv4 TCP in IP, no entry": ethernet(0x0800, ipv4(4, ipv4(6, INSIDE))),
}


def cost(where: Namespace, program: int, frame: bytes) -> int:
    """The best of some rounds: what disturbs a round can only make it slower."""
    return min(
        where.call(lambda: run_on_frame(program, frame, repeat=REPEAT)) for _ in range(ROUNDS)
    )


def main() -> None:
    capture = FlowCapture(object_path("flow"))
    capture.open()
    try:
        with namespace("bench") as where:
            where.run("conntrack", "-I", "-p", "tcp", "-s", A4, "-d", B4, "--sport", "1000",
                      "--dport", "80", "--state", "ESTABLISHED", "-t", "600")  # fmt: skip
            for name, frame in FRAMES.items():
                program = capture.program_fd("ethernet_ingress")
                print(f"{name:<28}{cost(where, program, frame):>5} ns")
            tracked = [flow for flow in capture.drain() if flow["nat"]]
            assert [int(flow["sport"]) for flow in tracked] == [1000]
    finally:
        capture.close()


if __name__ == "__main__":
    main()
