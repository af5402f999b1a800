"""A simulation as the files that `ringfence inventory export` and `flows export` write."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import yaml

from bench.discovery.simulate import Simulation
from bench.discovery.style import DAY
from bench.discovery.traffic import Numbers
from bench.discovery.world import (
    API_ADDRESS,
    CLUSTER,
    FRONTS,
    PODS,
    Front,
    Life,
    Party,
    World,
    template_hash,
)
from ringfence.flows.exported import EXPORT
from ringfence.model.protocol import format_protocol

EPOCH = 1_900_022_400
"""When the window begins, s; a midnight."""
_TOOLS = ("", "curl", "python3", "nc")
Document = dict[str, Any]


def write(simulation: Simulation, folder: Path) -> tuple[Path, Path]:
    """inventory.json or .yaml, and flows.parquet."""
    document, form = inventory(simulation.world), simulation.world.style.form
    inventory_file, flows_file = folder / f"inventory.{form}", folder / "flows.parquet"
    inventory_file.write_text(
        json.dumps(document)
        if form == "json"
        else yaml.dump(document, Dumper=yaml.CSafeDumper, sort_keys=False)
    )
    pa.parquet.write_table(flows(simulation), flows_file, compression="zstd")
    return inventory_file, flows_file


def moment(second: float) -> str:
    return datetime.fromtimestamp(EPOCH + second, UTC).isoformat().replace("+00:00", "Z")


def address(number: int) -> str:
    return str(IPv4Address(int(number)))


def inventory(world: World, until: float = DAY) -> Document:
    """Everything that lived in the window, each once for each of its lives."""
    items = [
        *_kubernetes(world),
        *(life_item(world, life, until) for life in world.by_life if _within(life, until)),
    ]
    for front in world.fronts:
        items += _front(world, front, until)
    return {"kind": "Inventory", "from": moment(0), "to": moment(until), "items": items}


def _within(life: Life, until: float) -> bool:
    return life.end > 0 and life.start < until


def _kubernetes(world: World) -> Iterator[Document]:
    """Namespaces, and the API server's Service."""
    for name in sorted({party.namespace for party in world.pods()} | {"default"}):
        told = {
            "kubernetes.namespace": [name],
            "kubernetes.namespace.label.kubernetes.io/metadata.name": [name],
        }
        yield item("namespace", f"ns-{name}", "", name, [], told)
    node = address(world.nodes[0].lives[0].address)
    port = {"name": "https", "protocol": "TCP", "port": 443, "node_port": 0}
    backend = {
        "service_port": "https", "protocol": "TCP", "address": node, "port": 6443,
        "serving": True, "key": None,
    }  # fmt: skip
    yield item("service", "kubernetes", "default", "kubernetes", [address(API_ADDRESS)], {}) | {
        "service": _spec("ClusterIP", [port], [backend], [])
    }


def item(
    kind: str,
    uid: str,
    namespace: str,
    name: str,
    addresses: list[str],
    labels: dict[str, list[str]],
    cluster: str = CLUSTER,
) -> Document:
    own = {"kind": [kind], "name": [name], "address": addresses}
    own |= {"kubernetes.cluster": [cluster]} if cluster else {}
    own |= {"kubernetes.namespace": [namespace]} if namespace else {}
    return {
        "key": f"{cluster}/{kind}/{uid}",
        "kind": kind,
        "kubernetes_cluster": cluster,
        "namespace": namespace,
        "name": name,
        "addresses": addresses,
        "labels": {key: values for key, values in sorted((own | labels).items()) if values},
        "node": "",
        "host_network": False,
        "owner": "",
        "containers": [],
        "service": None,
    }


