"""Recorded cases of others: clusters, policies, and the verdicts that upstream's semantics demand.

Two forms: cyclonus' conversations (steps that change a cluster, each with truth tables of all its
pods) and the conformance tests of network-policy-api (probes, each step by itself).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from ringfence.model.address import Address, parse_address
from ringfence.model.policy import Action
from ringfence.model.verdict import EndRole, Verdict
from ringfence.model.workload import ContainerPort
from ringfence.policy.connection import Connection, tabulate
from ringfence.policy.errors import FieldError, PolicyError
from ringfence.policy.evaluate import UNGOVERNED, Verdicts, evaluate
from ringfence.policy.explain import explain
from ringfence.policy.kubernetes.cluster import Cluster, KubernetesLabels, Node, Pod
from ringfence.policy.kubernetes.fields import convert
from ringfence.policy.kubernetes.fields import protocol as read_protocol
from ringfence.policy.kubernetes.manifests import Manifest, read_policies
from ringfence.policy.kubernetes.policies import KubernetesPolicy
from ringfence.policy.kubernetes.rules import KubernetesLayer
from ringfence.policy.layer import RuleLayer

Key = tuple[str, str]
_ALLOWED = "."


class CasePort(msgspec.Struct, frozen=True):
    """A port that a pod serves."""

    port: int
    protocol: str
    name: str = ""


class CasePod(msgspec.Struct, frozen=True):
    """A pod of a case, with one address."""

    namespace: str
    name: str
    ip: str
    labels: dict[str, str] = {}
    ports: list[CasePort] = []
    node: str = ""
    host_network: bool = False

    def pod(self) -> Pod:
        """The pod as the layer knows it."""
        ports = tuple(
            ContainerPort(one.name, read_protocol(one.protocol, "protocol"), one.port)
            for one in self.ports
        )
        addresses = (parse_address(self.ip),)
        return Pod(
            self.namespace, self.name, self.labels, addresses, self.node, self.host_network, ports
        )


class CaseNode(msgspec.Struct, frozen=True):
    """A node of a case."""

    labels: dict[str, str]
    ips: list[str]


class CaseCluster(msgspec.Struct, frozen=True):
    """The cluster that a case begins with."""

    namespaces: dict[str, dict[str, str]]
    pods: list[CasePod]
    nodes: dict[str, CaseNode] = {}


@dataclass(frozen=True, slots=True)
class Question:
    """One connection and what is expected of it; an end of None is not told by the case."""

    source: str
    target: str
    protocol: str
    connection: Connection
    ingress: bool | None
    egress: bool | None
    allowed: bool


@dataclass(frozen=True)
class Step:
    """The state of a cluster, and questions about it."""

    case: str
    number: int
    layer: KubernetesLayer
    questions: Sequence[Question]


@dataclass(frozen=True, slots=True)
class Answer:
    """What was computed for a question; `reasons` are given only where it is not as expected."""

    question: Question
    ingress: bool
    egress: bool
    reasons: Verdict | None

    @property
    def allowed(self) -> bool:
        """Whether both ends allow the connection."""
        return self.ingress and self.egress


def answer(step: Step) -> Iterator[Answer]:
    """Judge the questions of a step."""
    columns = tabulate(step.layer.snapshot, [one.connection for one in step.questions])
    verdicts = evaluate(step.layer, columns)
    ingress = _allows(step.layer, verdicts, EndRole.PROVIDER)
    egress = _allows(step.layer, verdicts, EndRole.CONSUMER)
    for row, question in enumerate(step.questions):
        into, out = bool(ingress[row]), bool(egress[row])
        differs = (into and out) != question.allowed or any(
            expected is not None and expected != computed
            for expected, computed in ((question.ingress, into), (question.egress, out))
        )
        reasons = explain([step.layer], columns.take([row]))[0] if differs else None
        yield Answer(question, into, out, reasons)


def _allows(layer: RuleLayer, verdicts: Verdicts, role: EndRole) -> NDArray[np.bool_]:
    allows = np.array([rule.action is Action.ALLOW for rule in layer.rules] + [True])
    places = verdicts.deciding(role)
    found: NDArray[np.bool_] = allows[places] | (places == UNGOVERNED)
    return found


def read_cases(name: str, data: Any, cluster: Any) -> Iterator[Step]:
    """The steps of a file `name` that holds a case of cyclonus, or several of network-policy-api.

    `cluster` is that of the latter, None where there is none. Raises PolicyError.
    """
    if isinstance(data, dict) and "resources" in data:
        yield from _conversation(name, data)
        return
    if cluster is None:
        raise PolicyError(f"{name}: not a case of cyclonus, and no cluster.json beside it")
    given = convert(cluster, CaseCluster, "")
    for case in data if isinstance(data, list) else [data]:
        for number, step in enumerate(_field(case, "steps"), 1):
            yield _probes(name, str(_field(case, "name")), number, step, given)


def _field(given: Any, name: str) -> Any:
    if not isinstance(given, Mapping) or name not in given:
        raise FieldError(name, "expected this field in the case")
    return given[name]


def _conversation(name: str, case: Any) -> Iterator[Step]:
    given = convert(_field(case, "resources"), CaseCluster, "resources")
    namespaces: dict[str, KubernetesLabels] = dict(given.namespaces)
    pods = {(one.namespace, one.name): one for one in given.pods}
    policies: dict[Key, Any] = {}
    for number, step in enumerate(_field(case, "steps"), 1):
        for action in _field(step, "actions"):
            _act(action, namespaces, pods, policies)
        layer = KubernetesLayer(
            Cluster(namespaces, (one.pod() for one in pods.values())),
            _policies(Manifest(name, number, one) for one in policies.values()),
        )
        yield Step(str(_field(case, "name")), number, layer, _tables(step, pods))


def _act(
    action: Any,
    namespaces: dict[str, KubernetesLabels],
    pods: dict[Key, CasePod],
    policies: dict[Key, Any],
) -> None:
    match action:
        case {"action": "create_policy" | "update_policy", "policy": {"metadata": meta} as policy}:
            policies[meta.get("namespace", "default"), meta["name"]] = policy
        case {"action": "delete_policy", "namespace": namespace, "name": name}:
            del policies[namespace, name]
        case {
            "action": "create_namespace" | "set_namespace_labels",
            "namespace": namespace,
            "labels": labels,
        }:
            namespaces[namespace] = labels
        case {"action": "delete_namespace", "namespace": namespace}:
            del namespaces[namespace]
            for key in [key for key in pods if key[0] == namespace]:
                del pods[key]
            for key in [key for key in policies if key[0] == namespace]:
                del policies[key]
        case {"action": "create_pod"}:
            pod = convert(action.get("pod", action), CasePod, "pod")
            pods[pod.namespace, pod.name] = pod
        case {"action": "set_pod_labels", "namespace": namespace, "name": name, "labels": labels}:
            pods[namespace, name] = msgspec.structs.replace(pods[namespace, name], labels=labels)
        case {"action": "delete_pod", "namespace": namespace, "name": name}:
            del pods[namespace, name]
        case _:
            raise FieldError("actions", f"expected an action that is known, not {action!r:.100}")


def _tables(step: Any, pods: Mapping[Key, CasePod]) -> list[Question]:
    names = _field(step, "pods")
    addresses = {"/".join(key): parse_address(pod.ip) for key, pod in pods.items()}
    questions = []
    for key, tables in _field(step, "expected").items():
        protocol, _, port = key.partition("/")
        for row, source in enumerate(names):
            for column, target in enumerate(names):
                ingress, egress, allowed = (
                    tables[table][row][column] == _ALLOWED
                    for table in ("ingress", "egress", "combined")
                )
                connection = _direct(addresses[source], addresses[target], protocol, int(port))
                questions.append(
                    Question(source, target, protocol, connection, ingress, egress, allowed)
                )
    return questions


def _probes(file: str, case: str, number: int, step: Any, given: CaseCluster) -> Step:
    nodes = [
        Node(name, node.labels, tuple(map(parse_address, node.ips)))
        for name, node in given.nodes.items()
    ]
    cluster = Cluster(_field(step, "namespaces"), (one.pod() for one in given.pods), nodes)
    manifests = (Manifest(f"{file}: {case}", at, one) for at, one in enumerate(step["policies"], 1))
    addresses = {f"{one.namespace}/{one.name}": parse_address(one.ip) for one in given.pods}
    questions = [
        Question(
            probe["from"],
            probe["to"],
            probe["protocol"],
            _direct(
                addresses[probe["from"]],
                parse_address(probe["to_ip"]),
                probe["protocol"],
                probe["port"],
            ),
            None,
            None,
            probe["allowed"],
        )
        for probe in _field(step, "probes")
    ]
    return Step(case, number, KubernetesLayer(cluster, _policies(manifests)), questions)


def _policies(manifests: Iterable[Manifest]) -> tuple[KubernetesPolicy, ...]:
    """All of the manifests: a case without one of its policies would be another case."""
    listed = list(manifests)
    for one in listed:
        if not one.is_policy:
            raise one.refusal(FieldError("apiVersion", "expected a policy that is read here"))
    return read_policies(listed)


def _direct(source: Address, target: Address, protocol: str, port: int) -> Connection:
    return Connection(read_protocol(protocol, "protocol"), source, target, port, target, port)
