"""What the last directive asks for in each namespace: decided here, and done elsewhere."""

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, replace

from ringfence.agent.pods import Place
from ringfence.policy import program
from ringfence.policy.backends.interface import Backend, Ruleset, UnsupportedError
from ringfence.policy.program import (
    NO_GUARDED,
    Guarded,
    NodeBinding,
    NodePolicy,
    Passage,
    PodBinding,
)
from ringfence.wire.generated.agent_pb2 import Directive


@dataclass(frozen=True, slots=True)
class Order:
    """What to enforce; `policy` None means: take every rule away."""

    revision: int
    policy: NodePolicy | None


@dataclass(frozen=True, slots=True)
class Plan:
    """The rules each namespace should have, None for none, and why some cannot be said."""

    policy: NodePolicy | None
    rulesets: Mapping[Place, Ruleset | None]
    problems: Mapping[Place, str]

    def without(self, places: Container[Place]) -> "Plan":
        """The plan but for some namespaces, to be decided anew."""
        kept = {place: rules for place, rules in self.rulesets.items() if place not in places}
        return replace(self, rulesets=kept)


NOTHING = Plan(None, {}, {})


def read_order(directive: Directive) -> Order:
    """Read a directive; raises InputError."""
    return Order(directive.revision, read_policy(directive.node_policy))


def read_policy(data: bytes) -> NodePolicy | None:
    """Read a policy from a directive, None for no rules; raises InputError."""
    return program.decode(data) if data else None


def plan(
    policy: NodePolicy | None,
    places: Iterable[Place],
    backend: Backend,
    released: Iterable[Passage] = (),
    guarded: Guarded = NO_GUARDED,
    before: Plan = NOTHING,
) -> Plan:
    """Which rules belong in which namespace; the node's depend on whom it sees besides.

    Pods that the policy judges as it did `before` keep the rules of then.
    """
    held = bindings(policy) if policy else {}
    untouched = policy.untouched(before.policy) if policy and before.policy else set()
    rulesets: dict[Place, Ruleset | None] = {}
    problems: dict[Place, str] = {}
    for place in places:
        binding = held.get(place.uid)
        try:
            if policy is None or binding is None:
                rulesets[place] = None
            elif place.uid in untouched and place in before.rulesets:
                rulesets[place] = before.rulesets[place]
            elif isinstance(binding, NodeBinding):
                rulesets[place] = _unless_empty(backend.render_node(policy, released, guarded))
            else:
                rulesets[place] = _unless_empty(backend.render_pod(policy, binding))
        except UnsupportedError as error:
            problems[place] = str(error)
    return Plan(policy, rulesets, problems)


def bindings(policy: NodePolicy) -> dict[str, PodBinding | NodeBinding]:
    """What a policy binds, by the uid of a place."""
    return {"": policy.binding, **{binding.uid: binding for binding in policy.pods}}


def _unless_empty(ruleset: Ruleset) -> Ruleset | None:
    return ruleset if ruleset.frame else None
