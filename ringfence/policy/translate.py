"""From intent to rules: what each enforced policy means in each workload's own namespace.

A rule in a namespace sees one hop. A consumer's sees the address that was dialled, before DNAT;
a provider's sees the source that is left after masquerading; a node's, before DNAT, sees both as
sent. Where a rule cannot be exact the kernel may allow more than the policy says, never less, and
every such widening is reported:

- a policy on workloads admits the Services in front of them: ALLOW if it means any of a Service's
  backends, DENY if it means all of them;
- a provider behind a masquerading NodePort or load balancer admits node addresses, and the rule
  of the node that receives the connection carries the true source;
- a pod that dials its own Service comes back from an address of its node, so an ALLOW that names
  the pod at both ends admits those;
- a policy on a Service meets at a backend whatever reaches the same target port, so a DENY is
  left to the consumers if another Service shares that port.

A LOG decides nothing and becomes no rule: what it matches is found among the flows that agents
report, whatever becomes of them.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pyroaring import BitMap

from ringfence.model.ids import ItemKey
from ringfence.model.policy import Action, Direction
from ringfence.model.verdict import Decision
from ringfence.model.workload import ItemKind
from ringfence.policy.hop import Hop
from ringfence.policy.inbound import Inbound
from ringfence.policy.layer import OrderedRule
from ringfence.policy.order import PolicySet
from ringfence.policy.outbound import Outbound
from ringfence.policy.program import Rule
from ringfence.policy.sets import of_addresses
from ringfence.policy.who import Who


@dataclass(frozen=True, slots=True)
class Widening:
    """At a workload the rules of a decision admit more than it says; `text` says what."""

    decision: Decision
    workload: ItemKey
    text: str


class Translator:
    """Turns the rules of a policy set into those of each workload's namespace, in order."""

    def __init__(self, policy_set: PolicySet) -> None:
        self.who = Who(policy_set)
        self._policy_set = policy_set
        self._snapshot = policy_set.snapshot
        self._inbound = Inbound(self.who)
        self._outbound = Outbound(self.who)
        self._widenings: dict[Widening, None] = {}

    @property
    def widenings(self) -> tuple[Widening, ...]:
        """What the rules made so far admit beyond their policies."""
        return tuple(self._widenings)

    def rules(self, direction: Direction) -> dict[int, list[Rule]]:
        """The rules of each governed workload's own namespace, by its position."""
        found: dict[int, list[Rule]] = {at: [] for at in self._policy_set.governed}
        for rule in self._policy_set.rules:
            if not rule.decides(direction) or rule.action is Action.LOG:
                continue
            outbound = direction is Direction.OUTBOUND
            for at in rule.members & self._meant(rule, outbound=outbound):
                hops = (self._outbound if outbound else self._inbound).rules(rule, at)
                found[at] += self._keep(rule, at, hops)
        return found

    def received(self) -> dict[int, list[Rule]]:
        """The rules of each governed node on what it receives for Services, before DNAT."""
        found: dict[int, list[Rule]] = {}
        for at in self._policy_set.governed:
            if self._snapshot.items[at].kind is ItemKind.NODE:
                found[at] = []
        for rule in self._policy_set.rules:
            if rule.action is Action.LOG or not rule.decides(Direction.INBOUND):
                continue
            if rule.provider.services or rule.provider.anyone:
                for at in rule.members & BitMap(found):
                    found[at] += self._keep(rule, at, self._inbound.received(rule, at))
        return found

    def _keep(self, rule: OrderedRule, at: int, hops: Iterable[Hop]) -> Iterator[Rule]:
        for hop in hops:
            if hop.widening:
                key = self._snapshot.items[at].key
                self._widenings[Widening(rule.decision, key, hop.widening)] = None
            if hop.rule is not None:
                yield hop.rule

    def _meant(self, rule: OrderedRule, *, outbound: bool) -> BitMap:
        """The positions of the workloads that are the rule's own end in that direction."""
        end, other = (rule.consumer, rule.provider) if outbound else (rule.provider, rule.consumer)
        if end.anyone:
            return self._policy_set.governed
        found = end.items | self.who.sets.holders(end.ranges)
        if end.own_node:
            found |= self.who.nodes_of(other)
        if not outbound:
            for front in self.who.fronts.of_services(end.services, rule.protocol, rule.ports):
                found |= self.who.sets.holders(of_addresses(b.address for b in front.backends))
        return found