def life_item(world: World, life: Life, until: float) -> Document:
    party, withheld = life.party, world.style.withheld
    lived = {} if life.start <= 0 else {"from": moment(life.start)}
    lived |= {"to": moment(life.end)} if life.end < until else {}
    own = [address(life.address)]
    if party.kind == "node":
        labels = {
            "kubernetes.node": [life.name],
            "kubernetes.label.kubernetes.io/hostname": [life.name],
        }
        pods = address(PODS + (life.node << 8))
        made = item("node", life.uid, "", life.name, [*own, pods[:-1] + "1"], labels)
        return made | lived | {"node": life.name, "pod_networks": [f"{pods}/24"]}
    if party.kind == "host":
        return item("host", life.uid, "", life.name, own, {}, cluster="") | lived
    node = world.nodes[life.node].lives[0].name
    shape = party.workload
    if withheld and not party.system:
        made = item("pod", life.uid, party.namespace, f"pod-{life.uid[:8]}", own, {})
        return made | lived | {"node": node}
    kind = "CronJob" if party.scheduled else shape.kind
    owned = {} if kind == "Pod" else {"owner": f"{kind}/{shape.id}", "workload_name": shape.id}
    told = pod_labels(life) | {
        "kubernetes.node": node,
        "kubernetes.service_account": shape.id if shape.role in ("gateway", "auth") else "default",
        "kubernetes.namespace.label.kubernetes.io/metadata.name": party.namespace,
    }
    told |= {} if kind == "Pod" else {
        "kubernetes.owner.kind": kind, "kubernetes.owner.name": shape.id
    }  # fmt: skip
    labels = {key: [value] for key, value in told.items()}
    made = item("pod", life.uid, party.namespace, life.name, own, labels) | lived | owned
    return made | {
        "node": node,
        "containers": [
            {"name": f"p{port}", "protocol": format_protocol(protocol), "port": port}
            for protocol, port in shape.listens
        ],
        "probes": [
            {"protocol": format_protocol(one[0]), "port": one[1]} for one in (party.probe,) if one
        ],
        "references": sorted(set(party.references)),
    }


def pod_labels(life: Life) -> dict[str, str]:
    """The graph's own, and what comes with each deployment."""
    shape, labels = life.party.workload, dict(life.party.labels)
    if shape.kind == "Deployment":
        labels["pod-template-hash"] = template_hash(life)
        if not life.party.system:
            labels.setdefault("version", f"v1.{life.revision}")
    if shape.kind == "StatefulSet":
        labels["statefulset.kubernetes.io/pod-name"] = life.name
        labels["controller-revision-hash"] = f"{shape.id}-{template_hash(life)}"
    return {f"kubernetes.label.{key.lower()}": value for key, value in labels.items()}


def _front(world: World, front: Front, until: float) -> Iterator[Document]:
    """A Service, once for each set of backends that it had."""
    lives = [life for party in front.parties for life in party.lives if _within(life, until)]
    turns = {at for life in lives for at in (life.start, life.end) if 0 < at < until}
    begins = [0.0, *sorted(turns)]
    withheld = world.style.withheld and front.namespace != "kube-system"
    for since, to in zip(begins, [*begins[1:], None], strict=True):
        there = [life for life in lives if life.start <= since < life.end]
        made = service_item(front, [] if withheld else there, withheld=withheld)
        if since > 0:
            made["from"] = moment(since)
        if to is not None:
            made["to"] = moment(to)
        yield made


def service_item(front: Front, there: list[Life], *, withheld: bool) -> Document:
    ports = [
        {
            "name": f"p{port}", "protocol": format_protocol(protocol), "port": own,
            "node_port": front.node_ports.get((protocol, port), 0),
        }
        for (protocol, port), own in front.ports.items()
    ]  # fmt: skip
    backends = [
        {
            "service_port": f"p{port}", "protocol": format_protocol(protocol),
            "address": address(life.address), "port": port, "serving": True,
            "key": f"{CLUSTER}/pod/{life.uid}",
        }
        for protocol, port in front.ports
        for life in there
    ]  # fmt: skip
    kind = "NodePort" if front.node_ports else "ClusterIP"
    external = [address(front.balancer)] if front.balancer else []
    kind = "LoadBalancer" if external else kind
    own = [address(front.address)] if front.address else []
    name = f"svc-{front.uid[:8]}" if withheld else front.name
    made = item("service", front.uid, front.namespace, name, own, {})
    return made | {"service": _spec(kind, ports, backends, external)}


def _spec(
    kind: str, ports: list[Document], backends: list[Document], external: list[str]
) -> Document:
    return {
        "type": kind,
        "ports": ports,
        "backends": backends,
        "external_addresses": external,
        "external_traffic_policy": "Local" if external else "Cluster",
        "balancer_addresses": external,
        "source_ranges": [],
    }


