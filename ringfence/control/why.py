"""Why a connection, observed or only named, passes or not, by the rules that are enforced."""

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ringfence.control.errors import NotFoundError
from ringfence.control.live import Asked
from ringfence.control.trial import is_elsewhere, told_elsewhere
from ringfence.inventory.snapshot import NOWHERE, Snapshot
from ringfence.model.address import Address, format_address
from ringfence.model.errors import InputError
from ringfence.model.icmp import NAMES as ICMP_NAMES
from ringfence.model.ids import NO_CLUSTER, ClusterId, NodeName
from ringfence.model.protocol import WITH_PORTS, format_port, format_protocol
from ringfence.model.verdict import EndRole, EndVerdict, Verdict
from ringfence.model.workload import Item, ItemKind
from ringfence.policy.admitted import admits
from ringfence.policy.balancers import Balancers
from ringfence.policy.compile import Compiled
from ringfence.policy.connection import Connections
from ringfence.policy.explain import explain
from ringfence.policy.handle import format_handle, tell_decision
from ringfence.policy.hypothetical import hypothetical
from ringfence.policy.layer import RuleLayer
from ringfence.policy.listed import place_of
from ringfence.policy.order import PolicySet
from ringfence.policy.quarantine import quarantined
from ringfence.policy.spared import ITSELF, FailSafes
from ringfence.store.relational.trials import Trial
from ringfence.wire.generated.agent_pb2 import Probe

_HOOKS = {EndRole.CONSUMER: "output", EndRole.PROVIDER: "input", EndRole.NODE: "prerouting"}


@dataclass(frozen=True, slots=True)
class ExplainedEnd:
    """One end's decision; `fail_safe` names what lets the connection pass whatever it says.

    `asked` is the connection as it comes to rules of the kernel there, None where there are none.
    """

    verdict: EndVerdict
    workload: str
    fail_safe: str
    asked: Asked | None

    @property
    def denies(self) -> bool:
        """Whether this end stops the connection."""
        return self.verdict.denies and not self.fail_safe


@dataclass(frozen=True, slots=True)
class ExplainedConnection:
    """One way that the traffic can take, told by all its ends."""

    text: str
    ends: tuple[ExplainedEnd, ...]
    kept_out: str
    """Why kube-proxy drops it, whatever policies say; empty where it does not."""

    @property
    def allowed(self) -> bool:
        """Whether it passes."""
        return not self.kept_out and not any(end.denies for end in self.ends)


@dataclass(frozen=True, slots=True)
class Answer:
    """Every connection that the question may mean, such as one for each backend of a Service."""

    connections: tuple[ExplainedConnection, ...]
    notes: tuple[str, ...]

    @property
    def allowed(self) -> bool:
        """Whether all of them pass."""
        return all(connection.allowed for connection in self.connections)


@dataclass(frozen=True, slots=True)
class Question:
    """Traffic from one place to another, in the words that `hypothetical` takes."""

    source: str
    destination: str
    protocol: int
    port: int


@dataclass(frozen=True, slots=True)
class Side:
    """What nodes enforce: rules, and what was compiled from them, fail-safes too."""

    policy_set: PolicySet
    kubernetes: Sequence[RuleLayer]
    compiled: Compiled

    def explain(self, connections: Connections) -> list[Verdict]:
        """The verdicts on connections of the policy set's inventory."""
        return explain([self.policy_set, *self.kubernetes], connections)


@dataclass(frozen=True, slots=True)
class Outside:
    """A staged trial, and what the nodes outside its stage still enforce."""

    trial: Trial
    side: Side


def why(side: Side, question: Question, outside: Outside | None = None) -> Answer:
    """Explain the traffic by what is enforced, each end by what is at its own node.

    Raises NotFoundError for a place that there is not.
    """
    snapshot = side.policy_set.snapshot
    try:
        connections, assumed = hypothetical(
            snapshot, question.source, question.destination, question.protocol, question.port
        )
    except InputError as error:
        raise NotFoundError(str(error)) from error
    return explain_all(side, connections, assumed, outside)


def explain_all(
    side: Side, connections: Connections, notes: tuple[str, ...], outside: Outside | None = None
) -> Answer:
    """Explain connections of the policy set's inventory, each end by what is at its own node.

    `notes` are what was assumed of the connections.
    """
    snapshot = side.policy_set.snapshot
    inside = side.explain(connections)
    beyond = outside.side.explain(connections) if outside else inside
    spared = _fail_safes(snapshot, side.compiled, connections)
    spared_beyond = spared
    if outside:
        spared_beyond = _fail_safes(snapshot, outside.side.compiled, connections)
    explained, balancers = [], Balancers(snapshot)
    kept_out = balancers.keep_out(connections)
    apart: dict[str, None] = {}
    wider: dict[str, None] = {}
    for row, (here, there) in enumerate(zip(inside, beyond, strict=True)):
        ends = []
        # They have the same ends, whatever the rules are: those that are workloads.
        for verdict, other in zip(here.ends, there.ends, strict=True):
            item = snapshot.items[snapshot.position(verdict.workload)]
            compiled, known = side.compiled, spared
            if outside and is_elsewhere(outside.trial, item):
                verdict = other  # noqa: PLW2901
                compiled, known = outside.side.compiled, spared_beyond
                before = outside.side.policy_set.enforced
                apart[told_elsewhere(outside.trial, item, before)] = None
            fail_safe = known[verdict.role][row]
            end = _end(snapshot, compiled, connections, row, verdict, fail_safe)
            ends.append(end)
            if end.denies:
                wider |= dict.fromkeys(_wider(snapshot, compiled, connections, row, end))
        text = _tell(snapshot, connections, row)
        why_not = _kept_out(balancers, connections, row) if kept_out[row] else ""
        explained.append(ExplainedConnection(text, tuple(ends), why_not))
    idle = () if side.policy_set.enforced or side.kubernetes else ("no workspace is enforced",)
    held = {end.verdict.workload for connection in explained for end in connection.ends}
    cut = _quarantined(side.policy_set, {snapshot.position(key) for key in held})
    return Answer(tuple(explained), (*idle, *apart, *cut, *notes, *wider))


