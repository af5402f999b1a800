"""Addresses and names of the lab's machines."""

from ringfence.lab.config import LabConfig
from ringfence.lab.relay import Forward
from ringfence.lab.shop.manifests import CARTS_CLUSTER_IP


def test_machines_have_addresses_of_their_own() -> None:
    config = LabConfig(nodes=3)
    assert [m.netns for m in config.machines] == [
        "rf-lab-control",
        "rf-lab-node1",
        "rf-lab-node2",
        "rf-lab-node3",
        "rf-lab-external",
    ]
    assert len({m.address for m in config.machines}) == 5
    assert all(n.pods.subnet_of(config.pods) for n in config.node_specs)
    assert config.node_specs[1].overlay_mac == "02:00:0a:4d:00:0c"
    assert config.external.address not in config.lan
    assert CARTS_CLUSTER_IP in map(str, config.services)


def test_forward_round_trips_with_ipv4_and_ipv6() -> None:
    for text, address in (("1=10.0.0.1:2", "10.0.0.1"), ("1=[fd00::1]:2", "fd00::1")):
        forward = Forward.parse(text)
        assert forward == Forward(1, address, 2)
        assert Forward.parse(str(forward)) == forward
