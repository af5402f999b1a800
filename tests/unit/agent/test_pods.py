from ringfence.agent.pods import own_links
from ringfence.kernel.interfaces import Interface
from ringfence.model.address import parse_address, parse_network
from ringfence.policy.program import LINK_LOCAL, Gate, Passage

GATE = Gate((parse_network("10.244.1.0/24"),), None, ())


def interface(name: str, kind: str, address: str = "") -> Interface:
    addresses = frozenset([parse_address(address)] if address else [])
    return Interface(1, name, kind, True, None, None, addresses, in_network=bool(addresses))


def test_links_of_the_nodes_own_are_those_of_other_networks_than_its_pods() -> None:
    interfaces = (
        interface("eth0", "veth", "192.0.2.1"),  # the uplink of a node that is a container
        interface("br0", "bridge", "198.51.100.1"),
        interface("cni0", "bridge", "10.244.1.1"),
        interface("veth1", "veth", "10.244.1.1"),
        interface("new", "veth"),
        interface("eno1", "", "203.0.113.1"),  # no kind that leads to pods
    )
    own = {Passage(name, LINK_LOCAL.address) for name in ("eth0", "br0")}
    assert own_links(interfaces, GATE) == own
    assert not own_links(interfaces, None)
