"""Which connections that are open already new rules deny: those are to be cut.

Rules judge connections as they open; what is open has passed. So the same programs are held here
against the connections that a namespace tracks, many at a time.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ringfence.model.address import Address, Network
from ringfence.model.policy import Action, Direction
from ringfence.model.protocol import PortRange
from ringfence.policy.program import (
    Behind,
    Exposure,
    NodeBinding,
    NodePolicy,
    PodBinding,
    Rule,
    SetId,
    as_programs,
)

Mask = NDArray[np.bool_]
_ADDRESS = "S16"
"""numpy drops trailing zero bytes, of all alike: equality and order stay those of 16 bytes."""


@dataclass(frozen=True)
class Opened:
    """n connections as a namespace sees them, in the direction they were opened, before NAT."""

    protocol: NDArray[np.uint8]
    source: NDArray[np.uint8]
    """Shape (n, 16)."""
    destination: NDArray[np.uint8]
    """Shape (n, 16)."""
    port: NDArray[np.uint16]
    """Destination port."""
    translated: Mask
    """Whether DNAT sends it elsewhere, so that the destination's own end never meets it."""
    reached: NDArray[np.uint8] | None = None
    """Shape (n, 16): who answers, behind the destination or itself; None where nobody sees that."""
    reached_port: NDArray[np.uint16] | None = None
    """There."""

    def __len__(self) -> int:
        """The number of connections."""
        return len(self.protocol)


def denied(policy: NodePolicy, binding: PodBinding | NodeBinding, opened: Opened) -> Mask:
    """Which of the connections in the namespace of `binding` the policy denies.

    What a namespace says to itself, what it forwards for others, and what agents say to the
    control plane is never among them.
    """
    own = frozenset(binding.addresses)
    from_here, to_here = _among(opened.source, own), _among(opened.destination, own)
    found = np.zeros(len(opened), dtype=np.bool_)
    node = binding if isinstance(binding, NodeBinding) else None
    if node and node.received:
        exposed = _exposed(policy, node.exposures, opened, to_here)
        rules = policy.programs[node.received].rules
        found |= exposed & _says_deny(policy, rules, Direction.INBOUND, opened)
        to_here &= ~exposed
    for program in as_programs(binding.inbound):
        rules = (*(node.fail_safes_in if node else ()), *policy.programs[program].rules)
        judged = to_here & ~from_here & ~opened.translated
        found |= judged & _says_deny(policy, rules, Direction.INBOUND, opened)
    for program in as_programs(binding.outbound):
        rules = (*(node.fail_safes_out if node else ()), *policy.programs[program].as_dialled)
        judged = from_here & ~to_here
        found |= judged & _says_deny(policy, rules, Direction.OUTBOUND, opened)
    for address, port in policy.control_plane:
        found &= ~(_among(opened.destination, {address}) & (opened.port == port))
    return found


def denied_to(policy: NodePolicy, pod: PodBinding, opened: Opened) -> Mask:
    """Which of the connections that a node forwards to a pod its inbound programs deny.

    By then they are translated: a Service's are judged by who answers.
    """
    if opened.reached is None or opened.reached_port is None:
        return np.zeros(len(opened), dtype=np.bool_)
    nowhere_else = np.zeros(len(opened), dtype=np.bool_)
    answered = replace(
        opened, destination=opened.reached, port=opened.reached_port, translated=nowhere_else
    )
    return denied(policy, replace(pod, outbound=()), answered)


def denied_behind(policy: NodePolicy, opened: Opened) -> Mask:
    """Which of the connections that a node translates it denies for who answers behind a Service.

    Those that its pods dialled, and that it dialled itself.
    """
    found = np.zeros(len(opened), dtype=np.bool_)
    for name, whose in policy.parting().items():
        program = policy.programs[name]
        parted = np.zeros(len(opened), dtype=np.bool_)
        for one in program.parted:
            rows = (opened.protocol == one.protocol) & (opened.port == one.port)
            parted |= rows & _in_networks(opened.destination, policy.sets[one.dialled])
        own = {address for one in whose for address in one.addresses}
        parted &= opened.translated & _among(opened.source, own)
        if policy.binding in whose:
            parted &= ~_keeps_a_node(policy, opened)
        if opened.reached is not None:  # a workload to itself
            parted &= (opened.reached != opened.source).any(axis=1)
        found |= parted & _says_deny(policy, program.rules, Direction.OUTBOUND, opened)
    for address, port in policy.control_plane:
        found &= ~(_among(opened.destination, {address}) & (opened.port == port))
    return found


