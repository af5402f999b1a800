"""Where each observed edge ends: as ALLOW, as review, or as noise, and why.

Rules are asked in one order and the first that holds decides. What is noise by itself comes first,
then core services, then suspicion by source, then how much was seen.
"""

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ringfence.discovery.behaviour import Mask, Numbers
from ringfence.discovery.facts import API_SERVER, RESOLVERS, Facts
from ringfence.discovery.observed import Observed
from ringfence.discovery.peers import Anybody, Named, Nodes, Outside, OwnNode
from ringfence.discovery.ports import given_out
from ringfence.discovery.reasons import CORE, Outcome, Reason
from ringfence.discovery.roles import Role
from ringfence.discovery.sources import STRAY, Suspicion, suspect
from ringfence.model.address import Address, format_address
from ringfence.model.protocol import ICMP, ICMPV6, TCP, UDP

ENOUGH_CONVERSATIONS, ENOUGH_INTERVALS = 2, 2
"""With less an edge goes to review, unless something else speaks for it."""
_STEADY, _BY_HAND = 12, 3
"""From so many intervals on a machine does it; fewer conversations somebody may have by hand."""
EPHEMERAL = 32768
"""The first port that Linux gives to clients (net.ipv4.ip_local_port_range)."""
_DNS_PORT, _NTP_PORT = 53, 123
_API_PORT = 6443
_KUBELET_PORTS = (10250, 10255, 10256, 2379, 2380)
"""Kubelet, kube-proxy's health and etcd: at nodes these are fail-safes, which need no policy."""
_METADATA = frozenset({"169.254.169.254", "fd00:ec2::254"})
_BROADCAST = "255.255.255.255"
_REASONS = tuple(Reason)
_NUMBER = {reason: number for number, reason in enumerate(_REASONS)}


@dataclass(frozen=True)
class Decisions:
    """For each edge an outcome and the reasons for it, the deciding one first."""

    outcome: NDArray[np.str_]
    deciding: Numbers
    suspicion: Suspicion
    referred: Mask

    def reasons(self, edge: int) -> Iterator[Reason]:
        """Why the edge ended so, and what else speaks for or against it."""
        first = _REASONS[self.deciding[edge]]
        yield first
        besides = {
            Reason.ALONE: self.suspicion.alone,
            Reason.BYPASS: self.suspicion.bypass,
            Reason.FOREIGN: self.suspicion.foreign,
            Reason.FAN_OUT: self.suspicion.fan_out,
            Reason.LATE: self.suspicion.late,
            Reason.TOOL: self.suspicion.tool,
            Reason.DECLARED: self.referred,
        }
        if self.outcome[edge] != Outcome.NOISE:
            yield from (one for one, held in besides.items() if held[edge] and one is not first)

    def is_noise(self, edge: int) -> bool:
        """Whether the edge is noise."""
        return bool(self.outcome[edge] == Outcome.NOISE)

    def of(self, *reasons: Reason) -> Mask:
        """The edges that were decided for one of these reasons."""
        return np.isin(self.deciding, [_NUMBER[reason] for reason in reasons])