def _kept_out(balancers: Balancers, connections: Connections, row: int) -> str:
    dialled = Address(bytes(connections.dialled[row]))
    protocol, port = int(connections.protocol[row]), int(connections.dialled_port[row])
    service, networks = balancers.at(dialled, protocol, port)
    served = ", ".join(map(str, networks))
    return f"Service {service.display} has loadBalancerSourceRanges, {served}"


def _quarantined(policy_set: PolicySet, ends: Set[int]) -> Iterator[str]:
    for one in policy_set.quarantines:
        if not ends.isdisjoint(quarantined(policy_set.snapshot, one)):
            cause = f": {one.reason}" if one.reason else ""
            yield f"{one.name} is quarantined by {one.actor}{cause}"


def _wider(
    snapshot: Snapshot, compiled: Compiled, connections: Connections, row: int, end: ExplainedEnd
) -> Iterator[str]:
    """A note where the kernel lets through what the end's policies deny."""
    handle = admits(snapshot, compiled, connections, row, end.verdict)
    for one in compiled.widenings if handle else ():
        same = format_handle(one.decision, widened=True) == handle
        if same and one.workload == end.verdict.workload:
            policy = tell_decision(one.decision)
            yield f"the kernel lets it through at {end.workload}: {policy} {one.text}"


def _end(
    snapshot: Snapshot,
    compiled: Compiled,
    connections: Connections,
    row: int,
    end: EndVerdict,
    fail_safe: str,
) -> ExplainedEnd:
    item = snapshot.items[snapshot.position(end.workload)]
    node = item.node if item.kind is ItemKind.POD else item.name
    policy = compiled.policies.get((item.cluster, NodeName(node)))
    if policy is None or end.deciding is None:
        return ExplainedEnd(end, item.display, "", None)
    asked = _asked(snapshot, item, connections, row, end.role)
    # By loopback it meets no rule there, only those for what is translated.
    looped = fail_safe == ITSELF or (end.role is EndRole.CONSUMER and asked.probe.to_own)
    return ExplainedEnd(end, item.display, fail_safe, None if looped else asked)


def _asked(
    snapshot: Snapshot, item: Item, connections: Connections, row: int, role: EndRole
) -> Asked:
    """The connection as the end's own rules see it: a provider's after DNAT, others' before."""
    behind = role is EndRole.PROVIDER
    to = connections.provider[row] if behind else connections.dialled[row]
    port = (connections.provider_port if behind else connections.dialled_port)[row]
    node, uid = place_of(item)
    probe = Probe(
        hook=_HOOKS[role],
        protocol=int(connections.protocol[row]),
        source=bytes(connections.consumer[row]),
        destination=bytes(to),
        port=int(port),
        to_own=snapshot.at(Address(bytes(to)), item.cluster) == snapshot.position(item.key),
    )
    return Asked((item.cluster, node), uid, probe)


def _fail_safes(
    snapshot: Snapshot, compiled: Compiled, connections: Connections
) -> dict[EndRole, list[str]]:
    """By role and connection the handle of the first fail-safe that speaks there, or empty."""
    known = FailSafes(snapshot, compiled.surroundings, lambda: compiled.policies)
    found = {}
    for role in EndRole:
        first = np.full(len(connections), "", object)
        for handle, spoken in reversed(known.at(connections, role)):
            first[spoken] = handle
        found[role] = first.tolist()
    return found


def _tell(snapshot: Snapshot, connections: Connections, row: int) -> str:
    number = int(connections.protocol[row])
    protocol = format_protocol(number)
    homes = snapshot.homes(connections.consumer_item), snapshot.homes(connections.provider_item)
    home = next(filter(None, (one.clusters[one.which[row]] for one in homes)), NO_CLUSTER)
    consumer = _name(snapshot, connections.consumer[row], home)
    provider = _name(snapshot, connections.provider[row], home)
    port, dialled_port = int(connections.provider_port[row]), int(connections.dialled_port[row])
    told = f" {format_port(number, port)}" if number in WITH_PORTS | {*ICMP_NAMES} else ""
    text = f"{consumer} → {provider} {protocol}{told}"
    dialled = _name(snapshot, connections.dialled[row], home)
    if (dialled, dialled_port) == (provider, port):
        return text
    return f"{text}, dialled as {dialled} {protocol} {dialled_port}"


def _name(snapshot: Snapshot, packed: NDArray[np.uint8], home: ClusterId) -> str:
    address = Address(bytes(packed))
    position = snapshot.at(address, home)
    written = format_address(address)
    return written if position == NOWHERE else f"{snapshot.items[position].display} ({written})"
