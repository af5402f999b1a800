"""`ringfence demo`: the main job from an empty machine to enforced policies, told as it happens.

Every step runs a command that a reader could type, and prints it. What is waited for is asked of
the same API that the commands use.
"""

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from ringfence.cli.client import CHOICE, Client, connect, for_lab, load_context
from ringfence.cli.output import emit_text, say
from ringfence.lab.config import LabConfig
from ringfence.lab.shop.manifests import calls
from ringfence.model.errors import RingfenceError

app = typer.Typer(add_completion=False)

NAMESPACE = "sock-shop"
KUBERNETES_CLUSTER = "lab"
WORKSPACES = (NAMESPACE, "nodes")
KEEPERS = ("front-end", "queue-master")
"""Deployments that keep a connection open."""
_COUNTERS = re.compile(r"\[\d+:\d+\]")
COMMAND = str(Path(sys.executable).parent / "ringfence")


class DemoError(RingfenceError):
    """A step did not show what it should."""


@dataclass
class Told:
    """What the summary at the end tells."""

    steps: list[tuple[str, float, int]] = field(default_factory=list)
    """Title, seconds, and MiB of memory in use after it, more than at the start."""
    facts: dict[str, str] = field(default_factory=dict)
    rules: list[str] = field(default_factory=list)
    """What CNI and kube-proxy had written before enforcement."""


@app.command()
def demo(
    folder: Annotated[Path, typer.Option(help="Where the proposed policies are kept.")] = Path(
        "build/demo"
    ),
) -> None:
    """Show the main job on a real Kubernetes cluster: lab, flows, policies, enforcement.

    Leaves the control plane running. `ringfence lab down` takes everything away.
    """
    os.environ[CHOICE] = "lab"  # whoever is logged in elsewhere stays so
    folder.mkdir(parents=True, exist_ok=True)
    told = Told()
    _run("lab", "down", show=False)  # or the memory of one that runs would count as ours
    at_start = _available_memory()
    for title, step in (
        ("A Kubernetes cluster with a shop in it", _lab),
        ("The control plane, the connector, and an agent on each node", _install),
        ("Who talks to whom", _flows),
        ("Scopes, and the policies that the flows need", _policies),
        ("An intruder, and what the policies would do about it", _analyze),
        ("Enforcement", _enforce),
        ("What passes, what does not, and why", _verify),
        ("Enforcement off, and on again", _switch),
    ):
        _heading(title)
        began = time.monotonic()
        step(folder, told)
        took = time.monotonic() - began
        told.steps.append((title, took, at_start - _available_memory()))
    _summary(told)


def _lab(folder: Path, told: Told) -> None:  # noqa: ARG001
    _run("lab", "up")


def _install(folder: Path, told: Told) -> None:  # noqa: ARG001
    _run("lab", "install")
    _run("agents")


def _flows(folder: Path, told: Told) -> None:  # noqa: ARG001
    client = connect()

    needed = calls(LabConfig().external.address)

    def shop_seen() -> bool:
        items = client.get("/flows", since="10m", limit=1000)["items"]
        told.facts["flows seen"] = str(len(items))
        return needed <= {
            (_workload(item["consumer"]), _workload(item["provider"])) for item in items
        }

    _until("the agents have reported each of the shop's calls", 90, shop_seen)
    _run("flows", "list", "--since", "5m", "--limit", "40", "--filter", _in_namespace())


def _policies(folder: Path, told: Told) -> None:
    scopes = _run(
        *("scopes", "design", "split", "--kubernetes-cluster", KUBERNETES_CLUSTER),
        *("--namespace", NAMESPACE),
    )
    (folder / "scopes.yaml").write_text(scopes)
    _run("apply", "-f", str(folder / "scopes.yaml"))
    for workspace in WORKSPACES:
        proposal = _run("discover", workspace, "--since", "10m")
        (folder / f"{workspace}.yaml").write_text(proposal)
    _run("apply", "-f", str(folder))
    _run("get", "policies", NAMESPACE)
    listed = connect().get("/workspaces")["items"]
    told.facts["policies proposed"] = str(sum(row["policies"] for row in listed))


def _analyze(folder: Path, told: Told) -> None:  # noqa: ARG001
    _run("lab", "intruder", "start")
    client = connect()
    _until(
        "the intruder's connections are seen to escape",
        90,
        lambda: "intruder" in _consumers(client, "escaped", "2m"),
    )
    _run("analyze", NAMESPACE, "--since", "2m", "--category", "escaped")
    cut = {name for name in _consumers(client, "escaped", "2m") if "intruder" not in name}
    if cut:
        raise DemoError(f"enforced, the policies would cut calls of {', '.join(sorted(cut))}")
    told.facts["before enforcement"] = _counts(client, "2m")


def _enforce(folder: Path, told: Told) -> None:  # noqa: ARG001
    told.rules = _rules_of_others()
    _run("enforce", *WORKSPACES, "--yes")
    _run("agents")


