"""Scopes and workspaces as YAML text, the form that people keep in git.

    apiVersion: ringfence.io/v1alpha1
    kind: Scope
    metadata: {name: shop}
    spec:
      parent: east
      query: kubernetes.namespace = "shop"

What reads soundly prints back in one canonical form, so that formatting never makes a diff of its
own. What does not is refused with file, line and field; there is no default for what decides
over traffic: a catch-all and a protocol are always written.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import yaml

from ringfence.model.address import Network, parse_network
from ringfence.model.errors import InputError
from ringfence.model.ids import PolicyId, ScopeName, WorkspaceName
from ringfence.model.keys import parse_filter
from ringfence.model.policy import (
    SPOKEN,
    Action,
    CatchAll,
    CidrEnd,
    Cluster,
    ClusterEnd,
    End,
    FilterEnd,
    FqdnEnd,
    OwnNodeEnd,
    Policy,
    Rank,
    ScopeEnd,
    ServiceEnd,
    Workspace,
)
from ringfence.model.protocol import format_protocol, parse_ports, parse_protocol
from ringfence.model.scope import Scope
from ringfence.policy.errors import DocumentError
from ringfence.policy.fields import TAG, Field, suggest

API_VERSION = "ringfence.io/v1alpha1"
DEFAULT_NAMESPACE = "default"
"""The namespace of a Service that is named without one, as for kubectl."""

T = TypeVar("T")
_END_KINDS = ("scope", "cluster", "filter", "service", "cidr", "fqdn", "node")
_BESIDE = {"kubernetesCluster": "service", "except": "cidr"}
DEFAULT_PRIORITY = 100
_MOST_LEVELS = 50
_POLICY_FIELDS = (
    "id",
    "description",
    "rank",
    "priority",
    "action",
    "consumer",
    "provider",
    "protocol",
    "ports",
)


@dataclass(frozen=True, slots=True)
class Documents:
    """What one or more files say."""

    scopes: tuple[Scope, ...] = ()
    workspaces: tuple[Workspace, ...] = ()


def parse_documents(text: str, file_name: str) -> Documents:
    """Read YAML documents; raises DocumentError for the first thing that is not sound."""
    scopes: dict[str, Scope] = {}
    workspaces: dict[str, Workspace] = {}
    for node in _compose(text, file_name):
        document = Field(file_name, "", node)
        given = document.required(
            ("apiVersion", "kind", "metadata", "spec"), "apiVersion", "kind", "metadata", "spec"
        )
        given["apiVersion"].choice([API_VERSION])
        kind = given["kind"].choice(["Scope", "Workspace"])
        name = given["metadata"].required(["name"], "name")["name"]
        known: dict[str, Any] = scopes if kind == "Scope" else workspaces
        if name.text() in known:
            raise name.error(f"there are two {kind}s of the name {name.text()!r}")
        read = _scope if kind == "Scope" else _workspace
        known[name.text()] = read(name.text(), given["spec"])
    return Documents(tuple(scopes.values()), tuple(workspaces.values()))


class _Loader(yaml.SafeLoader):
    """Refuses what nests so deeply that walking it would exhaust the stack."""

    _level = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self._level += 1
        if self._level > _MOST_LEVELS:
            mark = parent.start_mark if parent else None
            raise yaml.MarkedYAMLError(problem=f"over {_MOST_LEVELS} levels", problem_mark=mark)
        node = super().compose_node(parent, index)
        self._level -= 1
        return node


def _compose(text: str, file_name: str) -> list[yaml.Node]:
    try:
        return list(yaml.compose_all(text, Loader=_Loader))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error)
        line = mark.line + 1 if mark else 1
        raise DocumentError(file_name, line, "", f"not YAML: {problem}") from error


def _scope(name: str, spec: Field) -> Scope:
    given = spec.required(("parent", "query", "order"), "query")
    return Scope(
        ScopeName(name),
        ScopeName(given["parent"].text()) if "parent" in given else None,
        given["query"].read(parse_filter, given["query"].text()),
        given["order"].integer() if "order" in given else 0,
    )


def _workspace(name: str, spec: Field) -> Workspace:
    known = ("scope", "primary", "catchAll", "clusters", "policies")
    given = spec.required(known, "scope", "catchAll")
    clusters = _distinct(given.get("clusters"), _cluster, lambda cluster: cluster.name)
    names = [cluster.name for cluster in clusters]
    return Workspace(
        WorkspaceName(name),
        ScopeName(given["scope"].text()),
        given["primary"].boolean() if "primary" in given else True,
        _catch_all(given["catchAll"]),
        clusters,
        _distinct(given.get("policies"), partial(_policy, clusters=names), lambda one: one.id),
    )


def _distinct(
    field: Field | None, read: Callable[[Field], T], name: Callable[[T], str]
) -> tuple[T, ...]:
    """The entries of a list, absent meaning empty; each has a name of its own."""
    found: dict[str, T] = {}
    for entry in field.items() if field else ():
        one = read(entry)
        if name(one) in found:
            raise entry.error(f"{name(one)!r} is given twice")
        found[name(one)] = one
    return tuple(found.values())


def _catch_all(field: Field) -> CatchAll:
    given = field.required(("inbound", "outbound"), "inbound", "outbound")
    return CatchAll(
        Action(given["inbound"].choice(SPOKEN)), Action(given["outbound"].choice(SPOKEN))
    )


def _cluster(field: Field) -> Cluster:
    given = field.required(("name", "query"), "name", "query")
    return Cluster(given["name"].text(), given["query"].read(parse_filter, given["query"].text()))


def _policy(field: Field, clusters: Sequence[str]) -> Policy:
    needed = ("id", "action", "consumer", "provider", "protocol")
    given = field.required(_POLICY_FIELDS, *needed)
    ends = _end(given["consumer"], clusters), _end(given["provider"], clusters)
    protocol = given["protocol"].read(parse_protocol, given["protocol"].word())
    ports = tuple(port.read(parse_ports, port.word()) for port in _listed(given, "ports"))
    said = PolicyId(given["id"].text()), *ends, protocol, ports
    action = Action(given["action"].choice(SPOKEN))
    rank = Rank(given["rank"].choice(Rank)) if "rank" in given else Rank.DEFAULT
    priority = given["priority"].integer() if "priority" in given else DEFAULT_PRIORITY
    description = given["description"].text() if "description" in given else ""
    try:
        return Policy(*said, action, rank, priority, description)
    except InputError as error:
        raise field.error(str(error)) from error


def _listed(given: Mapping[str, Field], name: str) -> list[Field]:
    """The entries of an optional list; one that is there must not be empty, lest it mean all."""
    entries = list(given[name].one_or_more()) if name in given else []
    if name in given and not entries:
        raise given[name].error("is an empty list; leave it out or name something")
    return entries


def _end(field: Field, clusters: Sequence[str]) -> End:
    given = field.fields((*_END_KINDS, *_BESIDE))
    kinds = [kind for kind in _END_KINDS if kind in given]
    if len(kinds) != 1:
        raise field.error(f"an end is exactly one of {', '.join(_END_KINDS)}")
    value = given[kinds[0]]
    for beside, owner in _BESIDE.items():
        if beside in given and owner not in given:
            raise given[beside].error(f"goes with {owner!r} only")
    match kinds[0]:
        case "scope":
            return ScopeEnd(ScopeName(value.text()))
        case "cluster":
            return _cluster_end(value, clusters)
        case "filter":
            return FilterEnd(value.read(parse_filter, value.text()))
        case "service":
            beside_cluster = given.get("kubernetesCluster")
            return _service(value, beside_cluster.text() if beside_cluster else "")
        case "cidr":
            return CidrEnd(_networks(given, "cidr"), _networks(given, "except"))
        case "fqdn":
            return FqdnEnd(value.text())
        case _:
            value.choice(["own"])
            return OwnNodeEnd()


def _cluster_end(field: Field, clusters: Sequence[str]) -> ClusterEnd:
    name = field.text()
    if name not in clusters:
        raise field.error(f"the workspace has no cluster {name!r}{suggest(name, clusters)}")
    return ClusterEnd(name)


def _networks(given: Mapping[str, Field], name: str) -> tuple[Network, ...]:
    return tuple(one.read(parse_network, one.text()) for one in _listed(given, name))


def _service(field: Field, kubernetes_cluster: str) -> ServiceEnd:
    namespace, slash, name = field.text().rpartition("/")
    if not name or "/" in namespace or (slash and not namespace):
        raise field.error("write a Service as name or namespace/name")
    return ServiceEnd(namespace or DEFAULT_NAMESPACE, name, kubernetes_cluster)


class _Inline(dict[str, Any]):
    """A mapping that is written on one line."""


class _Flow(list[Any]):
    """A list that is written on one line."""


_NO_FOLDING = 2**31 - 1


class _Dumper(yaml.SafeDumper):
    """Writes `_Inline` and `_Flow` on one line, and everything else in blocks."""

    def ignore_aliases(self, _data: object) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, indentless=indentless and flow)


# In other styles PyYAML folds line breaks such as U+0085 away.
_Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar(
        f"{TAG}str", text, style=None if text.isprintable() else '"'
    ),
)
_Dumper.add_representer(
    _Inline, lambda dumper, data: dumper.represent_mapping(f"{TAG}map", data, flow_style=True)
)
_Dumper.add_representer(
    _Flow, lambda dumper, data: dumper.represent_sequence(f"{TAG}seq", data, flow_style=True)
)


def format_documents(documents: Documents) -> str:
    """The one text for what the documents say; `parse_documents` reads it back.

    Scopes stand with parents before their children, then workspaces by name. What has its
    default is left out.
    """
    scopes = [
        ("Scope", scope.name, scope_spec(scope)) for scope in _parents_first(documents.scopes)
    ]
    workspaces = [
        ("Workspace", workspace.name, workspace_spec(workspace))
        for workspace in sorted(documents.workspaces, key=lambda workspace: workspace.name)
    ]
    return yaml.dump_all(
        (
            {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}
            for kind, name, spec in [*scopes, *workspaces]
        ),
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        width=_NO_FOLDING,
    )


def _parents_first(scopes: Sequence[Scope]) -> list[Scope]:
    given = {scope.name: scope for scope in scopes}

    def path(scope: Scope) -> list[tuple[int, str]]:
        parent = given.get(scope.parent) if scope.parent else None
        return [*(path(parent) if parent else ()), (scope.order, scope.name)]

    return sorted(scopes, key=path)


def scope_spec(scope: Scope) -> dict[str, Any]:
    """What stands under `spec` of a scope."""
    parent = {"parent": scope.parent} if scope.parent is not None else {}
    order = {"order": scope.order} if scope.order else {}
    return {**parent, "query": str(scope.query), **order}


def workspace_spec(workspace: Workspace) -> dict[str, Any]:
    """What stands under `spec` of a workspace."""
    primary = {} if workspace.primary else {"primary": False}
    catch_all = {
        "inbound": str(workspace.catch_all.inbound),
        "outbound": str(workspace.catch_all.outbound),
    }
    clusters = [{"name": one.name, "query": str(one.query)} for one in workspace.clusters]
    policies = [_policy_spec(policy) for policy in workspace.policies]
    return {
        "scope": workspace.scope,
        **primary,
        "catchAll": _Inline(catch_all),
        **({"clusters": clusters} if clusters else {}),
        **({"policies": policies} if policies else {}),
    }


def _policy_spec(policy: Policy) -> dict[str, Any]:
    ports = _Flow(
        ports.first if ports.first == ports.last else str(ports) for ports in policy.ports
    )
    return {
        "id": policy.id,
        **({"description": policy.description} if policy.description else {}),
        **({"rank": str(policy.rank)} if policy.rank is not Rank.DEFAULT else {}),
        **({"priority": policy.priority} if policy.priority != DEFAULT_PRIORITY else {}),
        "action": str(policy.action),
        "consumer": _end_spec(policy.consumer),
        "provider": _end_spec(policy.provider),
        "protocol": format_protocol(policy.protocol),
        **({"ports": ports} if ports else {}),
    }


def _end_spec(end: End) -> _Inline:
    match end:
        case ScopeEnd(scope):
            return _Inline(scope=scope)
        case ClusterEnd(name):
            return _Inline(cluster=name)
        case FilterEnd(query):
            return _Inline(filter=str(query))
        case ServiceEnd(namespace, name, kubernetes_cluster):
            where = {"kubernetesCluster": kubernetes_cluster} if kubernetes_cluster else {}
            return _Inline(service=f"{namespace}/{name}", **where)
        case CidrEnd(networks, exceptions):
            excepted = {"except": _one_or_list(exceptions)} if exceptions else {}
            return _Inline(cidr=_one_or_list(networks), **excepted)
        case FqdnEnd(name):
            return _Inline(fqdn=name)
        case OwnNodeEnd():
            return _Inline(node="own")


def _one_or_list(networks: tuple[Network, ...]) -> str | _Flow:
    return str(networks[0]) if len(networks) == 1 else _Flow(map(str, networks))
