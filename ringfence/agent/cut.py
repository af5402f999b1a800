"""Cuts the open connections that new rules deny, once those rules are in force.

Rules let what is established pass, so a connection outlives the policy that allowed it. Its
socket is destroyed, so that the programs at both ends learn at once; forgotten by connection
tracking, it is judged anew, as the middle of a connection that nobody opened.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import structlog

from ringfence.kernel import conntrack, sockets
from ringfence.kernel.conntrack import Entry
from ringfence.kernel.errors import NetlinkError
from ringfence.kernel.interfaces import link_local_addresses
from ringfence.kernel.sockets import Connection
from ringfence.model.address import Address
from ringfence.model.protocol import TCP
from ringfence.policy.program import NodeBinding, NodePolicy, PodBinding
from ringfence.policy.recheck import Opened, denied, denied_behind, denied_to

_AT_ONCE = 16_384
"""Tracked connections, of which a pod may have as many as it likes: some 4 MB."""
_EPHEMERAL = 32768
"""The first port that Linux gives to who dials (ip-sysctl.rst, ip_local_port_range)."""

log = structlog.get_logger()


def cut_denied(
    netns: Path, policy: NodePolicy, binding: PodBinding | NodeBinding, *, guarded: bool = False
) -> None:
    """Cut what the policy denies in the namespace of `binding`; raises KernelError.

    Its rules must be in force: the next packet of what is forgotten here meets them. Where the
    namespace is that of the node of a pod that it guards, `guarded` says so.
    """
    node = binding if isinstance(binding, NodeBinding) else None
    parting = node is not None and bool(policy.parting())
    if not (binding.inbound or binding.outbound or (node and node.received) or parting):
        return  # of the connections that a busy node tracks none need be asked about
    listening = {(held.protocol, held.port) for held in sockets.listening(netns)}
    if not guarded:  # the inventory knows no link-local ones
        links = link_local_addresses(netns) - {*binding.addresses}
        binding = replace(binding, addresses=(*binding.addresses, *sorted(links)))
    own = frozenset(binding.addresses)
    tracked = conntrack.entries(netns)
    while some := list(islice(tracked, _AT_ONCE)):
        seen = ((entry, as_opened(entry, own, listening)) for entry in some)
        known = [(entry, opened) for entry, opened in seen if opened is not None]
        columns = _columns([opened for _, opened in known])
        mask = denied(policy, binding, columns)
        if parting:
            mask |= denied_behind(policy, columns)
        if guarded and isinstance(binding, PodBinding):
            mask |= denied_to(policy, binding, columns)
        if mask.any():
            _cut(netns, [known[row][0] for row in np.flatnonzero(mask)])


def _cut(netns: Path, unwanted: Sequence[Entry]) -> None:
    # Sockets first: their resets are still those of an established connection, and pass.
    ends = {end for entry in unwanted if entry.protocol == TCP for end in _ends(entry)}
    cut = [_destroy(netns, end) for end in ends & sockets.connections(netns)]
    conntrack.delete(netns, unwanted)
    log.info("denied connections cut", netns=str(netns), tracked=len(unwanted), sockets=sum(cut))


def as_opened(
    entry: Entry, own: frozenset[Address], listening: set[tuple[int, int]]
) -> Entry | None:
    """The connection in the direction it was opened, None where nothing tells.

    Rules judge by the direction that is tracked, and that is a guess only for TCP older than
    tracking. `listening` are the (protocol, port) pairs on which the namespace, the holder of
    the addresses `own`, is dialled.
    """
    if not entry.guessed:
        return entry
    either = entry, entry.reversed()
    for one in either:
        if one.destination in own and (one.protocol, one.destination_port) in listening:
            return one
    for one in either:
        if one.destination_port < _EPHEMERAL <= one.source_port:
            return one
    return None


def _destroy(netns: Path, end: Connection) -> bool:
    """Destroy a socket; where the kernel cannot, its connection dies of silence."""
    try:
        return sockets.destroy(netns, end)
    except NetlinkError as error:
        log.warning("socket not destroyed", netns=str(netns), problem=str(error))
        return False


def _columns(opened: Sequence[Entry]) -> Opened:
    return Opened(
        protocol=np.array([entry.protocol for entry in opened], dtype=np.uint8),
        source=_octets([entry.source for entry in opened]),
        destination=_octets([entry.destination for entry in opened]),
        port=np.array([entry.destination_port for entry in opened], dtype=np.uint16),
        translated=np.array([entry.translated for entry in opened], dtype=np.bool_),
        reached=_octets([_reached(entry)[0] for entry in opened]),
        reached_port=np.array([_reached(entry)[1] for entry in opened], dtype=np.uint16),
    )


def _reached(entry: Entry) -> tuple[Address, int]:
    return entry.reached or (entry.destination, entry.destination_port)


def _ends(entry: Entry) -> tuple[Connection, Connection]:
    """The sockets that a tracked connection may have in its namespace."""
    near = entry.source, entry.source_port
    far = entry.destination, entry.destination_port
    return Connection(entry.protocol, *near, *far), Connection(entry.protocol, *far, *near)


def _octets(addresses: Sequence[Address]) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    return np.frombuffer(b"".join(addresses), dtype=np.uint8).reshape(-1, 16)
