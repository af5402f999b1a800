"""What one node has to enforce: programs over sets of addresses, bound to pods and to the node.

This is the whole contract between the compiler and an agent's back ends. It names no kernel
mechanism. Programs and sets are shared by their content, so that a pod that comes or goes
changes bindings and set elements only.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NewType

import msgspec

from ringfence.model.address import Address, Network
from ringfence.model.errors import InputError
from ringfence.model.ids import ClusterId, NodeName
from ringfence.model.policy import Action
from ringfence.model.protocol import WITH_PORTS, PortRange

SetId = NewType("SetId", str)
ProgramId = NewType("ProgramId", str)


@dataclass(frozen=True, slots=True)
class Behind:
    """Whom a rule means of those that answer behind the address that is dialled.

    `peers` are their addresses, None for any, and `ports` their own ports, empty for all.
    """

    peers: SetId | None
    ports: tuple[PortRange, ...]


@dataclass(frozen=True, slots=True)
class Rule:
    """One first-match rule on connections that open.

    `peers` is the remote end's addresses and `local` the namespace's own end's, None for any.
    `ports` are destination ports, disjoint, of ICMP type * 256 + code, empty for all. `handle`
    names the policy that made the rule: it comes back in drop reports and stands in the kernel
    rule's comment. One that `rejects` is a DENY that answers: TCP by a reset, other protocols by an
    ICMP error, "administratively prohibited".

    One with `behind` is about one port at which a Service is dialled, and means some of its
    backends only. A namespace that does not see who answers takes its ALLOW for all of them, and
    its DENY for none; the pod's node, which does, judges it as it stands.
    """

    handle: str
    action: Action
    protocol: int | None
    ports: tuple[PortRange, ...]
    peers: SetId | None
    local: SetId | None = None
    rejects: bool = False
    behind: Behind | None = None

    @property
    def matches_all(self) -> bool:
        """Whether it is about every connection."""
        return self.protocol is None and not (self.ports or self.peers or self.local or self.behind)


@dataclass(frozen=True, slots=True, order=True)
class Parted:
    """A port of a Service, as dialled, of whose backends some rule means some only."""

    dialled: SetId
    protocol: int
    port: int


@dataclass(frozen=True, slots=True)
class Program:
    """Rules of one direction in order. The last one matches everything: there is no default."""

    rules: tuple[Rule, ...]

    def __post_init__(self) -> None:
        if not self.rules or not self.rules[-1].matches_all:
            raise InputError("a program must end in a rule that matches every connection")
        for rule in self.rules:
            single = bool(rule.ports) and all(some.first == some.last for some in rule.ports)
            if rule.behind and not (rule.peers and rule.protocol in WITH_PORTS and single):
                raise InputError("a rule about who answers must say where they are dialled")

    @property
    def sets(self) -> set[SetId | None]:
        """The sets that its rules ask of connections as dialled, and None."""
        return {name for rule in self.rules for name in (rule.peers, rule.local)}

    @property
    def as_dialled(self) -> tuple[Rule, ...]:
        """The rules for a namespace that does not see who answers behind an address."""
        return tuple(
            replace(rule, behind=None) if rule.behind else rule
            for rule in self.rules
            if not rule.behind or rule.action is Action.ALLOW
        )

    @property
    def parted(self) -> tuple[Parted, ...]:
        """Where rules mean some only of those that answer."""
        found = {
            Parted(rule.peers, rule.protocol, port.first): None
            for rule in self.rules
            if rule.behind and rule.peers and rule.protocol is not None
            for port in rule.ports
        }
        return tuple(found)


@dataclass(frozen=True, slots=True)
class PodBinding:
    """The programs of one pod, in order: each must allow. None for what nothing governs."""

    uid: str
    namespace: str
    name: str
    addresses: tuple[Address, ...]
    inbound: tuple[ProgramId, ...]
    outbound: tuple[ProgramId, ...]
    guarded: bool = False
    """Whether its node judges by them too, since it may change its own namespace's rules."""


@dataclass(frozen=True, slots=True)
class Exposure:
    """Ports on which a node receives connections for Services, as dialled, before DNAT.

    `local` is the load-balancer addresses that they are dialled at, None for the node's own.
    """

    protocol: int
    ports: tuple[PortRange, ...]
    local: SetId | None


@dataclass(frozen=True, slots=True)
class NodeBinding:
    """The node's own programs.

    `inbound` and `outbound` judge connections of the node itself. `received` judges, before
    DNAT and by destination port as dialled, connections to `exposures` and no others; None
    where nothing governs. `fail_safes_in` stand before `inbound` and `fail_safes_out`
    before `outbound`.
    """

    addresses: tuple[Address, ...]
    inbound: ProgramId | None
    outbound: ProgramId | None
    received: ProgramId | None
    exposures: tuple[Exposure, ...] = ()
    fail_safes_in: tuple[Rule, ...] = ()
    fail_safes_out: tuple[Rule, ...] = ()