def flows(simulation: Simulation) -> pa.Table:
    """The rows of the first day in the columns of docs/flow-export.md."""
    rows, world = simulation.rows, simulation.world
    count, style = len(rows["first"]), world.style
    counts = ("forward_packets", "reverse_packets", "opened", "answered", "refused")
    columns: dict[str, Any] = {name: pa.array(rows[name], pa.uint64()) for name in counts}
    for way in ("forward", "reverse"):
        columns[f"{way}_bytes"] = pa.array(rows[f"{way}_packets"] * 220, pa.uint64())
    for end in ("consumer", "provider"):
        columns[f"{end}_address"] = _addresses(rows[end])
    columns["dialled_address"] = _addresses(rows["dialled"])
    columns["protocol"] = _taken([format_protocol(at) for at in range(256)], rows["protocol"])
    for name in ("port", "dialled_port"):
        columns[name] = pa.array(rows[name], pa.uint16())
    for name in ("first", "last"):
        nanoseconds = EPOCH * 10**9 + (rows[name] * 1e9).astype(np.int64)
        columns[name] = pa.array(nanoseconds).cast(pa.timestamp("ns", "UTC"))
    columns["kubernetes_cluster"] = _taken([CLUSTER], np.zeros(count, dtype=np.int64))
    columns["connection"] = _connections(rows)
    passed = rows["reverse_packets"] > 0
    columns["disposition"] = _taken(["unanswered", "passed"], passed.astype(np.int64))
    if style.method:
        method = np.select([rows["turned"] > 0, rows["no_syn"] == 0], [2, 0], 1)
        columns["method"] = _taken(["syn", "socket", "degree"], method)
    if style.processes:
        columns |= _processes(rows, world)
    if style.dns:
        columns["provider_dns_name"] = _dns_names(rows, world)
    zeros = pa.array(np.zeros(count), pa.uint64())
    for name in ("dropped", "forward_retransmitted", "reverse_retransmitted", "rtt_samples"):
        columns[name] = zeros
    unknown = (*style.lacks, *({"method", "provider_dns_name"} - columns.keys()))
    return pa.table(
        {
            field.name: columns.get(field.name, pa.nulls(count, field.type)).cast(field.type)
            for field in EXPORT
            if field.name not in unknown
        }
    )


def _processes(rows: dict[str, Numbers], world: World) -> dict[str, Any]:
    """Known at ends that agents' nodes run, but for one in five of what was short."""
    parties = list(world.parties.values())
    number = {id(party): at for at, party in enumerate(parties)}
    names = [party.process or None for party in parties] + [None, *_TOOLS[1:]]
    of_life = np.array([number[id(life.party)] for life in world.by_life] + [len(parties)])
    told = {}
    for end in ("consumer", "provider"):
        life = rows[f"{end}_life"]
        which = of_life[life]
        if end == "consumer":
            which = np.where(rows["tool"] > 0, len(parties) + rows["tool"], which)
        hidden = (rows["first"] * 997).astype(np.int64) % 5 == 0
        told[f"{end}_process"] = _taken(names, np.where(hidden, len(parties), which))
    return told


def dns_name(party: Party) -> str:
    """By what consumers find a host outside."""
    return f"api.{party.workload.id}.example.com"


def _dns_names(rows: dict[str, Numbers], world: World) -> pa.Array:
    names: dict[int, str] = {}
    for front in world.fronts:
        if front.address:
            names[front.address] = f"{front.name}.{front.namespace}.svc.cluster.local"
    for party in world.parties.values():
        for one in party.addresses if party.kind == "external" else ():
            names[one] = dns_name(party)
    if world.style.withheld:
        names = {at: name for at, name in names.items() if at >> 16 != FRONTS >> 16}
    known = np.array(sorted(names), dtype=np.int64)
    told = [names[int(at)] for at in known]
    spot = np.searchsorted(known, rows["dialled"]).clip(0, max(len(known) - 1, 0))
    found = (known[spot] == rows["dialled"]) if len(known) else np.zeros(len(spot), dtype=bool)
    return _taken([*told, None], np.where(found, spot, len(told)))


def _connections(rows: dict[str, Numbers]) -> pa.Array:
    keys = ("consumer", "dialled", "dialled_port", "protocol")
    mixed = np.zeros(len(rows["first"]), dtype=np.uint64)
    for name in keys:
        mixed = mixed * np.uint64(0x9E3779B97F4A7C15) + rows[name].astype(np.uint64)
        mixed ^= mixed >> np.uint64(29)
    distinct, which = np.unique(mixed, return_inverse=True)
    return _taken([f"{one:016x}" for one in distinct.tolist()], which)


def _addresses(numbers: Numbers) -> pa.Array:
    distinct, which = np.unique(numbers, return_inverse=True)
    return _taken([address(one) for one in distinct.tolist()], which)


def _taken(values: list[Any], which: Numbers) -> pa.Array:
    return pa.array(values, pa.string()).take(pa.array(which))
