"""JSON Schema of the documents, for editors that complete and check YAML while it is written.

A schema cannot say all that `policy.document` refuses: whether a filter parses, whether a cluster
is there. What it refuses, that refuses as well.
"""

from typing import Any

from ringfence.model.policy import SPOKEN, SPOKEN_BY_POLICIES, Denied, NewPods, Rank
from ringfence.model.protocol import NAMES, WITH_PORTS
from ringfence.policy.document import API_VERSION, KINDS, NAME
from ringfence.policy.policy_fields import DEFAULT_NAMESPACE, DEFAULT_PRIORITY, OUTSIDE, OWN

Schema = dict[str, Any]

_FILTER = 'A filter, such as kubernetes.namespace = "shop"; see docs/filters.md.'
_PORT_RANGE = "^[0-9]{1,5}(-[0-9]{1,5})?$"
_PORT = "^([0-9]{1,5}(-[0-9]{1,5})?|[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)$"


def document_schema() -> Schema:
    """The schema of one document (JSON Schema draft 2020-12)."""
    name = _text("Letters, digits, and - . _ between them.") | {"pattern": f"^{NAME}$"}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Ringfence scope, filter, address set or workspace",
        "type": "object",
        "required": ["apiVersion", "kind", "metadata", "spec"],
        "properties": {
            "apiVersion": {"const": API_VERSION},
            "kind": {"enum": [*KINDS]},
            "metadata": _object({"name": name}, "name"),
            "spec": {"type": "object"},
        },
        "additionalProperties": False,
        "allOf": [*map(_where, KINDS)],
        "$defs": {
            "Scope": _scope(),
            "Filter": _filter(),
            "AddressSet": _address_set(),
            "Workspace": _workspace(),
            "Policy": _policy(),
            "Consumer": _end(_consumer_ends()),
            "Provider": _end({**_consumer_ends(), **_service_end()}),
        },
    }


def _where(kind: str) -> Schema:
    return {
        "if": {"properties": {"kind": {"const": kind}}},
        "then": {"properties": {"spec": {"$ref": f"#/$defs/{kind}"}}},
    }


def _scope() -> Schema:
    return _object(
        {
            "parent": _text("The scope above; the root alone has none."),
            "query": _text(_FILTER),
            "order": _integer("Place among siblings, the smaller first.", 0),
        },
        "query",
    )


def _filter() -> Schema:
    public = {"protocol": _protocol(), "ports": _ports(_PORT_RANGE)}
    return _object(
        {
            "scope": _text("The scope that it belongs to."),
            "query": _text(_FILTER),
            "restricted": _flag("Whether only members of the scope are in it."),
            "public": _list(_object(public, "protocol")) | {"minItems": 1},
        },
        "scope",
        "query",
    )


def _address_set() -> Schema:
    address = _text("An address, a CIDR block, or a range FIRST-LAST.")
    every = _text("How often it is asked for, from 5m to 7d.") | {"pattern": "^[1-9][0-9]*[mhd]$"}
    sources: dict[str, dict[str, Schema]] = {
        "addresses": {"addresses": _one_or_more(address)},
        "url": {"url": _text("Where a list is, http or https."), "every": every},
        "uploaded": {"uploaded": {"const": True, "description": "Somebody uploads a list."}},
    }
    return {"type": "object", "oneOf": [_object(one, *one) for one in sources.values()]}


def _workspace() -> Schema:
    action = _choice("What happens to connections that no policy matches.", SPOKEN)
    cluster = {"name": _text("The name."), "query": _text(_FILTER)}
    return _object(
        {
            "scope": _text("The scope whose workloads it governs."),
            "primary": {
                "type": "boolean",
                "default": True,
                "description": "Whether it can be enforced; a scope has one such workspace.",
            },
            "newPods": _choice("What a new pod may do before its rules are in force.", NewPods)
            | {"default": str(NewPods.OPEN)},
            "catchAll": _object({"inbound": action, "outbound": action}, "inbound", "outbound"),
            "denied": _choice("What a denied connection meets: silence, or an answer.", Denied)
            | {"default": str(Denied.DROP)},
            "clusters": _list(_object(cluster, "name", "query")),
            "policies": _list({"$ref": "#/$defs/Policy"}),
        },
        "scope",
        "catchAll",
    )


