"""From the rules of workloads to what each node enforces.

Pure, and independent of the order of its inputs: equal policies over equal inventories give
equal bytes.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from ringfence.model.address import Address, Network
from ringfence.model.ids import ClusterId, NodeName
from ringfence.model.policy import Direction
from ringfence.model.protocol import PortRange
from ringfence.model.workload import Item, ItemKind
from ringfence.policy.failsafe import NodeAccess, fail_safes
from ringfence.policy.gate import Gates
from ringfence.policy.kubernetes.rules import KubernetesLayer
from ringfence.policy.kubernetes.translate import KubernetesTranslator
from ringfence.policy.order import PolicySet
from ringfence.policy.program import (
    Exposure,
    NodeBinding,
    NodePolicy,
    PodBinding,
    Program,
    ProgramId,
    Rule,
    SetId,
)
from ringfence.policy.translate import Translator, Widening

_DIGEST = 16


@dataclass(frozen=True, slots=True)
class Compiled:
    """What every node enforces, and where that is wider than the policies say."""

    policies: dict[tuple[ClusterId, NodeName], NodePolicy]
    widenings: tuple[Widening, ...]


def compile_policies(
    policy_set: PolicySet,
    control_plane: Iterable[tuple[Address, int]],
    access: NodeAccess = NodeAccess(),  # noqa: B008 - frozen
    kubernetes: Iterable[KubernetesLayer] = (),
) -> Compiled:
    """Compile for every node and host of the inventory, governed or not.

    `control_plane` is where agents reach it, (address, TCP port); `kubernetes` the layers of the
    same inventory that pods must satisfy besides.
    """
    compiler = _Compiler(policy_set, kubernetes, tuple(sorted(control_plane)), access)
    return Compiled(compiler.policies(), compiler.widenings)


class _Compiler:
    def __init__(
        self,
        policy_set: PolicySet,
        kubernetes: Iterable[KubernetesLayer],
        control_plane: tuple[tuple[Address, int], ...],
        access: NodeAccess,
    ) -> None:
        self.translator = Translator(policy_set)
        self._snapshot = policy_set.snapshot
        self._control_plane = control_plane
        self._access = access
        self._gates = Gates(policy_set)
        self._programs: dict[ProgramId, Program] = {}
        self._inbound = self._share(self.translator.rules(Direction.INBOUND))
        self._outbound = self._share(self.translator.rules(Direction.OUTBOUND))
        self._received = self._share(self.translator.received())
        who = self.translator.who
        layers = [KubernetesTranslator(one, who.sets, who.fronts) for one in kubernetes]
        self._pods = {
            direction: [first, *(self._share(layer.rules(direction)) for layer in layers)]
            for direction, first in (
                (Direction.INBOUND, self._inbound),
                (Direction.OUTBOUND, self._outbound),
            )
        }
        """For each direction the programs of pods, layer by layer."""
        found = (self.translator.widenings, *(layer.widenings for layer in layers))
        self.widenings = tuple(one for some in found for one in some)

    def policies(self) -> dict[tuple[ClusterId, NodeName], NodePolicy]:
        pods: dict[tuple[ClusterId, str], list[PodBinding]] = {}
        for at in sorted({at for layers in self._pods.values() for held in layers for at in held}):
            item = self._snapshot.items[at]
            if item.kind is ItemKind.POD:
                pods.setdefault((item.cluster, item.node), []).append(self._pod(at, item))
        return {
            (item.cluster, NodeName(item.name)): self._node(
                at, item, tuple(pods.get((item.cluster, item.name), ()))
            )
            for at, item in enumerate(self._snapshot.items)
            if item.kind in (ItemKind.NODE, ItemKind.HOST)
        }

    def _share(self, rules: dict[int, list[Rule]]) -> dict[int, ProgramId]:
        """Workloads' programs, equal ones once."""
        shared: dict[tuple[Rule, ...], ProgramId] = {}
        named: dict[int, ProgramId] = {}
        for at, held in rules.items():
            effective = _effective(held)
            if effective not in shared:
                program = Program(effective)
                shared[effective] = _program_id(program)
                self._programs[shared[effective]] = program
            named[at] = shared[effective]
        return named

    def _pod(self, at: int, item: Item) -> PodBinding:
        return PodBinding(
            uid=item.key.rpartition("/")[2],
            namespace=item.namespace,
            name=item.name,
            addresses=item.addresses,
            inbound=self._bound_to(at, Direction.INBOUND),
            outbound=self._bound_to(at, Direction.OUTBOUND),
            guarded=item.net_admin,
        )

    def _bound_to(self, at: int, direction: Direction) -> tuple[ProgramId, ...]:
        return tuple(held[at] for held in self._pods[direction] if at in held)

    def _node(self, at: int, item: Item, pods: tuple[PodBinding, ...]) -> NodePolicy:
        received = self._received.get(at)
        safe_in, safe_out = fail_safes(self._snapshot, item, self._access, self.translator.who.sets)
        governed = at in self._inbound or at in self._outbound
        binding = NodeBinding(
            addresses=item.addresses,
            inbound=self._inbound.get(at),
            outbound=self._outbound.get(at),
            received=received,
            exposures=self._exposures(item.cluster) if received else (),
            fail_safes_in=safe_in if governed else (),
            fail_safes_out=safe_out if governed else (),
        )
        programs = self._bound(pods, binding)
        return NodePolicy(
            kubernetes_cluster=item.cluster,
            node=NodeName(item.name),
            sets=self._sets(programs, binding),
            programs=programs,
            pods=pods,
            binding=binding,
            control_plane=self._control_plane,
            gate=self._gates.of(item),
        )

    def _exposures(self, cluster: ClusterId) -> tuple[Exposure, ...]:
        node_ports: dict[int, set[int]] = {}
        exposures = []
        for front in self.translator.who.fronts.all:
            port = front.port
            if front.service.cluster != cluster:
                continue
            if port.node_port:
                node_ports.setdefault(port.protocol, set()).add(port.node_port)
            if front.external_addresses:
                local = self.translator.who.balancer(front)
                ports = (PortRange(port.port, port.port),)
                exposures.append(Exposure(port.protocol, ports, local))
        own = [
            Exposure(protocol, tuple(PortRange(port, port) for port in sorted(ports)), None)
            for protocol, ports in sorted(node_ports.items())
        ]
        return (*own, *exposures)

    def _bound(self, pods: tuple[PodBinding, ...], node: NodeBinding) -> dict[ProgramId, Program]:
        bound: set[ProgramId | None] = set()
        bound.update(program for pod in pods for program in (*pod.inbound, *pod.outbound))
        bound |= {node.inbound, node.outbound, node.received}
        return {name: self._programs[name] for name in sorted(filter(None, bound))}

    def _sets(
        self, programs: dict[ProgramId, Program], node: NodeBinding
    ) -> dict[SetId, tuple[Network, ...]]:
        rules = [rule for program in programs.values() for rule in program.rules]
        rules += [*node.fail_safes_in, *node.fail_safes_out]
        used = {held for rule in rules for held in (rule.peers, rule.local) if held}
        used |= {exposure.local for exposure in node.exposures if exposure.local}
        return {name: self.translator.who.sets.networks(name) for name in sorted(used)}


def _effective(rules: Iterable[Rule]) -> tuple[Rule, ...]:
    """The rules that can be reached: none after one that matches everything, none twice."""
    kept: dict[tuple[object, ...], Rule] = {}
    for rule in rules:
        kept.setdefault((rule.protocol, rule.ports, rule.peers, rule.local), rule)
        if rule.protocol is None and not rule.ports and not rule.peers and not rule.local:
            break
    return tuple(kept.values())


def _program_id(program: Program) -> ProgramId:
    digest = hashlib.sha256(msgspec.json.encode(program, order="deterministic"))
    return ProgramId("p" + digest.hexdigest()[:_DIGEST])