def _keeps_a_node(policy: NodePolicy, opened: Opened) -> Mask:
    """Which connections of the node's own its fail-safes let out, by who answers."""
    node = policy.binding
    mine = _among(opened.source, node.addresses)
    if opened.reached is None or opened.reached_port is None:
        return mine
    answered = replace(opened, destination=opened.reached, port=opened.reached_port)
    safe = first_match(policy, node.fail_safes_out, Direction.OUTBOUND, answered) >= 0
    return mine & (safe | _among(opened.reached, node.addresses))


def first_match(
    policy: NodePolicy, rules: Iterable[Rule], direction: Direction, opened: Opened
) -> NDArray[np.intp]:
    """For each connection the place of the first rule that matches it, -1 for none."""
    inbound = direction is Direction.INBOUND
    remote, near = (
        (opened.source, opened.destination) if inbound else (opened.destination, opened.source)
    )
    found = np.full(len(opened), -1, dtype=np.intp)
    for place, rule in enumerate(rules):
        rows = found == -1
        if rule.protocol is not None:
            rows &= opened.protocol == rule.protocol
        if rule.ports:
            rows &= _in_ports(rule.ports, opened.port)
        for side, held in ((remote, rule.peers), (near, rule.local)):
            if held is not None:
                rows &= _in_networks(side, policy.sets[held])
        if rule.behind:
            rows &= _answers(policy, rule, rule.behind, opened)
        found[rows] = place
    return found


def _answers(policy: NodePolicy, rule: Rule, behind: Behind, opened: Opened) -> Mask:
    """Which connections come to whom the rule means; unseen, an ALLOW means all, a DENY none."""
    found = np.full(len(opened), opened.reached is not None or rule.action is Action.ALLOW)
    if opened.reached is not None and behind.peers is not None:
        found &= _in_networks(opened.reached, policy.sets[behind.peers])
    if opened.reached_port is not None and behind.ports:
        found &= _in_ports(behind.ports, opened.reached_port)
    return found


def _says_deny(
    policy: NodePolicy, rules: tuple[Rule, ...], direction: Direction, opened: Opened
) -> Mask:
    denies = np.array([rule.action is Action.DENY for rule in rules])
    deciding: Mask = denies[first_match(policy, rules, direction, opened)]
    return deciding


def _exposed(
    policy: NodePolicy, exposures: Iterable[Exposure], opened: Opened, to_here: Mask
) -> Mask:
    found = np.zeros(len(opened), dtype=np.bool_)
    for exposure in exposures:
        rows = (opened.protocol == exposure.protocol) & _in_ports(exposure.ports, opened.port)
        if exposure.local is None:
            found |= rows & to_here
        else:
            found |= rows & _in_networks(opened.destination, policy.sets[SetId(exposure.local)])
    return found


def _in_ports(ports: tuple[PortRange, ...], port: NDArray[np.uint16]) -> Mask:
    found = np.zeros(len(port), dtype=np.bool_)
    for some in ports:
        found |= (port >= some.first) & (port <= some.last)
    return found


def _in_networks(addresses: NDArray[np.uint8], networks: Iterable[Network]) -> Mask:
    """Which addresses (shape (n, 16)) lie in one of the networks, disjoint in each family."""
    found = np.zeros(len(addresses), dtype=np.bool_)
    v4 = (addresses[:, :10] == 0).all(axis=1) & (addresses[:, 10:12] == 255).all(axis=1)  # noqa: PLR2004
    for family, rows in ((True, v4), (False, ~v4)):
        blocks = sorted((n.first, n.last) for n in networks if n.is_v4 == family)
        if not blocks:
            continue
        starts = np.array([first.to_bytes(16) for first, _ in blocks], dtype=_ADDRESS)
        ends = np.array([last.to_bytes(16) for _, last in blocks], dtype=_ADDRESS)
        keys = _keys(addresses)
        spot = np.searchsorted(starts, keys, side="right") - 1
        found |= rows & (spot >= 0) & (keys <= ends[spot])
    return found


def _among(addresses: NDArray[np.uint8], wanted: Iterable[Address]) -> Mask:
    found: Mask = np.isin(_keys(addresses), np.array(list(wanted), dtype=_ADDRESS))
    return found


def _keys(addresses: NDArray[np.uint8]) -> NDArray[np.bytes_]:
    return np.ascontiguousarray(addresses).view(_ADDRESS).ravel()
