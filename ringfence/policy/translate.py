"""From intent to rules: what each enforced policy means in each workload's own namespace.

A rule in a namespace sees one hop. A consumer's sees the address that was dialled, before DNAT;
a provider's sees the source that is left after masquerading; a node's, before DNAT, sees both as
sent. Where a rule cannot be exact the kernel may allow more than the policy says, never less, and
every such widening is reported:

- a policy on workloads admits the Services in front of them: ALLOW if it means any of a Service's
  backends, DENY if it means all of them; a pod's node, which sees who answers, judges the rest;
- a provider behind a masquerading NodePort or load balancer admits node addresses, and the rule
  of the node that receives the connection carries the true source;
- a pod that dials its own Service comes back from an address of its node, so an ALLOW that names
  the pod at both ends admits those;
- a policy on a Service meets at a backend whatever reaches the same target port, so a DENY is
  left to the consumers if another Service shares that port.

A LOG decides nothing and becomes no rule: what it matches is found among the flows that agents
report, whatever becomes of them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from pyroaring import BitMap

from ringfence.model.ids import ItemKey
from ringfence.model.policy import Action, Direction
from ringfence.model.verdict import Decision
from ringfence.policy.hop import Hop
from ringfence.policy.inbound import Inbound
from ringfence.policy.layer import OrderedRule
from ringfence.policy.outbound import Outbound
from ringfence.policy.sets import of_addresses
from ringfence.policy.who import Who


@dataclass(frozen=True, slots=True)
class Widening:
    """At a workload the rules of a decision admit more than it says; `text` says what."""

    decision: Decision
    workload: ItemKey
    text: str


class Chain(Enum):
    """Where rules of a workload stand."""

    INBOUND = Direction.INBOUND
    OUTBOUND = Direction.OUTBOUND
    RECEIVED = "received"
    """On what a node receives for Services, before DNAT."""


class Translator:
    """Turns rules into those of each workload's namespace, as long as the inventory stays."""

    def __init__(self, who: Who) -> None:
        self._who = who
        self._inbound = Inbound(who)
        self._outbound = Outbound(who)

    def rules(self, rule: OrderedRule, chain: Chain) -> Iterator[tuple[int, tuple[Hop, ...]]]:
        """What a rule becomes at each workload, by its position, in order."""
        received = chain is Chain.RECEIVED
        direction = Direction.OUTBOUND if chain is Chain.OUTBOUND else Direction.INBOUND
        if rule.action is Action.LOG or not rule.decides(direction):
            return
        if received:
            if rule.provider.services or rule.provider.anyone:
                for at in rule.members & self._who.snapshot.nodes:
                    yield at, tuple(self._inbound.received(rule, at))
            return
        outbound = direction is Direction.OUTBOUND
        for at in rule.members & self._meant(rule, outbound=outbound):
            yield at, (self._outbound if outbound else self._inbound).rules(rule, at)

    def _meant(self, rule: OrderedRule, *, outbound: bool) -> BitMap:
        """The positions of the workloads that are the rule's own end in that direction.

        Which of others hold an address of it is none of the rule's matter.
        """
        end, other = (rule.consumer, rule.provider) if outbound else (rule.provider, rule.consumer)
        if end.anyone:
            return rule.members
        found = end.items | self._who.sets.holders(end.ranges)
        if end.own_node:
            found |= self._who.nodes_of(other)
        if not outbound:
            for front in self._who.fronts.of_services(end.services, rule.protocol, rule.ports):
                found |= self._who.sets.holders(of_addresses(b.address for b in front.backends))
        return found