def decide(observed: Observed, facts: Facts, excluded: Mask | None = None) -> Decisions:
    """Decide over every edge; `excluded` are those that nobody wants to see proposed."""
    deciding = np.full(len(observed), -1, dtype=np.int64)

    def rule(reason: Reason, holds: Mask) -> None:
        deciding[(deciding < 0) & holds] = _NUMBER[reason]

    if excluded is not None:
        rule(Reason.EXCLUDED, excluded)
    for reason, holds in _by_themselves(observed, facts):
        rule(reason, holds)
    listening, seen = facts.of_edges(facts.listening), observed.seen
    turned, unopened = _reversed(observed, listening), _ephemeral(observed, listening)
    # Where first packets are told at all, who sent one is no server that answers.
    opens = (seen.opened > 0) & observed.tells_openings
    clients = (turned & ~opens) | unopened
    rule(Reason.GIVEN_OUT, given_out(observed, listening, (deciding < 0) & ~clients))
    rule(Reason.REVERSED, turned)
    rule(Reason.EPHEMERAL, unopened)
    referred, published = facts.referred(), facts.published()
    suspicion = suspect(observed, facts, deciding < 0, (referred, published))
    good = seen.conversations > 0
    rule(Reason.SCAN, suspicion.scan)
    for reason, holds in _failed(observed):
        rule(reason, holds & ~good)
    rule(Reason.INTRUDER, suspicion.intruder)
    stray = (seen.conversations == 1) & (suspicion.weight >= STRAY)
    rule(Reason.ONE_OFF, (_one_off(observed) | stray) & (not suspicion.brief))
    for reason, holds in (
        (Reason.ALONE, suspicion.alone),
        (Reason.FAN_OUT, suspicion.fan_out),
        (Reason.BYPASS, suspicion.bypass),
        (Reason.FOREIGN, suspicion.foreign),
        (Reason.TOOL, suspicion.tool),
        (Reason.STRANGER, suspicion.stranger),
        (Reason.UNUSUAL, suspicion.suspicious),
    ):
        rule(reason, suspicion.suspicious & holds)
    few = suspicion.conversations < ENOUGH_CONVERSATIONS
    few |= suspicion.intervals < ENOUGH_INTERVALS
    few &= not suspicion.brief
    rule(Reason.DECLARED, few & referred)
    rule(Reason.TWIN, few & suspicion.twins)
    rule(Reason.PUBLISHED, few & published)
    rule(Reason.SPREAD, few & (suspicion.supporters > 1))
    rule(Reason.FITS, few & suspicion.likely)
    rule(Reason.FEW, few)
    rule(Reason.SEEN, np.ones(len(observed), dtype=np.bool_))
    return Decisions(_outcomes(deciding), deciding, suspicion, referred)


def telling(decisions: Decisions) -> Mask:
    """The edges that say what their ends are: needed perhaps, and no ports that one gives out."""
    needed = (decisions.outcome != Outcome.NOISE) & ~decisions.of(Reason.GIVEN_OUT)
    return np.asarray(needed | decisions.of(*CORE))


def _outcomes(deciding: Numbers) -> NDArray[np.str_]:
    allowed = (
        Reason.SEEN,
        Reason.GIVEN_OUT,
        Reason.DECLARED,
        Reason.TWIN,
        Reason.PUBLISHED,
        Reason.SPREAD,
        Reason.FITS,
    )
    review = (
        Reason.FEW,
        Reason.ALONE,
        Reason.FAN_OUT,
        Reason.BYPASS,
        Reason.FOREIGN,
        Reason.LATE,
        Reason.STRANGER,
        Reason.TOOL,
        Reason.UNUSUAL,
    )
    outcome = {
        reason: Outcome.ALLOW
        if reason in allowed
        else Outcome.REVIEW
        if reason in review
        else Outcome.NOISE
        for reason in _REASONS
    }
    return np.array([str(outcome[reason]) for reason in _REASONS])[deciding]


def _by_themselves(observed: Observed, facts: Facts) -> Iterator[tuple[Reason, Mask]]:
    """What an edge's own two ends and port tell."""
    seen, peers = observed, observed.peers
    of_node = peers.which(Nodes, OwnNode)
    yield from _by_address(observed)
    tcp_or_udp = np.isin(seen.protocol, (TCP, UDP))
    upstream = peers.which(Outside, Named)[seen.provider] & (
        of_node[seen.consumer] | np.isin(seen.consumer, facts.behind(RESOLVERS))
    )
    resolver = facts.serves(RESOLVERS) | upstream
    probe = peers.which(OwnNode)[seen.consumer] & (facts.of_edges(facts.probed) | _steady(observed))
    # Kubelets dial pods, nodes that ask for names the Service.
    asked = ~(probe & seen.straight & (seen.protocol == TCP))
    yield Reason.DNS, resolver & tcp_or_udp & (seen.port == _DNS_PORT) & _worked(observed) & asked
    clock = (seen.protocol == UDP) & (seen.port == _NTP_PORT) & ~peers.which(Role)[seen.provider]
    yield Reason.NTP, clock & _worked(observed)
    yield Reason.PROBE, probe
    to_node = of_node[seen.provider]
    yield Reason.API_SERVER, facts.serves(API_SERVER) | (to_node & (seen.port == _API_PORT))
    yield Reason.KUBELET, to_node & np.isin(seen.port, _KUBELET_PORTS)


