"""How long after the Kubernetes API's answer a label change shows in Ringfence's own API.

Needs a lab with Ringfence in it: `ringfence lab up && ringfence lab install`.
Run: `.venv/bin/python bench/inventory_latency.py [changes]`.
"""

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from ringfence.cli.client import CHOICE, Client, connect

COMMAND = str(Path(sys.executable).parent / "ringfence")
KUBECTL = [COMMAND, "lab", "kubectl", "-n", "sock-shop"]


def change(pod: str, value: str) -> None:
    label = [*KUBECTL, "label", "--overwrite", "pod", pod, f"bench={value}"]
    subprocess.run(label, check=True, stdout=subprocess.DEVNULL)


def seen_after(client: Client, value: str) -> float:
    """Seconds until the label shows; kubectl's own exit after the answer counts in."""
    began = time.monotonic()
    query = f'kubernetes.label.bench = "{value}"'
    while not client.get("/inventory", filter=query)["items"]:
        time.sleep(0.002)
    return time.monotonic() - began


def main() -> None:
    os.environ[CHOICE] = "lab"
    changes = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    listed = [*KUBECTL, "get", "pod", "-l", "name=shipping", "-o", "name"]
    named = subprocess.run(listed, check=True, capture_output=True, text=True).stdout
    pod = named.strip().removeprefix("pod/")
    client = connect()
    latencies = []
    for number in range(changes):
        change(pod, str(number))
        latencies.append(seen_after(client, str(number)) * 1e3)
    subprocess.run([*KUBECTL, "label", "pod", pod, "bench-"], check=True, capture_output=True)
    latencies.sort()
    p99 = latencies[int(0.99 * (changes - 1))]
    middle = statistics.median(latencies)
    print(
        f"{changes} label changes: p50 {middle:.1f} ms, p99 {p99:.1f} ms,"
        f" max {latencies[-1]:.1f} ms"
    )


if __name__ == "__main__":
    main()
