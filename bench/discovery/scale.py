"""Time and memory of discovery from files: 5,000 workloads, a million distinct edges.

    .venv/bin/python -m bench.discovery.scale [--edges N] [--workloads N] [--replicas N] [--slots N]

An edge is a pair of workloads with a port; it is seen in `--slots` slots of time, a row each.
Workloads come in applications of `--replicas` alike, each of which calls its own few providers.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from bench.discovery.files import EPOCH, Document, item

MOST_S, MOST_BYTES = 60.0, 2e9
_PORTS = (80, 443, 3306, 5432, 6379, 8080, 9090, 9092, 27017)
_NODES = 50


def address(at: int) -> str:
    return f"10.{at >> 16 & 255}.{at >> 8 & 255}.{at & 255}"


def inventory(workloads: int, replicas: int) -> Document:
    items = [
        item("node", f"n{at}", "", f"node-{at}", [f"192.168.1.{at + 1}"], {})
        for at in range(_NODES)
    ]
    for at in range(workloads):
        app = at // replicas
        owner, namespace = f"app-{app}", f"ns-{app % 40}"
        labels = {
            "kubernetes.label.app": [owner],
            "kubernetes.owner.kind": ["Deployment"],
            "kubernetes.owner.name": [owner],
        }
        pod = item("pod", f"p{at}", namespace, f"{owner}-{at}", [address(at + 256)], labels)
        pod |= {"node": f"node-{at % _NODES}", "owner": f"Deployment/{owner}"}
        items.append(pod | {"workload_name": owner})
    return {"kind": "Inventory", "items": items}


def flows(workloads: int, replicas: int, edges: int, slots: int) -> pa.Table:
    """Distinct (pod, pod, port), each in some slots of the day."""
    draw = np.random.default_rng(1)
    apps = workloads // replicas
    pairs = -(-edges // replicas**2)
    chosen = draw.choice(apps * apps, min(pairs, apps * apps), replace=False)
    consumer, provider = chosen // apps, chosen % apps
    port = np.array(_PORTS)[provider % len(_PORTS)]
    mine = np.repeat(consumer * replicas, replicas**2) + np.tile(
        np.repeat(np.arange(replicas), replicas), len(chosen)
    )
    its = np.repeat(provider * replicas, replicas**2) + np.tile(
        np.tile(np.arange(replicas), replicas), len(chosen)
    )
    ports = np.repeat(port, replicas**2)
    mine, its, ports = (np.tile(one[:edges], slots) for one in (mine, its, ports))
    count = len(mine)
    first = EPOCH * 10**9 + draw.integers(0, 86_400, count) * 10**9
    known = pa.array([address(at + 256) for at in range(workloads)])
    ones, stamp = np.ones(count, dtype=np.int64), pa.timestamp("ns", "UTC")
    columns: dict[str, Any] = {
        "first": pa.array(first).cast(stamp),
        "last": pa.array(first + 10**9).cast(stamp),
        "kubernetes_cluster": pa.array(["sim"]).take(pa.array(ones - 1)),
        "consumer_address": known.take(pa.array(mine)),
        "provider_address": known.take(pa.array(its)),
        "dialled_address": known.take(pa.array(its)),
        "protocol": pa.array(["TCP"]).take(pa.array(ones - 1)),
        "port": pa.array(ports, pa.uint16()),
        "dialled_port": pa.array(ports, pa.uint16()),
    }
    # One in a hundred is not answered.
    answers = np.where(np.arange(count) % 100, ones, 0)
    for name, values in (("forward_packets", ones), ("reverse_packets", answers),
                         ("opened", ones), ("answered", answers)):  # fmt: skip
        columns[name] = pa.array(values, pa.uint64())
    columns["refused"] = pa.array(ones - 1, pa.uint64())
    return pa.table(columns)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.discovery.scale", description=__doc__)
    for name, value in (("edges", 10**6), ("workloads", 5000), ("replicas", 10), ("slots", 2)):
        parser.add_argument(f"--{name}", type=int, default=value)
    given = parser.parse_args()
    with TemporaryDirectory() as folder:
        inventory_file, flows_file = Path(folder) / "inventory.json", Path(folder) / "flows.parquet"
        inventory_file.write_text(json.dumps(inventory(given.workloads, given.replicas)))
        table = flows(given.workloads, given.replicas, given.edges, given.slots)
        rows = len(table)
        pa.parquet.write_table(table, flows_file, compression="zstd")
        command = [sys.executable, "-m", "ringfence.cli.main", "discover"]
        command += ["--inventory", str(inventory_file), "--flows", str(flows_file)]
        begun = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        took = time.perf_counter() - begun
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"{given.edges} edges in {rows} rows, {given.workloads} workloads, "
          f"load {os.getloadavg()[0]:.1f}")  # fmt: skip
    if done.returncode:
        print(done.stderr[-2000:])
        sys.exit(1)
    print(*done.stderr.splitlines()[:3], sep="\n")
    busy, memory = used.ru_utime + used.ru_stime, used.ru_maxrss * 1024
    fast, small = took <= MOST_S, memory <= MOST_BYTES
    print(f"{'FIGURE':<44}{'TARGET':>10}  MEASURED")
    print(f"{'time of discovery':<44}{'≤ 60 s':>10}  {took:.1f} s (processors {busy:.1f} s)"
          f"{'' if fast else '  MISSED'}")  # fmt: skip
    print(f"{'its most memory':<44}{'≤ 2 GB':>10}  {memory / 1e9:.2f} GB"
          f"{'' if small else '  MISSED'}")  # fmt: skip
    sys.exit(not (fast and small))


if __name__ == "__main__":
    main()