@dataclass(frozen=True, slots=True)
class Gate:
    """What keeps pods apart until their rules are in force: their node drops their packets.

    Pods have their addresses in `networks`. Those of other namespaces than `namespaces`, None for
    any, need not wait for rules, and of the others those with the uids `free`. All else that has
    such an address waits until its programs are in force.
    """

    networks: tuple[Network, ...]
    namespaces: tuple[str, ...] | None
    free: tuple[str, ...]

    def spares(self, namespace: str, uid: str) -> bool:
        """Whether a pod need not wait for rules."""
        return uid in self.free or (
            self.namespaces is not None and namespace not in self.namespaces
        )


Guarded = Mapping[str, frozenset[str]]
"""By uid of a guarded pod the interfaces of its node that lead to it alone, by name."""
NO_GUARDED: Guarded = {}


@dataclass(frozen=True, slots=True, order=True)
class Passage:
    """An address behind an interface of its node, by the interface's name: a gate may let it be."""

    interface: str
    address: Address
    """That of LINK_LOCAL stands for all of them."""


LINK_LOCAL = Network(Address(bytes.fromhex("fe80") + bytes(14)), 10)
"""What a pod speaks to its node by without an address of its own (RFC 4291, section 2.5.6)."""
LINKS_TO_PODS = ("bridge", "netkit", "veth")
"""The kinds of interfaces that may lead to pods."""


def as_programs(bound: ProgramId | tuple[ProgramId, ...] | None) -> tuple[ProgramId, ...]:
    """The programs of a direction, a pod's or a node's, in order."""
    return bound if isinstance(bound, tuple) else (bound,) if bound else ()


@dataclass(frozen=True, slots=True)
class NodePolicy:
    """All that one node's agent enforces."""

    kubernetes_cluster: ClusterId
    node: NodeName
    sets: dict[SetId, tuple[Network, ...]]
    """Blocks, disjoint within each family. An id stands for a meaning; its elements change."""
    programs: dict[ProgramId, Program]
    pods: tuple[PodBinding, ...]
    binding: NodeBinding
    control_plane: tuple[tuple[Address, int], ...]
    """Where the agent reaches the control plane, (address, TCP port): never blocked."""
    gate: Gate | None = None
    """Before pods that are new; None where all may talk at once."""

    def untouched(self, before: "NodePolicy") -> set[str]:
        """The uids of pods that are judged as they were before, by equal rules over equal sets."""
        if self.control_plane != before.control_plane:
            return set()
        sets = {name for name, held in self.sets.items() if before.sets.get(name) != held}
        touched = {
            name
            for name, one in self.programs.items()
            if before.programs.get(name) != one or not sets.isdisjoint(one.sets)
        }
        were = {pod.uid: pod for pod in before.pods}
        return {
            pod.uid
            for pod in self.pods
            if pod == were.get(pod.uid) and touched.isdisjoint((*pod.inbound, *pod.outbound))
        }

    def parting(self) -> dict[ProgramId, list[PodBinding | NodeBinding]]:
        """The outbound programs by which the node judges once more, behind Services: whom.

        What a pod, or the node itself, dials at a `Parted` port, and the node sends on to a
        backend, is judged by the program as it stands. A DENY is answered there, whether it rejects
        or not: kube-proxy goes on choosing backends that are denied, and who dials may come to
        another one.
        """
        parting = {name for name, one in self.programs.items() if any(r.behind for r in one.rules)}
        found: dict[ProgramId, list[PodBinding | NodeBinding]] = {}
        everybody: tuple[PodBinding | NodeBinding, ...] = (*self.pods, self.binding)
        for whose in everybody if parting else ():
            for name in as_programs(whose.outbound):
                if name in parting:
                    found.setdefault(name, []).append(whose)
        return found

    def as_dialled(self) -> "NodePolicy":
        """The policy for a mechanism that cannot tell who answers behind an address."""
        if not self.parting():
            return self
        programs = {name: Program(one.as_dialled) for name, one in self.programs.items()}
        return replace(self, programs=programs)


def encode(policy: NodePolicy) -> bytes:
    """The policy as JSON, equal policies as equal bytes."""
    return msgspec.json.encode(policy, order="deterministic")


def decode(data: bytes) -> NodePolicy:
    """Read what `encode` wrote; raises InputError."""
    try:
        return msgspec.json.decode(data, type=NodePolicy)
    except msgspec.MsgspecError as error:
        raise InputError(f"not a node policy: {error}") from error
