"""What each node enforces, made again only where something of it has changed."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from ringfence.inventory.living import Alteration, Living
from ringfence.model.address import Address, Network
from ringfence.model.ids import ClusterId, NodeName
from ringfence.model.protocol import TCP, PortRange
from ringfence.model.workload import Item, ItemKind
from ringfence.policy.failsafe import NodeAccess, api_servers, fail_safes, node_addresses
from ringfence.policy.fronts import fits
from ringfence.policy.gate import Gates
from ringfence.policy.layers import Layers
from ringfence.policy.program import (
    Exposure,
    NodeBinding,
    NodePolicy,
    PodBinding,
    ProgramId,
    Rule,
    SetId,
    encode,
)
from ringfence.policy.sets import of_addresses
from ringfence.policy.shared import Programs, sets_of
from ringfence.policy.translate import Chain
from ringfence.policy.who import Who

NodeKey = tuple[ClusterId, NodeName]
_POD = (Chain.INBOUND, Chain.OUTBOUND)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What nodes' policies depend on besides inventory and policy.

    `control_plane` is where agents reach the control plane, (address, TCP port).
    """

    control_plane: tuple[tuple[Address, int], ...] = ()
    access: NodeAccess = NodeAccess()  # noqa: RUF009 - frozen


class Nodes:
    """The policies of all nodes and hosts of an inventory, of which no node comes or goes."""

    def __init__(
        self, living: Living, surroundings: Surroundings, programs: Programs, gates: Gates
    ) -> None:
        self._living, self._surroundings, self._programs = living, surroundings, programs
        self._gates = gates
        self._notes: dict[NodeKey, tuple[str, ...]] = {}
        self._positions: dict[NodeKey, int] = {}
        self._pods: dict[NodeKey, set[int]] = {}
        self._users: dict[SetId, set[NodeKey]] = {}
        self._fail_safes: dict[
            tuple[ClusterId, ItemKind], tuple[tuple[Rule, ...], tuple[Rule, ...]]
        ] = {}
        self._exposures: dict[ClusterId, tuple[Exposure, ...]] = {}
        self._encoded: dict[SetId, msgspec.Raw] = {}
        self.policies: dict[NodeKey, NodePolicy] = {}
        for at, item in enumerate(living.items):
            if item.kind in (ItemKind.NODE, ItemKind.HOST):
                self._positions[item.cluster, NodeName(item.name)] = at
            elif item.kind is ItemKind.POD:
                self._pods.setdefault(_home(item), set()).add(at)

    def follow(self, alterations: Iterable[Alteration]) -> set[NodeKey]:
        """The inventory has changed so; the nodes that bind other pods now."""
        changed = set[NodeKey]()
        for one in alterations:
            if one.before and one.before.kind is ItemKind.POD:
                self._pods[_home(one.before)].discard(one.at)
            if one.after and one.after.kind is ItemKind.POD:
                self._pods.setdefault(_home(one.after), set()).add(one.at)
            if self._gates or not one.of_labels_only:
                changed |= {_home(side) for side in one.sides if side.kind is ItemKind.POD}
        return changed

    def expose(self, who: Who) -> set[NodeKey]:
        """Services have changed; the nodes that receive at other ports now."""
        changed = set[NodeKey]()
        for cluster in who.fronts.node_addresses:
            safe = next((self._safe(item, who)[0] for item in self._nodes_of(cluster)), ())
            exposures = tuple(_exposures(cluster, who, safe))
            if exposures != self._exposures.get(cluster):
                self._exposures[cluster] = exposures
                changed |= {key for key in self._positions if key[0] == cluster}
        return changed

    def _nodes_of(self, cluster: ClusterId) -> Iterator[Item]:
        items = (self._living.items[at] for at in self._living.nodes)
        return (item for item in items if item.cluster == cluster)

    @property
    def all(self) -> Iterable[NodeKey]:
        """All nodes and hosts."""
        return self._positions.keys()

    def homes(self, workloads: Iterable[int]) -> set[NodeKey]:
        """The nodes on which workloads are."""
        items = self._living.items
        return {
            _home(item) if item.kind is ItemKind.POD else (item.cluster, NodeName(item.name))
            for item in (items[at] for at in workloads)
        }

    def using(self, sets: Iterable[SetId]) -> set[NodeKey]:
        """The nodes that have one of the sets, which hold something else now."""
        found = set[NodeKey]()
        for name in sets:
            self._encoded.pop(name, None)
            found |= self._users.get(name, set())
        return found

    def renew(
        self,
        nodes: Iterable[NodeKey],
        bound: dict[Chain, dict[int, ProgramId]],
        layers: Layers,
        who: Who,
    ) -> set[NodeKey]:
        """Make the policies of these nodes again; those that came out different."""
        changed = set[NodeKey]()
        for node in nodes:
            if node not in self._positions:
                continue
            policy = self._make(node, bound, layers, who)
            before = self.policies.get(node)
            if policy == before:
                continue
            for name in (before.sets.keys() if before else set()) - policy.sets.keys():
                self._users[name].discard(node)
            for name in policy.sets:
                self._users.setdefault(name, set()).add(node)
            self.policies[node] = policy
            self._note(node, policy)
            changed.add(node)
        return changed

    def notes(self) -> Iterator[str]:
        """What a person should know of nodes, a line each."""
        for node in sorted(self._notes):
            yield from self._notes[node]

    def _note(self, node: NodeKey, policy: NodePolicy) -> None:
        ungated = self._gates.note(self._living.items[self._positions[node]])
        names = [f"{pod.namespace}/{pod.name}" for pod in policy.pods if pod.guarded]
        guarded = (
            f"NET_ADMIN: node {policy.node} judges too what it routes for pods that may undo the"
            f" rules in their own namespaces (at {', '.join(names)})"
        )
        told = (*([ungated] if ungated else []), *([guarded] if names else []))
        self._notes.pop(node, None)
        if told:
            self._notes[node] = told

    def encoded(self, node: NodeKey) -> bytes:
        """The policy as `program.encode` has it, of parts that are encoded once for all nodes."""
        policy = self.policies[node]
        programs: dict[ProgramId, Any] = {
            name: self._programs.encoded(name) for name in policy.programs
        }
        sets: dict[SetId, Any] = {
            name: self._encode(name, networks) for name, networks in policy.sets.items()
        }
        return encode(replace(policy, programs=programs, sets=sets))

    def _encode(self, name: SetId, networks: tuple[Network, ...]) -> msgspec.Raw:
        if name not in self._encoded:
            self._encoded[name] = msgspec.Raw(msgspec.json.encode(networks, order="deterministic"))
        return self._encoded[name]

    def _make(
        self, node: NodeKey, bound: dict[Chain, dict[int, ProgramId]], layers: Layers, who: Who
    ) -> NodePolicy:
        at = self._positions[node]
        item = self._living.items[at]
        pods = tuple(self._bindings(node, bound, layers))
        inbound, outbound, received = (bound[chain].get(at) for chain in Chain)
        safe_in, safe_out = self._safe(item, who) if inbound or outbound else ((), ())
        binding = NodeBinding(
            addresses=item.addresses,
            inbound=inbound,
            outbound=outbound,
            received=received,
            exposures=self._exposures.get(item.cluster, ()) if received else (),
            fail_safes_in=safe_in,
            fail_safes_out=safe_out,
        )
        used = {one for pod in pods for one in (*pod.inbound, *pod.outbound)}
        used |= {one for one in (inbound, outbound, received) if one}
        sets = {name for one in used for name in self._programs.sets(one)}
        sets |= sets_of((*safe_in, *safe_out))
        sets |= {one.local for one in binding.exposures if one.local}
        return NodePolicy(
            kubernetes_cluster=item.cluster,
            node=NodeName(item.name),
            sets={name: who.sets.networks(name) for name in sorted(sets)},
            programs={name: self._programs[name] for name in sorted(used)},
            pods=pods,
            binding=binding,
            control_plane=tuple(sorted(self._surroundings.control_plane)),
            gate=self._gates.of(item, (self._living.items[at] for at in self._pods.get(node, ()))),
        )

    def _bindings(
        self, node: NodeKey, bound: dict[Chain, dict[int, ProgramId]], layers: Layers
    ) -> Iterator[PodBinding]:
        items = self._living.items
        for at in sorted(self._pods.get(node, ()), key=lambda at: items[at].key):
            item = items[at]
            inbound, outbound = (
                (
                    *((bound[chain][at],) if at in bound[chain] else ()),
                    *layers.of(chain, at),
                )
                for chain in _POD
            )
            if inbound or outbound:
                uid = item.key.rpartition("/")[2]
                yield PodBinding(
                    uid=uid,
                    namespace=item.namespace,
                    name=item.name,
                    addresses=item.addresses,
                    inbound=inbound,
                    outbound=outbound,
                    guarded=item.net_admin,
                )

    def _safe(self, item: Item, who: Who) -> tuple[tuple[Rule, ...], tuple[Rule, ...]]:
        alike = item.cluster, item.kind
        if alike not in self._fail_safes:
            access = self._surroundings.access
            self._fail_safes[alike] = fail_safes(self._living, item, access, who.sets)
        return self._fail_safes[alike]


