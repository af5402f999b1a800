"""`ringfence lab`: a real Kubernetes cluster in network namespaces, with a shop in it."""

import os
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from ringfence.cli import output
from ringfence.cli.client import for_lab
from ringfence.cli.output import Column, Format, OutputOption, emit_text, tell
from ringfence.cli.progress import shown
from ringfence.lab import build as binaries
from ringfence.lab import cluster, images, kubectl, machine, node
from ringfence.lab import install as installation
from ringfence.lab import status as lab_status
from ringfence.lab.command import environment
from ringfence.lab.config import Cni, LabConfig
from ringfence.lab.conformance import Lab, Suite, conform
from ringfence.lab.shop import examples
from ringfence.lab.shop import run as shop
from ringfence.model.errors import InputError
from ringfence.model.words import counted

app = typer.Typer(no_args_is_help=True, add_completion=False)
intruder = typer.Typer(no_args_is_help=True, add_completion=False)
app.add_typer(intruder, name="intruder", help="A pod that does what no application should.")


class PassOn(TyperCommand):
    """A command whose words are all for the program that it runs, ``--`` and ``--help`` too."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Keep every word as it is."""
        ctx.args = args
        return args


@app.callback()
def _lab() -> None:
    """A real Kubernetes cluster on this machine, with a shop in it. Needs root."""


@app.command()
def build() -> None:
    """Make what is slow to make: Kubernetes and CoreDNS binaries, container images."""
    with shown() as progress:
        images.shop_images(progress)
        binaries.kubernetes(progress)
        images.ringfence_image(progress)


@app.command()
def up(
    nodes: Annotated[int, typer.Option(min=1, max=100, help="Number of Kubernetes nodes.")] = 2,
    bare: Annotated[bool, typer.Option("--bare", help="Leave the shop out.")] = False,
    cni: Annotated[Cni, typer.Option(help="How pods reach pods of other nodes.")] = Cni.ROUTED,
) -> None:
    """Start a fresh lab. One that runs, or the remains of one, are taken down first."""
    with shown() as progress:
        cluster.up(LabConfig(nodes=nodes, cni=cni), progress, bare=bare)


@app.command()
def install(
    dns: Annotated[
        bool, typer.Option("--dns", help="Agents read DNS answers, to tell addresses by name.")
    ] = False,
) -> None:
    """Put Ringfence into the running lab. Without a login the other commands mean it."""
    config, record = cluster.running(LabConfig())
    with shown() as progress:
        where = installation.install(config, record, progress, dns=dns)
    command = for_lab("ringfence agents")
    tell(f"the control plane is at {where.server}; try `{command}`")


@app.command()
def down(
    everything: Annotated[bool, typer.Option("--all", help="Its logs too.")] = False,
) -> None:
    """Take the lab away: processes, namespaces, mounts, cgroups, rules, files."""
    with shown() as progress:
        cluster.down(LabConfig(), progress, logs=everything)


@app.command()
def status(form: OutputOption = Format.TABLE) -> None:
    """Show the machines of the running lab and how they are."""
    config, record = cluster.running(LabConfig())
    found = asdict(lab_status.status(config, record))
    if form in (Format.JSON, Format.YAML, Format.JSONL):
        output.emit_data(found, form)
        return
    columns = [
        Column("MACHINE", lambda m: m["name"]),
        Column("ADDRESS", lambda m: m["address"]),
        Column("STATE", lambda m: "ready" if m["ready"] else "not ready"),
        Column("PODS", lambda m: "{}/{}".format(*m["pods"]) if m["pods"] else ""),
        Column("POD NETWORK", lambda m: f"{m['pod_network']} {found['cni']}" if m["pods"] else ""),
        Column("ENDED", lambda m: ", ".join(m["ended"])),
        Column("RUNNING", lambda m: ", ".join(m["running"]), wide=True),
    ]
    output.emit(found["machines"], columns, form)


@app.command("kubectl", cls=PassOn)
def run_kubectl(context: typer.Context) -> None:
    """Run kubectl against the lab."""
    config, _ = cluster.running(LabConfig())
    _become(kubectl.command(config, context.args))


@app.command("exec", cls=PassOn)
def execute(context: typer.Context) -> None:
    """Run a command on a machine of the lab: exec node1|…|control|external -- COMMAND."""
    config, record = cluster.running(LabConfig())
    match context.args:
        case [name, "--", *argv] if argv:
            _become(machine.find(config, record, name).command(argv))
        case _:
            machines = ", ".join(record.inits)
            raise InputError(f"say `lab exec MACHINE -- COMMAND`; the machines are {machines}")


