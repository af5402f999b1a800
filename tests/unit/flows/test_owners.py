"""Whose the ends of conversations are: by the tuple that each end's own socket knows."""

from typing import Any

import numpy as np

from ringfence.flows.owners import Owners, Process, socket_keys
from ringfence.flows.record import Hook, Nat
from ringfence.model.address import parse_address
from ringfence.model.flow import Mode
from ringfence.model.protocol import TCP, UDP
from tests.unit.flows.test_orient import CLIENT, SECOND, SERVER, VIP, handshake, record, run

CURL, OLD, NGINX, WORKER = (
    Process(30, "curl", "shell"), Process(7, "old", "shell"),
    Process(5, "nginx", "web"), Process(90, "nginx", "web"),
)  # fmt: skip
NOBODY = Process(0, "", "")


def owners(*sockets: tuple[int, str, str, Process]) -> Owners:
    """Each socket is protocol, own `address:port`, the peer's, empty for any, and its process."""

    def ends(texts: list[str]) -> tuple[Any, Any]:
        split = [(text or ":::0").rpartition(":") for text in texts]
        addresses = [list(parse_address(address)) for address, _, _ in split]
        ports = [int(port) for _, _, port in split]
        return np.array(addresses, dtype=np.uint8), np.array(ports, dtype=np.uint16)

    protocols = np.array([row[0] for row in sockets], dtype=np.uint8)
    own, peers = ends([row[1] for row in sockets]), ends([row[2] for row in sockets])
    return Owners(socket_keys(protocols, own, peers), [row[3] for row in sockets])


def told(row: dict[str, Any], end: str) -> Process:
    return Process(row[f"{end}_pid"], row[f"{end}_process"], row[f"{end}_container"])


def both(*records: dict[str, Any], held: Owners, **how: Any) -> list[tuple[Process, Process]]:
    rows = run(*records, owners=held, **how)
    return [(told(row, "consumer"), told(row, "provider")) for row in rows]


def test_a_socket_of_its_own_goes_before_one_that_only_listened() -> None:
    listener = (TCP, f"{SERVER}:80", "", NGINX)
    own = (TCP, f"{CLIENT}:40000", f"{SERVER}:80", CURL)
    accepted = (TCP, f"{SERVER}:80", f"{CLIENT}:40000", WORKER)
    assert both(*handshake(40000), held=owners(listener)) == [(NOBODY, NGINX)]
    assert both(*handshake(40000), held=owners(listener, own, accepted)) == [(CURL, WORKER)]


def test_of_several_in_one_conversation_the_lowest_pid_counts_and_in_detail_each() -> None:
    held = owners(
        (TCP, f"{CLIENT}:40000", f"{SERVER}:80", CURL),
        (TCP, f"{CLIENT}:40001", f"{SERVER}:80", OLD),
    )
    window = (*handshake(40000), *handshake(40001), *handshake(40002))
    assert both(*window, held=held) == [(OLD, NOBODY)]
    detailed = {consumer for consumer, _ in both(*window, held=held, mode=Mode.DETAILED)}
    assert detailed == {CURL, OLD, NOBODY}


def test_a_consumer_knows_what_it_dialled_and_a_provider_what_arrives() -> None:
    """The same connection before and after a Service's translation, at two interfaces."""
    nat = {
        "nat": Nat.TRANSLATED, "original_src": CLIENT, "original_sport": 40000,
        "original_dst": VIP, "original_dport": 80, "ifindex": 2,
    }  # fmt: skip
    window = (
        record(f"{CLIENT}:40000", f"{VIP}:80", syn=1),
        record(f"{CLIENT}:40000", f"{SERVER}:8080", Hook.EGRESS, syn=1, **nat),
    )
    held = owners(
        (TCP, f"{CLIENT}:40000", f"{VIP}:80", CURL),
        (TCP, f"{SERVER}:8080", "", NGINX),
        # A process of the node that listens where the Service is answered: it gets nothing.
        (TCP, f"{VIP}:80", "", OLD),
    )
    rows = {row["provider"]: row for row in run(*window, owners=held)}
    assert {at: (told(row, "consumer"), told(row, "provider")) for at, row in rows.items()} == {
        VIP: (CURL, NOBODY), SERVER: (CURL, NGINX),
    }  # fmt: skip


def test_udp_sockets_without_a_peer_have_what_comes_and_what_goes() -> None:
    window = record(f"{CLIENT}:5000", f"{SERVER}:53", protocol=UDP, first_ns=SECOND)
    held = owners((UDP, f"{CLIENT}:5000", "", CURL), (UDP, f"{SERVER}:53", "", NGINX))
    assert both(window, held=held, services=frozenset({(UDP, 53)})) == [(CURL, NGINX)]
    # Of TCP a port that is listened on says nothing about connections from it.
    syn = record(f"{CLIENT}:5000", f"{SERVER}:53", syn=1)
    assert both(syn, held=owners((TCP, f"{CLIENT}:5000", "", CURL))) == [(NOBODY, NOBODY)]