def _home(pod: Item) -> NodeKey:
    return pod.cluster, NodeName(pod.node)


def _exposures(cluster: ClusterId, who: Who, fail_safes: Sequence[Rule]) -> Iterator[Exposure]:
    """At which ports the nodes of a Kubernetes cluster receive for Services.

    Of external addresses not those of the nodes at ports that their inbound fail-safes keep open,
    nor API servers at their own: no Service may claim these.
    """
    node_ports: dict[int, set[int]] = {}
    exposures = []
    nodes, servers = node_addresses(who.snapshot, cluster), api_servers(who.snapshot, cluster)
    for front in who.fronts.all:
        port = front.port
        if front.service.cluster != cluster:
            continue
        if port.node_port:
            node_ports.setdefault(port.protocol, set()).add(port.node_port)
        if front.external_addresses:
            ports, received = (PortRange(port.port, port.port),), who.balancer(front)
            dialled = port.protocol, port.port
            kept_open = {address for address, at in servers if dialled == (TCP, at)}
            if any(fits(*dialled, rule.protocol, rule.ports) for rule in fail_safes):
                kept_open.update(nodes)
            if not kept_open.isdisjoint(front.external_addresses):
                claimed = set(front.external_addresses) - kept_open
                meaning = f"load balancer of {front.service.key} but what is open at {dialled}"
                received = who.sets.name(meaning, of_addresses(claimed))
            exposures.append(Exposure(port.protocol, ports, received))
    for protocol, numbers in sorted(node_ports.items()):
        yield Exposure(protocol, tuple(PortRange(one, one) for one in sorted(numbers)), None)
    yield from exposures