def _verify(folder: Path, told: Told) -> None:  # noqa: ARG001
    client = connect()
    enforced = time.monotonic()
    before = _load()
    _run("lab", "examples")
    _until(
        "the intruder's connections are reported as rejected",
        90,
        lambda: "intruder" in _consumers(client, "rejected", "1m"),
    )
    since = f"{max(int(time.monotonic() - enforced), 15)}s"
    _run("analyze", NAMESPACE, "--since", since, "--category", "rejected")
    _run("why", f"{NAMESPACE}/front-end", f"{NAMESPACE}/carts", "80")
    _run("why", f"{NAMESPACE}/intruder", f"{NAMESPACE}/user-db", "27017", expect=2)
    told.facts["after enforcement"] = _counts(client, since)
    told.facts["pages since enforcement"] = _served(before, _load())
    told.facts["connections kept open"] = ", ".join(_kept(name) for name in KEEPERS)
    if _rules_of_others() != told.rules:
        raise DemoError("enforcement changed rules of CNI or kube-proxy")
    told.facts["rules of CNI, kube-proxy"] = f"{len(told.rules)} as they were"


def _switch(folder: Path, told: Told) -> None:  # noqa: ARG001
    _run("enforce", "--off", "--yes")
    tables = _on_nodes("for at in /run/netns/*; do nsenter --net=$at nft list tables; done")
    if left := [
        table for table in [*tables, *_on_nodes("nft list tables")] if "ringfence" in table
    ]:
        raise DemoError(f"{len(left)} tables of Ringfence stay")
    told.facts["tables left when off"] = "none"
    _run("enforce", *WORKSPACES, "--yes")


def _summary(told: Told) -> None:
    _heading("Summary")
    for name, fact in told.facts.items():
        say(f"  {name:24} {fact}")
    say("  time      memory taken")
    for title, seconds, memory in told.steps:
        say(f"  {seconds:6.1f} s  {memory:6} MiB      {title}")
    command = for_lab("ringfence flows list")
    say()
    say("The policies are in build/demo; `.venv/bin/ringfence -h` says what else there is.")
    say(f"The control plane runs at {load_context().server}; ask it: `{command}`.")
    say("`make demo-down` ends it all.")


def _available_memory() -> int:
    """MiB that programs may still take (MemAvailable, proc_meminfo(5))."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1]) // 1024


def _heading(title: str) -> None:
    say()
    say(f"=== {title}")


def _run(*words: str, expect: int = 0, show: bool = True) -> str:
    """Run a command of ours; print it, and what it says as it says it; return its stdout."""
    if show:
        say(f"$ {shlex.join(('ringfence', *words))}")
    done = subprocess.run([COMMAND, *words], stdout=subprocess.PIPE, text=True, check=False)
    if show:
        emit_text(done.stdout)
        sys.stdout.flush()
    if done.returncode != expect:
        raise DemoError(f"`{shlex.join(('ringfence', *words))}` ended with {done.returncode}")
    return done.stdout


def _until(what: str, seconds: float, holds: Callable[[], bool]) -> None:
    """Wait for a condition, saying what is waited for."""
    say(f"… until {what}")
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise DemoError(f"waited {seconds:.0f} s in vain until {what}")
        time.sleep(1)


def _in_namespace() -> str:
    return f'consumer.kubernetes.namespace = "{NAMESPACE}"'


def _workload(end: dict[str, Any]) -> str:
    """`carts` for pod carts-5d8f… and for Service carts; the address outside the cluster."""
    return str(end["owner"] or end["name"] or end["address"])


def _consumers(client: Client, category: str, since: str) -> list[str]:
    """Who opened the connections of a category, one entry a record."""
    answer = client.get("/analysis", workspace=NAMESPACE, since=since, category=category)
    ends = [record["flow"]["consumer"] for record in answer["records"]]
    return [end["name"] or end["address"] for end in ends]


def _counts(client: Client, since: str) -> str:
    counts = client.get("/analysis", workspace=NAMESPACE, since=since)["counts"]
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def _on_nodes(script: str) -> list[str]:
    """What a shell script prints on each node."""
    machines = json.loads(_run("lab", "status", "-o", "json", show=False))["machines"]
    nodes = [machine["name"] for machine in machines if machine["pods"]]
    said = [_run("lab", "exec", node, "--", "sh", "-c", script, show=False) for node in nodes]
    return [line for text in said for line in text.splitlines()]


def _rules_of_others() -> list[str]:
    """Rules of CNI and kube-proxy, without what changes by itself: counters, order, dates."""
    lines = _on_nodes("iptables-save; ip6tables-save")
    return sorted(_COUNTERS.sub("", line) for line in lines if not line.startswith("#"))


def _load() -> dict[str, int]:
    """The load generator's counts of pages so far, over all nodes."""
    targets = json.loads(_run("lab", "status", "-o", "json", show=False))["load"]["targets"]
    return {key: sum(counts[key] for counts in targets.values()) for key in ("answered", "failed")}


def _served(before: dict[str, int], after: dict[str, int]) -> str:
    answered, failed = (after[key] - before[key] for key in ("answered", "failed"))
    if failed or not answered:
        raise DemoError(f"{answered} pages were served, {failed} were not")
    return f"{answered} served, {failed} failed"


def _kept(workload: str) -> str:
    """What a workload says of the connection that it opened before enforcement and keeps."""
    argv = ("lab", "kubectl", "logs", "-n", NAMESPACE, f"deploy/{workload}", "--tail=-1")
    events = [json.loads(line) for line in _run(*argv, show=False).splitlines()]
    if any(event["event"] == "lost" for event in events):
        raise DemoError(f"{workload} lost the connection that it keeps open")
    return f"{workload}'s lives"