def _by_address(observed: Observed) -> Iterator[tuple[Reason, Mask]]:
    peers = observed.peers
    at = [peers[number] for number in range(len(peers))]
    metadata = [isinstance(one, Outside) and str(one) in _METADATA for one in at]
    groups = [isinstance(one, Outside) and _is_of_link(one.address) for one in at]
    yield Reason.METADATA, np.array(metadata, dtype=np.bool_)[observed.provider]
    yield Reason.BROADCAST, np.array(groups, dtype=np.bool_)[observed.provider]
    # As a consumer only what a pod held, and nobody knows which, is an address by itself.
    yield Reason.DEAD, peers.which(Outside)[observed.consumer]


def _is_of_link(address: Address) -> bool:
    """Whether the address is a group's, everybody's on the link, or good on the link only."""
    at = ipaddress.ip_address(format_address(address))
    return at.is_multicast or at.is_link_local or at.is_unspecified or str(at) == _BROADCAST


def _worked(observed: Observed) -> Mask:
    return observed.seen.conversations > 0


def _steady(observed: Observed) -> Mask:
    """Whether it goes on through the time as only a machine does."""
    return observed.seen.intervals >= _STEADY


def _reversed(observed: Observed, listening: Mask) -> Mask:
    """Whether the edge is another one's way back: its port is a client's, the other's serves."""
    seen = observed
    anybody = observed.peers.number(Anybody())
    outside = observed.peers.which(Outside, Named)[seen.provider]
    provider, size = np.where(outside, anybody, seen.provider), len(observed.peers)
    there, back = seen.consumer * size + provider, provider * size + seen.consumer
    serving = listening | (seen.port < EPHEMERAL)
    pairs, which = np.unique(np.concatenate([there, back]), return_inverse=True)
    most = np.zeros(len(pairs), dtype=np.int64)
    worth = np.where(serving, seen.seen.conversations, 0)
    np.maximum.at(most, which[: len(seen)], worth)
    opposite = most[which[len(seen) :]]
    client = (seen.port >= EPHEMERAL) & ~listening & np.isin(seen.protocol, (TCP, UDP))
    answers = seen.seen.opened * 2 <= seen.seen.conversations
    answers |= not observed.tells_openings
    return np.asarray(client & (opposite >= seen.seen.conversations) & (opposite > 0) & answers)


def _ephemeral(observed: Observed, listening: Mask) -> Mask:
    """Whether the port is a client's, and nobody was seen to open what was answered."""
    seen = observed
    client = (seen.port >= EPHEMERAL) & ~listening & np.isin(seen.protocol, (TCP, UDP))
    return np.asarray(client & (seen.seen.opened == 0) & (seen.seen.conversations > 0))


def _failed(observed: Observed) -> Iterator[tuple[Reason, Mask]]:
    """Of what never worked: why."""
    seen = observed.seen
    yield Reason.DEAD, ~observed.held
    yield Reason.DROPPED, seen.dropped > 0
    yield Reason.REFUSED, seen.refused > 0
    yield Reason.UNANSWERED, np.ones(len(observed), dtype=np.bool_)


def _one_off(observed: Observed) -> Mask:
    """What somebody at a node, or with ping, tried by hand."""
    few = observed.seen.conversations < _BY_HAND
    by_node = observed.peers.which(Nodes, OwnNode)[observed.consumer]
    return few & (by_node | np.isin(observed.protocol, (ICMP, ICMPV6)))
