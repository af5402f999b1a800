"""`ringfence agents`: whether each node is seen and enforced, what it lost, how it reports."""

import time
from typing import Annotated

import typer

from ringfence.cli.client import connect
from ringfence.cli.enforce import tell_quarantined
from ringfence.cli.output import Column, Format, OutputOption, Row, emit, tell
from ringfence.model.flow import Mode
from ringfence.wire.limits import AUDITED_INTERFACES

app = typer.Typer(add_completion=False)


def _enforcement(row: Row) -> str:
    if row.get("stale_reason"):
        return f"stale: {row['stale_reason']}"
    if row["enforced_revision"] != row["desired_revision"]:
        return "updating"
    return "in force" if row["enforced_revision"] else "off"


def _pods(row: Row) -> str:
    """How many pods have their rules in force; and of the others one, where rules are wanted."""
    pods = row["pods"]
    counted = f"{pods['programmed']}/{pods['total']}"
    if not row["desired_revision"] or not pods["reasons"]:
        return counted
    (name, reason), *others = pods["reasons"].items()
    more = f", {len(others)} more in -o json" if others else ""
    return f"{counted}, not {name}: {reason}{more}"


def _losses(row: Row) -> str:
    losses = row["audit"]["losses"]
    return " ".join(f"{cause}={count}" for cause, count in sorted(losses.items()) if count) or "0"


def _audit(row: Row) -> str:
    """What of the kernel's own count of packets the agent's program did not count."""
    audit = row["audit"]
    wrong = [f"{audit[name]} {name}" for name in ("unaccounted", "overcounted") if audit[name]]
    if wrong:
        return " and ".join(wrong) + _worst(audit["interfaces"])
    if not audit["judged"]:
        return ""
    return f"within {audit['uncertain']}" if audit["uncertain"] else "exact"


def _worst(interfaces: list[Row]) -> str:
    """The first interface, if it is wrong: it may be one that is gone."""
    for each in interfaces[:1]:
        sides = each["ingress"], each["egress"]
        if any(s["unaccounted_least"] > 0 or s["unaccounted_most"] < 0 for s in sides):
            return f", most on {each['name']}" if each["judged"] else ""
    return ""


def _mode(row: Row) -> str:
    wanted, now = row["desired_mode"], row["mode"]
    return str(now) if now == wanted else f"{now}, soon {wanted}"


COLUMNS = [
    Column("NAME", lambda row: row["name"]),
    Column("KUBERNETES CLUSTER", lambda row: row["kubernetes_cluster"]),
    Column("CONNECTED", lambda row: "yes" if row["connected"] else f"no, {row['last_seen']}"),
    Column("ENFORCEMENT", _enforcement),
    Column("PODS", _pods),
    Column("MODE", _mode),
    Column("SKBS", lambda row: row["audit"]["skbs"], right=True),
    Column("AUDIT", _audit),
    Column("LOST", _losses),
    Column("SKEW", lambda row: f"{row['clock_skew_seconds']:.1f} s", wide=True, right=True),
    Column("RELEASE", lambda row: row["release"], wide=True),
]


@app.callback(invoke_without_command=True)
def agents(context: typer.Context, output: OutputOption = Format.TABLE) -> None:
    """Show each agent: connected, what it enforces, how it reports, what it counted and lost.

    AUDIT holds the count at pods' interfaces against the kernel's own: `exact`, `within` as many
    packets as passed while both were read, or how many are unaccounted for. -o json has figures
    for each interface.

    Where rules admit more than their policies say is told on stderr.

    Example: ringfence agents -o wide
    """
    if context.invoked_subcommand:
        return
    client = connect()
    whole = output in (Format.JSON, Format.JSONL, Format.YAML)
    listed = client.get("/agents", interfaces=AUDITED_INTERFACES if whole else 1)
    emit(listed["items"], COLUMNS, output, "no agent has enrolled yet")
    state = client.get("/enforcement")
    for warning in state["warnings"]:
        tell(f"note: {warning}")
    tell_quarantined(state["quarantined"])


@app.command("mode")
def choose_mode(
    node: Annotated[str, typer.Argument(help="The agent's node.")],
    mode: Annotated[
        Mode,
        typer.Argument(
            help="conversation: consumers' ports are folded, a report every 15 s; "
            "detailed: every port is kept, a report every second.",
            case_sensitive=False,
        ),
    ],
    kubernetes_cluster: Annotated[
        str | None, typer.Option(help="Where several clusters have a node of that name.")
    ] = None,
    timeout: Annotated[float, typer.Option(min=0, help="Seconds to wait for the agent.")] = 20.0,
) -> None:
    """Choose how finely a node's agent tells flows, while it runs; no count is lost.

    The choice is kept until the next. Exit code 2 if the agent has not taken it up by the end of
    the wait.

    Example: ringfence agents mode node1 detailed
    """
    client = connect()
    body = {"node": node, "kubernetes_cluster": kubernetes_cluster, "mode": mode.value}
    chosen = client.post("/agents/mode", body)
    key = chosen["kubernetes_cluster"], chosen["name"]
    deadline = time.monotonic() + timeout
    while chosen["mode"] != mode:
        if time.monotonic() > deadline:
            tell(f"{node} has not taken it up yet")
            raise typer.Exit(2)
        time.sleep(0.2)
        listed = client.get("/agents", interfaces=0)["items"]
        (chosen,) = (one for one in listed if (one["kubernetes_cluster"], one["name"]) == key)
    tell(f"{node} reports in {mode} mode")
