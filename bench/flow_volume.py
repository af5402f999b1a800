"""The bytes of a TCP transfer by the records against iperf3's own count, with GSO and GRO.

.venv/bin/python -m bench.flow_volume
"""

import json
import subprocess
import time
from collections.abc import Iterator

from bench.figures import Figure
from ringfence.flows.record import Hook
from ringfence.kernel.bpf import object_path
from ringfence.kernel.capture import FlowCapture
from tests.kernel.netns import Node, node_with_pods
from tests.kernel.observe import TCP, attach, pick

AMOUNT = "8G"
PORT = 5201
HEADERS = 20 + 20 + 12  # IPv4, TCP and its time stamps, in every packet but the SYN
MOST = 0.001


def figures() -> Iterator[Figure]:
    capture = FlowCapture(object_path("flow"))
    capture.open()
    try:
        with node_with_pods(2) as node:
            for pod in node.pods:
                node.run("ethtool", "-K", pod.host_device, "gro", "on")
            attach(capture, node)
            told = transfer(node)
            flows = capture.drain()
            client, server = node.pods
            sides = (client, Hook.INGRESS), (server, Hook.EGRESS)
            for (pod, hook), where in zip(sides, ("ingress", "egress"), strict=True):
                found = pick(flows, pod, hook, protocol=TCP, dport=PORT)
                data = found[found["bytes"].argmax()]  # the other one is iperf3's control
                counted = int(data["bytes"]) - HEADERS * int(data["packets"])
                off = abs(counted - told) / told
                segments = int(data["packets"]) / int(audited(capture, pod.host_ifindex, hook))
                what = f"volume off iperf3's count, {where}, {segments:.0f} segments an skb"
                yield Figure(what, "<= 0.1 %", f"{off:.5%} of {told:,} B", off <= MOST)
    finally:
        capture.close()


def audited(capture: FlowCapture, ifindex: int, hook: Hook) -> int:
    """Skbs that passed one side of an interface."""
    audit = capture.audit()
    return int(audit[(audit["ifindex"] == ifindex) & (audit["hook"] == hook)]["skbs"][0])


def transfer(node: Node) -> int:
    """Bytes that iperf3 says its client sent: its server stops counting before the last of them."""
    client, server = node.pods
    serve = ["ip", "netns", "exec", server.name, "iperf3", "-s", "-1"]
    with subprocess.Popen(serve, stdout=subprocess.DEVNULL) as serving:
        try:
            while f":{PORT}" not in server.run("ss", "-ltn"):
                time.sleep(0.05)
            told = client.run("iperf3", "-c", server.address, "-n", AMOUNT, "-J")
        finally:
            serving.kill()
    return int(json.loads(told)["end"]["sum_sent"]["bytes"])


def main() -> None:
    for what, _, measured, _ in figures():
        print(f"{what}: {measured}")


if __name__ == "__main__":
    main()