def _policy() -> Schema:
    properties = {
        "id": _text("A name that no other policy of the workspace has."),
        "description": _text("For people; decides nothing."),
        "rank": _choice("Absolute policies are read first, from the top of the tree.", Rank)
        | {"default": str(Rank.DEFAULT)},
        "priority": _integer("The smaller is read first.", DEFAULT_PRIORITY),
        "owner": _text("Who answers for it."),
        "ticket": _text("Where it was asked for."),
        "expires": _text("A time, or a date, whose midnight is in UTC, from which it is void.")
        | {"type": ["string", "integer"]},
        "approved": _flag("Whether somebody said yes to it."),
        "review": _text("Why somebody must look at it first; as long as it is there it is void."),
        "evidence": _evidence(),
        "action": _choice(
            "What happens to the connections; LOG decides nothing.", SPOKEN_BY_POLICIES
        ),
        "consumer": {"$ref": "#/$defs/Consumer"},
        "provider": {"$ref": "#/$defs/Provider"},
        "protocol": _protocol(),
        "ports": _ports(_PORT),
        "icmp": _one_or_more({"type": ["string", "integer"]})
        | {"description": "Types of ICMP, TYPE or TYPE/CODE, by number or name. Left out: all."},
    }
    needed = ("id", "action", "consumer", "provider", "protocol")
    names = sorted(NAMES[number] for number in NAMES.keys() - WITH_PORTS)
    portless = {"properties": {"protocol": {"enum": [*names, "any"]}}, "required": ["protocol"]}
    without = {"if": portless, "then": {"properties": {"ports": False}}}
    return {**_object(properties, *needed), **without}


def _evidence() -> Schema:
    time = _text("A time (RFC 3339).") | {"type": ["string", "integer"]}
    count = {"type": "integer", "minimum": 0}
    needed = {
        **dict.fromkeys(("conversations", "intervals", "sources", "bytes"), count),
        "first": time,
        "last": time,
        "confidence": {"type": "number", "minimum": 0, "maximum": 1},
    }
    properties = {**needed, "why": _text("Why it is as broad as it is.")}
    told = {"description": "What was seen that it was proposed for; decides nothing."}
    return {**_object(properties, *needed), **told}


def _protocol() -> Schema:
    return {
        "description": "A name, a number, or any.",
        "anyOf": [
            {"enum": [*NAMES.values(), "any"]},
            {"type": "integer", "minimum": 0, "maximum": 255},
            {"type": "string"},
        ],
    }


def _ports(pattern: str) -> Schema:
    port = {
        "anyOf": [
            {"type": "integer", "minimum": 0, "maximum": 65535},
            {"type": "string", "pattern": pattern},
        ]
    }
    said = "Left out: all. Of a Service its own ports, else the provider's."
    return _one_or_more(port) | {"description": said}


def _consumer_ends() -> dict[str, dict[str, Schema]]:
    """For each kind of end its field and those that may stand beside it."""
    text = _text("An address or a CIDR block.")
    networks = _one_or_more(text)
    return {
        "scope": {"scope": _text("Every workload of this scope.")},
        "cluster": {"cluster": _text("Every workload of this cluster of the workspace.")},
        "filter": {"filter": _text(f"Every workload that matches. {_FILTER}")},
        "cidr": {"cidr": networks, "except": networks},
        "addressSet": {"addressSet": _text("Every address of this address set.")},
        "fqdn": {"fqdn": _text("A name in DNS; * may stand for its first label.")},
        "namedFilter": {"namedFilter": _text("Every workload of this named filter.")},
        "node": {"node": {"const": OWN, "description": "The node of the other end's pod."}},
        "apiServer": {"apiServer": _text(f"The API server of a Kubernetes cluster, or {OWN}.")},
        "host": {"host": {"const": OUTSIDE, "description": "Every host outside."}},
    }


def _service_end() -> dict[str, dict[str, Schema]]:
    where = f"NAMESPACE/NAME, or NAME in namespace {DEFAULT_NAMESPACE}."
    return {
        "service": {
            "service": _text(f"A Service: {where}"),
            "kubernetesCluster": _text("Where the Service is; left out: where the consumer is."),
        }
    }


def _end(kinds: dict[str, dict[str, Schema]]) -> Schema:
    return {
        "type": "object",
        "oneOf": [_object(fields, kind) for kind, fields in kinds.items()],
    }


def _object(properties: dict[str, Schema], *required: str) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


def _one_or_more(items: Schema) -> Schema:
    return {"anyOf": [items, {"type": "array", "items": items, "minItems": 1}]}


def _flag(description: str) -> Schema:
    return {"type": "boolean", "default": False, "description": description}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _text(description: str) -> Schema:
    return {"type": "string", "minLength": 1, "description": description}


def _integer(description: str, default: int) -> Schema:
    return {"type": "integer", "default": default, "description": description}


def _choice(description: str, choices: Any) -> Schema:
    return {"enum": [str(choice) for choice in choices], "description": description}
