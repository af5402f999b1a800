"""Attaching beside others, by TCX and by the classic filters that older kernels need."""

import subprocess
from pathlib import Path

import pytest

from ringfence.flows.record import Hook
from ringfence.kernel.bpf import BpfObject
from ringfence.kernel.capture import FlowCapture
from ringfence.kernel.errors import BpfError
from ringfence.kernel.tc import ClsactFilters, TcxLinks
from tests.kernel.netns import Node, node_with_pods
from tests.kernel.traffic import ping


def programs(capture: FlowCapture) -> dict[Hook, int]:
    return {hook: capture.program_fd(f"ethernet_{hook.name.lower()}") for hook in Hook}


def test_a_program_that_ends_the_round_hides_nothing(capture: FlowCapture, tmp_path: Path) -> None:
    source, target = tmp_path / "accept.c", tmp_path / "accept.o"
    source.write_text('__attribute__((section("tc"), used)) int accept(void *skb) { return 0; }')
    subprocess.run(["clang", "-g", "-O2", "-target", "bpf", "-c", source, "-o", target], check=True)
    foreign = BpfObject(target, {})
    with node_with_pods(2) as node:
        one, two = node.pods
        accept = foreign.program_fd("accept")
        theirs = node.call(lambda: TcxLinks(one.host_ifindex, dict.fromkeys(Hook, accept)))
        node.call(lambda: capture.attach(one.host_ifindex))
        assert ping(one, two.address)
        flows = capture.drain()
        assert sorted(flows[flows["protocol"] == 1]["hook"].tolist()) == [Hook.INGRESS, Hook.EGRESS]
        theirs.close()
    foreign.close()


def qdisc(node: Node, device: str) -> str:
    return node.run("tc", "qdisc", "show", "dev", device, "clsact")


def test_filters_count_both_sides_and_take_their_qdisc_with_them(capture: FlowCapture) -> None:
    with node_with_pods(2) as node:
        one, two = node.pods
        filters = node.call(lambda: ClsactFilters(one.host_ifindex, programs(capture)))
        assert "clsact" in qdisc(node, one.host_device)
        assert ping(one, two.address)
        flows = capture.drain()
        counted = flows[(flows["ifindex"] == one.host_ifindex) & (flows["protocol"] == 1)]
        assert sorted(counted[["hook", "sport", "packets"]].tolist()) == [(0, 8, 1), (1, 0, 1)]
        node.call(filters.close)
        assert qdisc(node, one.host_device) == ""
        assert ping(one, two.address)
        assert not (capture.drain()["protocol"] == 1).any()


@pytest.mark.parametrize("ours_first", [True, False])
def test_what_others_attached_stays(ours_first: bool, capture: FlowCapture) -> None:
    """A loader that was killed, its successor and a foreign filter share an interface."""
    with node_with_pods(1) as node:
        pod = node.pods[0]
        device = pod.host_device
        foreign = ["tc", "filter", "add", "dev", device, "egress", "pref", "7",
                   "bpf", "bytecode", "1,6 0 0 0,"]  # fmt: skip
        if not ours_first:
            node.run("tc", "qdisc", "add", "dev", device, "clsact")
            node.run(*foreign)
        node.call(lambda: ClsactFilters(pod.host_ifindex, programs(capture)))
        if ours_first:
            node.run(*foreign)
        successor = node.call(lambda: ClsactFilters(pod.host_ifindex, programs(capture)))
        for hook in Hook:
            shown = node.run("tc", "filter", "show", "dev", device, hook.name.lower())
            assert shown.count(f"ethernet_{hook.name.lower()}"[:15] + ":[") == 1
        node.call(successor.close)
        assert "clsact" in qdisc(node, device)
        left = node.run("tc", "filter", "show", "dev", device, "egress")
        assert "pref 7" in left
        assert "ethernet_egress" not in left
        assert node.run("tc", "filter", "show", "dev", device, "ingress") == ""


def test_an_interface_that_is_gone(capture: FlowCapture) -> None:
    with node_with_pods(1) as node:
        pod = node.pods[0]
        filters = node.call(lambda: ClsactFilters(pod.host_ifindex, programs(capture)))
        node.run("ip", "link", "delete", pod.host_device)
        node.call(filters.close)
        with pytest.raises(BpfError, match="clsact qdisc on interface"):
            node.call(lambda: ClsactFilters(pod.host_ifindex, programs(capture)))
