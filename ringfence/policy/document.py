"""What people decide as YAML text, the form that they keep in git.

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

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import yaml

from ringfence.model.address_set import (
    AddressSet,
    Fetched,
    Source,
    Uploaded,
    Written,
    check_ranges,
    format_range,
    parse_every,
    parse_range,
    parse_url,
)
from ringfence.model.duration import format_duration
from ringfence.model.errors import InputError
from ringfence.model.ids import AddressSetName, FilterName, ScopeName, WorkspaceName
from ringfence.model.keys import parse_filter
from ringfence.model.policy import SPOKEN, Action, CatchAll, Cluster, Denied, NewPods, Workspace
from ringfence.model.protocol import (
    WITH_PORTS,
    format_protocol,
    parse_one_protocol,
    parse_ports,
)
from ringfence.model.scope import MOST_SCOPE_LEVELS, InventoryFilter, PublicPorts, Scope
from ringfence.policy.errors import DocumentError
from ringfence.policy.fields import Field
from ringfence.policy.policy_fields import (
    Reference,
    format_ports,
    listed,
    policy_spec,
    read_policy,
    refer,
)
from ringfence.policy.yaml_text import Flow, Inline, dump_all

API_VERSION = "ringfence.io/v1alpha1"
KINDS = ("Scope", "Filter", "AddressSet", "Workspace")
"""Of documents, in the order in which they stand."""
T = TypeVar("T")
_MOST_LEVELS = 50
NAME = "[A-Za-z0-9]([-._A-Za-z0-9]{0,251}[A-Za-z0-9])?"
"""The name of a document: it stands in paths of the API, and before an @."""
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Documents:
    """What one or more files say."""

    scopes: tuple[Scope, ...] = ()
    workspaces: tuple[Workspace, ...] = ()
    filters: tuple[InventoryFilter, ...] = ()
    address_sets: tuple[AddressSet, ...] = ()
    references: tuple[Reference, ...] = ()
    """What they name of one another, and where."""


def parse_documents(text: str, file_name: str) -> Documents:
    """Read YAML documents; raises DocumentError for the first thing that is not sound."""
    found: dict[str, dict[str, Any]] = {kind: {} for kind in KINDS}
    references: list[Reference] = []
    names: dict[tuple[str, str], Field] = {}
    readers: dict[str, Callable[[str, Field], Any]] = {
        "Scope": partial(_scope, references=references),
        "Filter": partial(_filter, references=references),
        "AddressSet": _address_set,
        "Workspace": partial(_workspace, references=references),
    }
    for node in _compose(text, file_name):
        document = Field(file_name, "", node)
        given = document.required(
            ("apiVersion", "kind", "metadata", "spec"), "apiVersion", "kind", "metadata", "spec"
        )
        given["apiVersion"].choice([API_VERSION])
        kind = given["kind"].choice(found)
        field = given["metadata"].required(["name"], "name")["name"]
        name = field.name()
        if not re.fullmatch(NAME, name):
            raise field.error("write letters of ASCII, digits, and - . _ between them, at most 253")
        if name in found[kind]:
            raise field.error(f"there are two {kind}s of the name {name!r}")
        found[kind][name] = readers[kind](name, given["spec"])
        names[kind, name] = field
    _check_ancestors(found["Scope"], names)
    return Documents(
        scopes=tuple(found["Scope"].values()),
        workspaces=tuple(found["Workspace"].values()),
        filters=tuple(found["Filter"].values()),
        address_sets=tuple(found["AddressSet"].values()),
        references=tuple(references),
    )


class _Loader(yaml.SafeLoader):
    """Refuses what a few letters make much work of, and what is no Unicode text."""

    _level = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError(problem="an alias: write it out", problem_mark=mark)
        self._level += 1
        if self._level > _MOST_LEVELS:
            raise yaml.MarkedYAMLError(problem=f"over {_MOST_LEVELS} levels", problem_mark=mark)
        node = super().compose_node(parent, index)
        self._level -= 1
        if isinstance(node, yaml.ScalarNode) and _SURROGATE.search(node.value):
            raise yaml.MarkedYAMLError(problem="half a surrogate pair", problem_mark=mark)
        return node


def _compose(text: str, file_name: str) -> list[yaml.Node]:
    try:
        return list(yaml.compose_all(text, Loader=_Loader))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error)
        line = mark.line + 1 if mark else 1
        raise DocumentError(file_name, line, "", f"not YAML: {problem}") from error
    except ValueError as error:  # PyYAML lets those of chr() and int() through
        problem = "not YAML: an escape or a version is out of range"
        raise DocumentError(file_name, 1, "", problem) from error


def _check_ancestors(scopes: Mapping[str, Scope], names: Mapping[tuple[str, str], Field]) -> None:
    """Complain of a scope here that is its own ancestor, or too deep in the tree."""
    for name in scopes:
        above: str | None = name
        for _ in range(MOST_SCOPE_LEVELS):
            held = scopes.get(above) if above is not None else None
            above = held.parent if held else None
        if above is not None:
            raise names["Scope", name].error(
                f"is its own ancestor, or has over {MOST_SCOPE_LEVELS - 1} of them"
            )


def _scope(name: str, spec: Field, references: list[Reference]) -> Scope:
    given = spec.required(("parent", "query", "order"), "query")
    return Scope(
        ScopeName(name),
        ScopeName(refer("scope", given["parent"], references)) if "parent" in given else None,
        given["query"].read(parse_filter, given["query"].text()),
        given["order"].integer() if "order" in given else 0,
    )


def _filter(name: str, spec: Field, references: list[Reference]) -> InventoryFilter:
    given = spec.required(("scope", "query", "restricted", "public"), "scope", "query")
    return InventoryFilter(
        FilterName(name),
        ScopeName(refer("scope", given["scope"], references)),
        given["query"].read(parse_filter, given["query"].text()),
        "restricted" in given and given["restricted"].boolean(),
        tuple(map(_public, listed(given, "public"))),
    )


def _public(field: Field) -> PublicPorts:
    given = field.required(("protocol", "ports"), "protocol")
    protocol = given["protocol"].read(parse_one_protocol, given["protocol"].word())
    ports = tuple(port.read(parse_ports, port.word()) for port in listed(given, "ports"))
    if ports and protocol not in WITH_PORTS:
        raise field.error(f"ports on {format_protocol(protocol)}, which has none")
    return PublicPorts(protocol, ports)


def _address_set(name: str, spec: Field) -> AddressSet:
    given = spec.fields(("addresses", "url", "every", "uploaded"))
    kinds = [kind for kind in ("addresses", "url", "uploaded") if kind in given]
    if len(kinds) != 1:
        raise spec.error("an address set has exactly one of addresses, url, uploaded")
    if ("every" in given) != ("url" in given):
        raise spec.error("`url` and `every`, how often it is asked, go together: every: 12h")
    return AddressSet(AddressSetName(name), _source(kinds[0], given))


def _source(kind: str, given: Mapping[str, Field]) -> Source:
    if kind == "url":
        every = given["every"]
        url = given["url"].read(parse_url, given["url"].text())
        return Fetched(url, every.read(parse_every, every.text()))
    if kind == "uploaded":
        if not given["uploaded"].boolean():
            raise given["uploaded"].error("write true, or name another source")
        return Uploaded()
    ranges = tuple(one.read(parse_range, one.text()) for one in listed(given, "addresses"))
    try:
        check_ranges(ranges)
    except InputError as error:
        raise given["addresses"].error(str(error)) from error
    return Written(ranges)


def _workspace(name: str, spec: Field, references: list[Reference]) -> Workspace:
    known = ("scope", "primary", "newPods", "catchAll", "denied", "clusters", "policies")
    given = spec.required(known, "scope", "catchAll")
    references.append(Reference("scope", given["scope"].text(), given["scope"]))
    clusters = _distinct(given.get("clusters"), _cluster, lambda cluster: cluster.name)
    names = [cluster.name for cluster in clusters]
    read = partial(read_policy, clusters=names, references=references)
    return Workspace(
        WorkspaceName(name),
        ScopeName(refer("scope", given["scope"], references)),
        given["primary"].boolean() if "primary" in given else True,
        _catch_all(given["catchAll"]),
        clusters,
        _distinct(given.get("policies"), read, lambda one: one.id),
        Denied(given["denied"].choice(Denied)) if "denied" in given else Denied.DROP,
        NewPods(given["newPods"].choice(NewPods)) if "newPods" in given else NewPods.OPEN,
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
    return Cluster(given["name"].name(), given["query"].read(parse_filter, given["query"].text()))


def format_documents(documents: Documents) -> str:
    """The one text for what the documents say; `parse_documents` reads it back.

    Scopes stand with parents before their children, then filters, address sets and workspaces, each
    by name. What has
    its default is left out.
    """
    scopes = [
        ("Scope", scope.name, scope_spec(scope)) for scope in _parents_first(documents.scopes)
    ]
    filters = [
        ("Filter", one.name, filter_spec(one))
        for one in sorted(documents.filters, key=lambda one: one.name)
    ]
    address_sets = [
        ("AddressSet", one.name, address_set_spec(one))
        for one in sorted(documents.address_sets, key=lambda one: one.name)
    ]
    workspaces = [
        ("Workspace", workspace.name, workspace_spec(workspace))
        for workspace in sorted(documents.workspaces, key=lambda workspace: workspace.name)
    ]
    return dump_all(
        {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}
        for kind, name, spec in [*scopes, *filters, *address_sets, *workspaces]
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


def filter_spec(one: InventoryFilter) -> dict[str, Any]:
    """What stands under `spec` of a named filter."""
    public = [
        Inline(
            protocol=format_protocol(provided.protocol),
            **({"ports": Flow(map(format_ports, provided.ports))} if provided.ports else {}),
        )
        for provided in one.public
    ]
    return {
        "scope": one.scope,
        "query": str(one.query),
        **({"restricted": True} if one.restricted else {}),
        **({"public": public} if public else {}),
    }


def address_set_spec(one: AddressSet) -> dict[str, Any]:
    """What stands under `spec` of an address set."""
    match one.source:
        case Written(ranges):
            return {"addresses": [format_range(span) for span in ranges]}
        case Fetched(url, every_seconds):
            return {"url": url, "every": format_duration(every_seconds)}
        case Uploaded():
            return {"uploaded": True}


def cluster_spec(cluster: Cluster) -> dict[str, Any]:
    """A cluster of a workspace."""
    return {"name": cluster.name, "query": str(cluster.query)}


def workspace_spec(workspace: Workspace) -> dict[str, Any]:
    """What stands under `spec` of a workspace."""
    primary = {} if workspace.primary else {"primary": False}
    closed = workspace.new_pods is NewPods.CLOSED
    new_pods = {"newPods": str(workspace.new_pods)} if closed else {}
    catch_all = {
        "inbound": str(workspace.catch_all.inbound),
        "outbound": str(workspace.catch_all.outbound),
    }
    denied = {} if workspace.denied is Denied.DROP else {"denied": str(workspace.denied)}
    clusters = list(map(cluster_spec, workspace.clusters))
    policies = [policy_spec(policy) for policy in workspace.policies]
    return {
        "scope": workspace.scope,
        **primary,
        **new_pods,
        "catchAll": Inline(catch_all),
        **denied,
        **({"clusters": clusters} if clusters else {}),
        **({"policies": policies} if policies else {}),
    }
