"""How long `ringfence netpol connectivity` takes, with the start of the command.

    .venv/bin/python -m bench.netpol

Two folders: the one of the corpus netpol-analyzer with the most to say, where RINGFENCE_CORPORA has
it, and a made one of 1,000 Deployments and 1,000 NetworkPolicies in 20 namespaces. No two of its
workloads have the same labels, so each is a class of its own; each policy selects some fifteen of
them and tells its own blocks of addresses and ports apart from the others'.
"""

import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

WORKLOADS = POLICIES = 1_000
NAMESPACES = 20
GROUPS = 4
TARGET_S, CORPUS_TARGET_S = 10, 2


def main() -> None:
    corpora = os.environ.get("RINGFENCE_CORPORA")
    if corpora:
        folder = Path(corpora, "netpol-analyzer", "tests", "ipblockstest_4")
        print(f"{folder.name}: {seconds(folder)} (target {CORPUS_TARGET_S} s)")
    with tempfile.TemporaryDirectory() as made:
        write(Path(made), random.Random(1))
        title = f"{WORKLOADS} workloads, {POLICIES} policies"
        print(f"{title}: {seconds(Path(made))} (target {TARGET_S} s)")


def seconds(folder: Path) -> str:
    """By the clock, and of CPU, which other work on the machine hardly changes."""
    begun, used = time.perf_counter(), cpu()
    command = [
        sys.executable,
        "-m",
        "ringfence.cli.main",
        "netpol",
        "connectivity",
        "--dir",
        folder,
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return f"{time.perf_counter() - begun:.2f} s, {cpu() - used:.2f} s of CPU"


def cpu() -> float:
    """What all commands have taken so far, in seconds."""
    taken = resource.getrusage(resource.RUSAGE_CHILDREN)
    return taken.ru_utime + taken.ru_stime


def write(folder: Path, chance: random.Random) -> None:
    documents = [deployment(number) for number in range(WORKLOADS)]
    documents += [policy(number, chance) for number in range(POLICIES)]
    (folder / "all.yaml").write_text(yaml.dump_all(documents, Dumper=yaml.CSafeDumper))


def deployment(number: int) -> dict[str, Any]:
    labels = {"app": f"app-{number}", "group": f"group-{number % GROUPS}"}
    container = {"name": "main", "ports": [{"name": "web", "containerPort": 8000 + number % 7}]}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": f"app-{number}", "namespace": f"space-{number % NAMESPACES}"},
        "spec": {"template": template},
    }


def policy(number: int, chance: random.Random) -> dict[str, Any]:
    first = chance.randrange(1, 60_000)
    block = f"{chance.randrange(1, 224)}.{chance.randrange(256)}.0.0/16"
    group = {"matchLabels": {"group": f"group-{chance.randrange(GROUPS)}"}}
    rules = [
        {
            "peers": [{"podSelector": group}, {"namespaceSelector": {}}],
            "ports": [{"port": first // 1000 * 1000 or 80}, {"port": "web"}],
        },
        {"peers": [{"ipBlock": {"cidr": block}}], "ports": [{"port": 443}]},
    ]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": f"policy-{number}", "namespace": f"space-{number % NAMESPACES}"},
        "spec": {
            "podSelector": {"matchLabels": {"group": f"group-{chance.randrange(GROUPS)}"}},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": one["peers"], "ports": one["ports"]} for one in rules],
            "egress": [{"to": one["peers"], "ports": one["ports"]} for one in rules],
        },
    }


if __name__ == "__main__":
    main()
