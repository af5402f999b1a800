"""Mutated manifests through the whole of `ringfence netpol connectivity`: no crash and no hang.

    .venv/bin/python -m tests.property.fuzz_manifests --inputs 1000000 --seed 1

Each input is a few small manifests of every kind that is read, with some of their bytes or values
exchanged for others, hostile ones among them. A documented refusal is fine; any other exception,
an input that takes longer than MOST_SECONDS, and a letter in the output that a terminal would obey
are defects: told with the seed of the input, which alone makes it again.
"""

import argparse
import copy
import json
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from io import StringIO
from typing import Any

import yaml

from ringfence.cli.explained import restrict
from ringfence.cli.manifests import ConnectivityFormat, print_edges, print_explanations
from ringfence.model.errors import InputError
from ringfence.policy.errors import PolicyError
from ringfence.policy.kubernetes.cluster import Cluster
from ringfence.policy.kubernetes.connectivity import Connectivity
from ringfence.policy.kubernetes.difference import changes
from ringfence.policy.kubernetes.documents import Folder
from ringfence.policy.kubernetes.explanation import Explainer
from ringfence.policy.kubernetes.exposure import representatives
from ringfence.policy.kubernetes.ingress import published
from ringfence.policy.kubernetes.manifests import read_policies
from ringfence.policy.kubernetes.topology import read_topology

MOST_SECONDS = 20
SEED_TEXT = """
{apiVersion: v1, kind: Namespace, metadata: {name: x, labels: {env: prod}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: x}
spec: {template: {metadata: {labels: {app: web}}, spec: {containers: [
  {name: c, ports: [{name: http, containerPort: 8080, protocol: TCP}, {containerPort: 53}]}]}}}
---
apiVersion: v1
kind: PodList
items:
- metadata: {name: db-1, namespace: y, labels: {app: db}, ownerReferences: [{kind: Job, name: db,
    controller: true}]}
  spec: {hostNetwork: false, containers: [{ports: [{containerPort: 5432}]}]}
  status: {phase: Running}
---
{apiVersion: batch/v1, kind: CronJob, metadata: {name: night}, spec: {jobTemplate: {spec: {
  template: {metadata: {labels: &l {app: night}}}}}}}
---
{apiVersion: v1, kind: Service, metadata: {name: web, namespace: x}, spec: {
  selector: {app: web}, ports: [{name: a, port: 80, targetPort: http}]}}
---
{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {name: i, namespace: x}, spec: {
  defaultBackend: {service: {name: web, port: {number: 80}}},
  rules: [{http: {paths: [{backend: {service: {name: web, port: {name: a}}}}]}}]}}
---
{kind: Route, apiVersion: route.openshift.io/v1, metadata: {name: r, namespace: x}, spec: {
  to: {kind: Service, name: web}, alternateBackends: [{name: web}], port: {targetPort: http}}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: p, namespace: x}
spec:
  podSelector: {matchLabels: {app: web}}
  policyTypes: [Ingress, Egress]
  ingress:
  - from:
    - namespaceSelector: {matchExpressions: [{key: env, operator: NotIn, values: [a, b]}]}
      podSelector: {}
    - ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}
    ports: [{port: http}, {port: 8000, endPort: 9000, protocol: UDP}]
  egress: [{to: [{podSelector: {matchLabels: {app: db}}}], ports: [{port: 5432}, {port: dns}]}]
---
apiVersion: policy.networking.k8s.io/v1alpha1
kind: AdminNetworkPolicy
metadata: {name: anp}
spec:
  priority: 5
  subject: {namespaces: {matchLabels: {kubernetes.io/metadata.name: x}}}
  ingress: [{name: in, action: Pass, from: [{namespaces: {}}], ports: [{portNumber: {port: 80}}]}]
  egress:
  - {name: out, action: Deny, to: [{networks: [1.2.3.0/24, "::/0"]}, {nodes: {}}], ports: [
      {portRange: {start: 1, end: 10, protocol: SCTP}}, {namedPort: http}]}
---
apiVersion: policy.networking.k8s.io/v1alpha1
kind: BaselineAdminNetworkPolicy
metadata: {name: default}
spec: {subject: {pods: {namespaceSelector: {}, podSelector: {}}}, egress: [
  {action: Allow, to: [{pods: {podSelector: {matchExpressions: [{key: app, operator: Exists}]}}}]}]}
---
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: cnp}
spec:
  tier: Admin
  priority: 6
  subject: {namespaces: {}}
  egress: [{action: Accept, to: [{domainNames: ["*.example.com"]}, {networks: [8.8.8.8/32]}],
    protocols: [{udp: {destinationPort: {number: 53}}}, {destinationNamedPort: http}]}]
"""
HOSTILE: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    65536,
    1 << 70,
    -(1 << 80),
    1e308,
    float("nan"),
    "",
    "\x1b]0;a\x07",
    "\u202e\u2028\ud7ff",
    '"]->x[label="',
    "{own}{0}%s%n",
    "a" * 300,
    "=1+1",
    "0.0.0.0/0",
    "::/0",
    "10.0.0.1/33",
    "999.0.0.0/8",
    "Succeeded",
    "In",
    "DoesNotExist",
    "kubernetes.io/metadata.name",
    "http",
    [],
    {},
    [[]],
    [None],
    {"": None},
    {"a": {"b": [{}]}},
)
BYTES = (b"&a ", b"*a ", b"- ", b"{", b"[", b"!!binary ", b"\x00", b"\xff", b"|\n", b"<<: ", b"? ")
OBJECTS = [json.dumps(one) for one in yaml.safe_load_all(SEED_TEXT)]
TEXTS = [yaml.safe_dump(json.loads(one)).encode() for one in OBJECTS] + [
    part.encode() for part in SEED_TEXT.split("---")
]


