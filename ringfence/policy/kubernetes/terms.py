"""Filters as what Kubernetes' policies can select: unions of label selectors over pods.

A filter may hold for nodes and hosts as well, and by keys that no selector knows. A term tells what
is left of one of its alternatives: selectors, and whether only pods can satisfy it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product

from ringfence.model import labels
from ringfence.model.query import And, Compare, Everything, Not, Operator, Or, Query
from ringfence.model.workload import WORKLOAD_KINDS, ItemKind
from ringfence.policy.errors import InexpressibleError
from ringfence.policy.kubernetes.cluster import NAMESPACE_NAME
from ringfence.policy.kubernetes.fields import is_label_key, is_label_value
from ringfence.policy.kubernetes.policies import Pods, Requirement, Requires, Selector

_MOST_TERMS = 64
"""Of one end. More are a sign that the filter says it in a way that selectors cannot."""
_NEGATED = {
    Requires.IN: Requires.NOT_IN,
    Requires.NOT_IN: Requires.IN,
    Requires.EXISTS: Requires.DOES_NOT_EXIST,
    Requires.DOES_NOT_EXIST: Requires.EXISTS,
}
_COMPARED = {
    Operator.EQ: Requires.IN,
    Operator.NE: Requires.NOT_IN,
    Operator.IN: Requires.IN,
    Operator.EXISTS: Requires.EXISTS,
}


@dataclass(frozen=True, slots=True)
class Term:
    """An alternative of a filter: pods that meet both selectors.

    `pods_only` is False where nodes or hosts may satisfy the filter this way too, `has_pods` where
    no pod can.
    """

    namespaces: Selector = ()
    pods: Selector = ()
    pods_only: bool = False
    has_pods: bool = True

    @property
    def selected(self) -> Pods:
        """The pods."""
        return Pods(self.namespaces, self.pods)

    def namespace_names(self, known: Iterable[str]) -> list[str] | None:
        """The namespaces, sorted; those `known` where the term names none, None without these."""
        allowed, forbidden = _bounds(self.namespaces).get(NAMESPACE_NAME, (None, set()))
        meant = set(known) if allowed is None else allowed
        other = any(one.key != NAMESPACE_NAME for one in self.namespaces)
        return sorted(meant - forbidden) if meant and not other else None


def terms(query: Query, cluster: str) -> list[Term]:
    """The alternatives of a filter in the Kubernetes cluster of that name, none twice.

    Those that nothing can satisfy are left out. Raises InexpressibleError for a condition that is
    neither about namespaces, labels of pods and namespaces, nor constant there.
    """
    found = dict.fromkeys(term for term in _alternatives(query, cluster) if _is_possible(term))
    return list(found)


def _alternatives(query: Query, cluster: str, *, negated: bool = False) -> list[Term]:
    match query:
        case Everything():
            return [] if negated else [Term()]
        case Not(inner):
            return _alternatives(inner, cluster, negated=not negated)
        case And(queries) | Or(queries):
            parts = [_alternatives(one, cluster, negated=negated) for one in queries]
            if isinstance(query, Or) is not negated:
                return _bounded([term for part in parts for term in part])
            joined = [Term()]
            for part in parts:
                pairs = product(_bounded(joined), part)
                joined = [both for one, other in pairs if _is_possible(both := _both(one, other))]
            return _bounded(joined)
        case Compare():
            return [_literal(query, cluster, negated=negated)]


def _bounded(found: list[Term]) -> list[Term]:
    if len(found) > _MOST_TERMS:
        raise InexpressibleError(f"the filter stands for more than {_MOST_TERMS} selectors")
    return found


def _both(one: Term, other: Term) -> Term:
    return Term(
        _sorted({*one.namespaces, *other.namespaces}),
        _sorted({*one.pods, *other.pods}),
        one.pods_only or other.pods_only,
        one.has_pods and other.has_pods,
    )


def _literal(compare: Compare, cluster: str, *, negated: bool) -> Term:
    key, values = compare.key, compare.values
    if compare.operator not in _COMPARED:
        raise InexpressibleError(f"no label selector compares by {compare.operator!s}")
    operator = _COMPARED[compare.operator]
    if negated:
        operator = _NEGATED[operator]
    positive = operator in (Requires.IN, Requires.EXISTS)
    if key == labels.KIND:
        meant = set(values or ItemKind)
        kinds = meant if positive else set(ItemKind) - meant
        others = kinds & (WORKLOAD_KINDS - {ItemKind.POD})
        return Term(pods_only=not others, has_pods=ItemKind.POD in kinds)
    if key == labels.CLUSTER:
        if not cluster:
            raise InexpressibleError("which Kubernetes cluster is it for? Name it with --cluster")
        return Term(has_pods=(not values or cluster in values) is positive)
    if key == labels.NAMESPACE:
        if not values:
            return Term(pods_only=positive, has_pods=positive)
        return Term(namespaces=(_requires(NAMESPACE_NAME, operator, values),), pods_only=positive)
    if key.startswith(labels.NAMESPACE_LABEL_PREFIX):
        name = key.removeprefix(labels.NAMESPACE_LABEL_PREFIX)
        return Term(namespaces=(_requires(name, operator, values),), pods_only=positive)
    if key.startswith(labels.LABEL_PREFIX):
        return Term(pods=(_requires(key.removeprefix(labels.LABEL_PREFIX), operator, values),))
    raise InexpressibleError(f"no label selector knows {key}")


def _requires(key: str, operator: Requires, values: Iterable[str]) -> Requirement:
    if not is_label_key(key):
        raise InexpressibleError(f"{key[:64]!r} is no key of a label")
    for value in values:
        if not is_label_value(value):
            raise InexpressibleError(f"{value[:64]!r} is no value of a label")
    return Requirement(key, operator, tuple(sorted(set(values))))


def _sorted(requirements: Iterable[Requirement]) -> Selector:
    return tuple(sorted(requirements))


def _is_possible(term: Term) -> bool:
    """Whether anything may satisfy the term; nodes and hosts have neither selector."""
    met = all(_can_be_met(one) for one in (term.namespaces, term.pods))
    return met and (term.has_pods or not term.pods_only)


def _can_be_met(selector: Selector) -> bool:
    keys = _bounds(selector)
    for key, (allowed, forbidden) in keys.items():
        operators = {one.operator for one in selector if one.key == key}
        present = operators & {Requires.IN, Requires.EXISTS}
        if allowed is not None and not allowed - forbidden:
            return False
        if present and Requires.DOES_NOT_EXIST in operators:
            return False
    return True


def _bounds(selector: Selector) -> dict[str, tuple[set[str] | None, set[str]]]:
    """By key, the values that it may have, None for any, and those that it may not."""
    found: dict[str, tuple[set[str] | None, set[str]]] = {}
    for one in selector:
        allowed, forbidden = found.get(one.key, (None, set()))
        values = set(one.values)
        if one.operator is Requires.IN:
            allowed = values if allowed is None else allowed & values
        elif one.operator is Requires.NOT_IN:
            forbidden = forbidden | values
        found[one.key] = allowed, forbidden
    return found
