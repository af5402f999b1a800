"""Ports as rules have them."""

from ringfence.model.protocol import ICMP, TCP, PortRange, disjoint


def test_ports_are_made_disjoint_and_messages_left_alone() -> None:
    given = [PortRange(443, 443), PortRange(80, 80), PortRange(80, 90), PortRange(91, 92)]
    assert disjoint(TCP, given) == (PortRange(80, 92), PortRange(443, 443))
    assert disjoint(TCP, [PortRange(0, 65535), PortRange(80, 80)]) == (PortRange(0, 65535),)
    messages = (PortRange(0x0300, 0x03FF), PortRange(0x0400, 0x0400))
    assert disjoint(ICMP, messages) == messages