@app.command()
def reboot(
    name: Annotated[str, typer.Argument(metavar="NODE", help="node1, node2, …")],
    runtime: Annotated[
        bool, typer.Option("--runtime", help="Restart its containerd alone: pods go on.")
    ] = False,
    away: Annotated[float, typer.Option(min=0, help="Seconds that containerd is away.")] = 0.0,
) -> None:
    """Stop a node and start it again. Its disk stays; pods, interfaces and rules are gone.

    Ends before its pods are there again.

    Example: ringfence lab reboot node1
    """
    with shown() as progress:
        if runtime:
            cluster.restart_runtime(LabConfig(), name, progress, away)
        else:
            cluster.reboot(LabConfig(), name, progress)


@app.command()
def kubeconfig() -> None:
    """Print a kubeconfig for the lab that works on this host."""
    config, _ = cluster.running(LabConfig())
    emit_text(config.kubeconfig.read_text())


@app.command()
def load(
    archive: Annotated[Path, typer.Argument(metavar="IMAGE.tar", exists=True, dir_okay=False)],
) -> None:
    """Load an image archive (docker save or OCI) into every node."""
    node.check_archive(archive)
    config, record = cluster.running(LabConfig())
    with shown() as progress:
        for spec in config.node_specs:
            with progress.step(f"Load {archive.name} into {spec.name}"):
                node.load_image(machine.find(config, record, spec.name), archive)


@app.command("examples")
def dial_examples(form: OutputOption = Format.TABLE) -> None:
    """Dial what the published example policies allow, and neighbours of it that they do not.

    Ends with 2 if one comes out otherwise than where the shop's policies are enforced.
    """
    config, record = cluster.running(LabConfig())
    outcomes = examples.dial_all(config, record)
    columns = [
        Column("EXAMPLE POLICY", lambda row: row["policy"]),
        Column("FROM", lambda row: row["consumer"]),
        Column("TO", lambda row: row["provider"]),
        Column("PORT", lambda row: row["port"], right=True),
        Column("ALLOWED", lambda row: "yes" if row["allowed"] else "no"),
        Column("RESULT", lambda row: row["result"]),
    ]
    output.emit([asdict(o.example) | {"result": o.result} for o in outcomes], columns, form)
    if not all(outcome.as_enforced for outcome in outcomes):
        raise typer.Exit(2)


@app.command("conformance")
def run_conformance(
    suite: Annotated[Suite, typer.Option(help="Whose tests to run.")] = Suite.NETWORK_POLICY,
    focus: Annotated[
        str, typer.Option(help="Run those whose names this (Go) regular expression matches.")
    ] = "",
    procs: Annotated[
        int, typer.Option(min=1, max=20, help="How many to run at once, where a suite can.")
    ] = 3,
    form: OutputOption = Format.TABLE,
) -> None:
    """Run others' conformance tests against whoever enforces policies in the lab.

    Ends with 2 if one fails. All of a suite takes a quarter of an hour.

    Example: ringfence lab conformance --focus default-deny
    """
    config, record = cluster.running(LabConfig())
    began = time.monotonic()
    with shown() as progress:
        specs = conform(Lab(config, record, progress), suite, focus, procs)
    seconds = time.monotonic() - began
    columns = [
        Column("SPEC", lambda row: row["name"]),
        Column("SECONDS", lambda row: f"{row['seconds']:.1f}", right=True),
        Column("RESULT", lambda row: "failed" if row["failure"] else "passed"),
        Column("FAILURE", lambda row: row["failure"], wide=True),
    ]
    output.emit([asdict(spec) for spec in specs], columns, form)
    failed = sum(bool(spec.failure) for spec in specs)
    tell(f"{len(specs) - failed} of {counted(len(specs), 'spec')} passed in {seconds:.0f} s")
    if failed or not specs:
        raise typer.Exit(2)


@intruder.command("start")
def start_intruder() -> None:
    """Start the pod that scans its neighbours and calls user-db."""
    config, _ = cluster.running(LabConfig())
    with shown() as progress, progress.step("Intruder"):
        shop.start_intruder(config)


@intruder.command("stop")
def stop_intruder() -> None:
    """Remove the intruder."""
    config, _ = cluster.running(LabConfig())
    shop.stop_intruder(config)


def _become(argv: list[str]) -> None:
    """Replace this process, so that signals, terminal and exit code are the command's own."""
    sys.stdout.flush()
    os.execvpe(argv[0], argv, environment())  # noqa: S606
