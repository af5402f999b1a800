"""What one packet costs in the flow program: nanoseconds a run, by BPF_PROG_TEST_RUN.

    make -C bpf bench && .venv/bin/python -m bench.flow_cost

Runs in a network namespace of its own, on flows that exist already. A flow whose connection is
tracked looks it up once; one without an entry on its first packets, and then now and then. A
tunnel's packet counts in two flows.
"""

import ctypes
from collections.abc import Callable, Iterator
from itertools import product

from bench.figures import Figure
from ringfence.kernel import libbpf
from ringfence.kernel.bpf import BpfObject, object_path, run_on_frame
from ringfence.kernel.capture import FlowCapture
from tests.kernel.frames import A4, B4, ethernet, icmp, ipv4, ipv6, tcp, udp
from tests.kernel.netns import Namespace, namespace

REPEAT = 1_000_000
ROUNDS = 5
ACK = 0x10
INSIDE = tcp(1001, 80, ACK, bytes(100))
SEGMENT = ethernet(0x0800, ipv4(6, tcp(1000, 80, ACK, bytes(100))))
FRAMES = {
    "ARP": ethernet(0x0806, bytes(28)),
    "IPv4 ICMP, never looked up": ethernet(0x0800, ipv4(1, icmp(8, 0))),
    "IPv4 TCP, tracked": SEGMENT,
    "IPv4 TCP, no entry": ethernet(0x0800, ipv4(6, tcp(1001, 80, ACK, bytes(100)))),
    "IPv4 UDP, no entry": ethernet(0x0800, ipv4(17, udp(1000, 4000, bytes(100)))),
    "IPv6 TCP, no entry": ethernet(0x86DD, ipv6(6, tcp(1000, 80, ACK, bytes(100)))),
    "IPv4 TCP in VXLAN, no entry": ethernet(
        0x0800, ipv4(17, udp(1000, 4789, bytes(8) + ethernet(0x0800, ipv4(6, INSIDE))))
    ),
    "IPv4 TCP in IP, no entry": ethernet(0x0800, ipv4(4, ipv4(6, INSIDE))),
}
# To a question for the address of a.example, one with one address: RFC 1035, section 4.
ANSWER = ethernet(0x0800, ipv4(17, udp(53, 1000, bytes.fromhex(
    "000181800001000100000000 016107 6578616d706c6500 0001 0001"
    "c00c 0001 0001 0000003c 0004 c0000201"
))))  # fmt: skip
THERE = ipv4(17, udp(1000, 53, bytes.fromhex(
    "000101000001000000000000 016107 6578616d706c6500 0001 0001"
)))  # fmt: skip
QUESTION = ethernet(0x0800, THERE[:12] + THERE[16:20] + THERE[12:16] + THERE[20:])
"""What `ANSWER` answers, the other way."""
LOOPBACK = 1
"""The ifindex that frames are run with."""
FIT = 5_000
"""Answers for which there is room until they are read."""
TARGETS = {64: 250, 50_000: 600}
"""Flows at a time, and the nanoseconds that a packet of theirs may take."""


def figures() -> Iterator[Figure]:
    capture = FlowCapture(object_path("flow"))
    capture.open()
    try:
        with namespace("bench") as where:
            program = capture.program_fd("ethernet_ingress")
            track(where, range(1000, 1001))
            for name, frame in FRAMES.items():
                cost = best(lambda frame=frame: run(where, program, frame))  # type: ignore[misc]
                yield Figure(f"packet of one flow: {name}", "", f"{cost} ns")
            assert [int(flow["sport"]) for flow in capture.drain() if flow["nat"]] == [1000]
            yield from dns_figures(where)
        for (flows, target), tracked in product(TARGETS.items(), (True, False)):
            with namespace("bench") as where:
                track(where, range(1, flows + 1) if tracked else range(0))
                cost = cost_among(where, program, flows)
                known = capture.drain()
                assert len(known) == flows
                assert known["nat"].all() if tracked else not known["nat"].any()
            what = f"packet of one of {flows:,} TCP flows, {'' if tracked else 'not '}tracked"
            yield Figure(what, f"<= {target} ns", f"{cost} ns", cost <= target)
    finally:
        capture.close()


def dns_figures(where: Namespace) -> Iterator[Figure]:
    """With an agent that reads DNS answers: another packet, and an answer that it reads."""
    capture = FlowCapture(object_path("flow"), dns=True)
    capture.open()
    try:
        other, program = FRAMES["IPv4 UDP, no entry"], capture.program_fd("ethernet_egress")
        cost = best(lambda: run(where, program, other))
        yield Figure("packet of one flow: IPv4 UDP, no entry, --dns", "", f"{cost} ns")
        capture.lead_to_pods([LOOPBACK])
        cost = best(lambda: run(where, capture.program_fd("ethernet_ingress"), QUESTION))
        yield Figure("packet of one flow: DNS question, --dns", "", f"{cost} ns")
        costs = []
        for _ in range(ROUNDS):
            costs.append(where.call(lambda: run_on_frame(program, ANSWER, repeat=FIT)))
            assert len(capture.answers(2 * FIT)) == FIT
        yield Figure("packet of one flow: DNS answer, --dns", "", f"{min(costs)} ns")
    finally:
        capture.close()


def best(measure: Callable[[], int]) -> int:
    """The least of some rounds: what disturbs a round can only make it slower."""
    return min(measure() for _ in range(ROUNDS))


def run(where: Namespace, program: int, frame: bytes) -> int:
    return where.call(lambda: run_on_frame(program, frame, repeat=REPEAT))


def track(where: Namespace, ports: range) -> None:
    """Have connections from these ports tracked."""
    where.run("conntrack", "--load-file", "-", stdin="".join(
        f"-I -p tcp -s {A4} -d {B4} --sport {port} --dport 80 --state ESTABLISHED -t 600\n"
        for port in ports
    ))  # fmt: skip


def cost_among(where: Namespace, program: int, flows: int) -> int:
    """What a packet costs if the next one is of another flow."""
    vary = BpfObject(object_path("vary"), {}, settings=flows.to_bytes(4, "little"))
    try:
        first = vary.program_fd("vary")
        alone = best(lambda: run(where, first, SEGMENT))
        libbpf.call(
            "bpf_map_update_elem", vary.map_fd("next"), ctypes.byref(ctypes.c_uint32(0)),
            ctypes.byref(ctypes.c_int(program)), 0, doing="chain the programs",
        )  # fmt: skip
        return best(lambda: run(where, first, SEGMENT)) - alone
    finally:
        vary.close()


def main() -> None:
    for what, _, measured, _ in figures():
        print(f"{what:<60}{measured:>10}")


if __name__ == "__main__":
    main()
