"""Who opened a connection, where tracking may have it the wrong way round."""

import pytest

from ringfence.agent.cut import as_opened
from ringfence.kernel import conntrack
from ringfence.kernel.conntrack import Entry
from ringfence.model.address import parse_address
from ringfence.model.protocol import TCP, UDP

POD, PEER = map(parse_address, ("10.0.0.2", "10.1.0.9"))
LISTENING = {(TCP, 50000), (TCP, 80), (UDP, 4000)}


@pytest.mark.parametrize(
    ("pod_port", "peer_port", "opener"),
    [
        (80, 40000, PEER),
        (50000, 40000, PEER),
        (80, 81, PEER),
        (40000, 80, POD),
        (8080, 40000, PEER),
        (40000, 40001, None),
        (8080, 8081, None),
    ],
)
def test_a_guess_is_mended_or_given_up(pod_port: int, peer_port: int, opener: bytes | None) -> None:
    """Whichever way it is tracked, by what listens here and by the ports of who dials."""
    entry = Entry(TCP, POD, PEER, pod_port, peer_port, guessed=True)
    for tracked in (entry, entry.reversed()):
        opened = as_opened(tracked, frozenset({POD}), LISTENING)
        assert (opened and opened.source) == opener


def test_what_tracking_knows_stands() -> None:
    """A client's UDP socket looks as if it listened, and TCP may dial from a port it listens on."""
    for protocol, port in ((UDP, 4000), (TCP, 80)):
        entry = Entry(protocol, POD, PEER, port, 53)
        assert as_opened(entry, frozenset({POD}), LISTENING) is entry


def test_an_entry_without_a_state_is_read() -> None:
    """The kernel tells none of a connection that passes by a flowtable."""
    entry = Entry(TCP, POD, PEER, 40000, 80)
    status = conntrack._attribute(conntrack._STATUS, bytes(4))
    payload = bytes(4) + conntrack._tuple(conntrack._TUPLE_ORIG, entry) + status
    assert conntrack._parse(payload) == entry