def make(seed: int) -> bytes:
    """The input of that seed: YAML or JSON, sound or not."""
    chance = random.Random(seed)
    if chance.random() < 0.3:
        texts = chance.sample(TEXTS, chance.randint(1, 4))
        return _scramble(b"\n---\n".join(texts), chance)
    documents = [json.loads(one) for one in chance.sample(OBJECTS, chance.randint(2, 6))]
    places = [place for one in documents for place in _places(one)]
    for _ in range(chance.randint(1, 4)):
        container, key = chance.choice(places)
        _mutate(container, key, chance)
    return json.dumps({"kind": "List", "items": documents}).encode("utf-8", "surrogatepass")


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    for key in list(value) if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], dict | list):
            yield from _places(value[key])


def _mutate(container: Any, key: Any, chance: random.Random) -> None:
    """Exchange, drop, repeat or rename what is at a place, if it is still there."""
    if not (key in container if isinstance(container, dict) else key < len(container)):
        return
    way = chance.randrange(6)
    if way == 0:
        del container[key]
    elif way == 1 and isinstance(container, dict):
        container[str(chance.choice(HOSTILE))] = container.pop(key)
    elif way == 2 and isinstance(container, list):
        container.extend(copy.deepcopy([container[key]]) * chance.choice([1, 200]))
    elif way == 3:
        container[key] = json.loads(chance.choice(OBJECTS))
    else:
        container[key] = copy.deepcopy(chance.choice(HOSTILE))


def _scramble(text: bytes, chance: random.Random) -> bytes:
    letters = bytearray(text)
    for _ in range(chance.randint(1, 8)):
        at = chance.randrange(len(letters) + 1)
        end = min(len(letters), at + chance.choice([0, 1, 5]))
        piece = chance.choice([*BYTES, bytes([chance.randrange(256)]), text[at : at + 40]])
        letters[at:end] = piece * chance.choice([1, 1, 1, 300])
    return bytes(letters)


def run(content: bytes) -> str:
    """Everything that the command does with one file; `evaluated`, or the kind of refusal."""
    try:
        with redirect_stdout(StringIO()) as printed:
            _tell(content)
    except (PolicyError, InputError):
        return "refused"
    _check(printed.getvalue().translate({ord("\n"): "", ord("\t"): ""}))
    return "evaluated"


def _tell(content: bytes) -> None:
    folder = Folder()
    folder.add("a.yaml", content)
    policies, topology = read_policies(folder.manifests), read_topology(folder.manifests)
    spaces, workloads = topology.namespaces, topology.workloads
    served = published(folder.manifests, topology)
    pods = [pod for listed in workloads.values() for pod in listed]
    beside = representatives(policies, Cluster(spaces, pods))
    read = Connectivity(spaces, workloads, policies, served, beside)
    forms = list(ConnectivityFormat)
    form, report = forms[len(content) % len(forms)], read.exposure()
    print_edges(list(read.edges()), form, report)
    explained = restrict(map(Explainer(read).explain, read.pairs()), None)
    print_explanations(explained, form, report)
    assert not changes(read, read)


def _check(told: str) -> None:
    """Terminals obey control letters, and readers are misled by letters that turn the line."""
    if not told.isprintable():
        letter = next(one for one in told if not one.isprintable())
        raise AssertionError(f"printed {letter!r} as it is")


def _late(*_: object) -> None:
    raise TimeoutError(f"took more than {MOST_SECONDS} s")


def fuzz(seeds: range, defect: Callable[[int, BaseException], None]) -> Counter[str]:
    """How the inputs of the seeds fared, by word; `defect` is told of those that are one.

    An interrupt ends it early.
    """
    counts: Counter[str] = Counter()
    before = signal.signal(signal.SIGALRM, _late)
    try:
        for seed in seeds:
            signal.alarm(MOST_SECONDS)
            try:
                counts[run(make(seed))] += 1
            except KeyboardInterrupt:
                break
            except Exception as error:  # noqa: BLE001
                counts["defects"] += 1
                defect(seed, error)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    return counts


def main() -> None:
    """Fuzz, and say how it went; exit code 1 if there is a defect."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--inputs", type=int, default=1_000_000)
    options.add_argument("--seed", type=int, default=0)
    asked = options.parse_args()
    begun = time.monotonic()

    def tell(seed: int, error: BaseException) -> None:
        print(f"seed {seed}: {error!r:.300}", flush=True)

    counts = fuzz(range(asked.seed, asked.seed + asked.inputs), tell)
    took = time.monotonic() - begun
    print(f"{counts.total()} inputs in {took:.0f} s: {dict(counts)}")
    sys.exit(1 if counts["defects"] else 0)


if __name__ == "__main__":
    main()
