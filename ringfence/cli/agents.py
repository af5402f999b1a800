"""`ringfence agents`: whether each node is seen and enforced, and what was lost there."""

import typer

from ringfence.cli.client import connect
from ringfence.cli.output import Column, Format, OutputOption, Row, emit

app = typer.Typer(add_completion=False)


def _enforcement(row: Row) -> str:
    if row.get("stale_reason"):
        return f"stale: {row['stale_reason']}"
    if row["enforced_revision"] != row["desired_revision"]:
        return "updating"
    return "in force" if row["enforced_revision"] else "off"


def _losses(row: Row) -> str:
    losses = (row.get("audit") or {}).get("losses") or {}
    return " ".join(f"{cause}={count}" for cause, count in sorted(losses.items()) if count) or "0"


COLUMNS = [
    Column("NAME", lambda row: row["name"]),
    Column("KUBERNETES CLUSTER", lambda row: row["kubernetes_cluster"]),
    Column("CONNECTED", lambda row: "yes" if row["connected"] else f"no, {row['last_seen']}"),
    Column("ENFORCEMENT", _enforcement),
    Column("PODS", lambda row: f"{row['pods']['programmed']}/{row['pods']['total']}", right=True),
    Column("SKBS", lambda row: (row.get("audit") or {}).get("skbs"), right=True),
    Column("LOST", _losses),
    Column("SKEW", lambda row: f"{row['clock_skew_seconds']:.1f} s", wide=True, right=True),
    Column("RELEASE", lambda row: row["release"], wide=True),
]


@app.command()
def agents(output: OutputOption = Format.TABLE) -> None:
    """Show each agent: connected, what it enforces, how much it counted and lost.

    Where rules admit more than their policies say is told on stderr.

    Example: ringfence agents -o wide
    """
    state = connect().get("/enforcement")
    emit(state["agents"], COLUMNS, output, "no agent has enrolled yet")
    for warning in state["warnings"]:
        typer.echo(f"note: {warning}", err=True)
