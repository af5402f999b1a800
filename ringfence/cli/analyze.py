"""`ringfence analyze`: what a version of the policies would do to live traffic."""

from typing import Annotated

import typer

from ringfence.cli.client import connect
from ringfence.cli.flows.columns import end_name, port
from ringfence.cli.flows.options import SinceOption, UntilOption
from ringfence.cli.output import Column, Format, OutputOption, Row, emit, emit_data, tell
from ringfence.model.flow import Category
from ringfence.model.ids import parse_version
from ringfence.model.quarantine import QUARANTINE
from ringfence.model.verdict import Layer

app = typer.Typer(add_completion=False)


def decided_by(decision: Row | None) -> str:
    """`ACTION workspace/policy@pN (stage)`; empty for an end that does not decide.

    Of the Kubernetes layer: `ACTION KIND/NAMESPACE/NAME rule of workspace@pN (stage)`.
    """
    if not decision:
        return ""
    if decision["layer"] == Layer.KUBERNETES:
        said = " ".join(filter(None, (decision["policy"] or "no policy", decision["rule"])))
        held = f" of {decision['workspace']}@p{decision['version']}" * bool(decision["workspace"])
        return f"{decision['action']} {said}{held} (Kubernetes, {decision['stage']})"
    if decision["workspace"] == QUARANTINE:
        said = f", {decision['policy']}" if decision["policy"] else ""
        return f"{decision['action']} quarantine of {decision['scope']}{said} (absolute)"
    name = decision["policy"] or "catch-all"
    return (
        f"{decision['action']} {decision['workspace']}/{name}@p{decision['version']}"
        f" ({decision['stage']})"
    )


COLUMNS = [
    Column("CATEGORY", lambda row: row["category"]),
    Column("CONSUMER", lambda row: end_name(row["flow"]["consumer"])),
    Column("PROVIDER", lambda row: end_name(row["flow"]["provider"])),
    Column("TRAFFIC", lambda row: f"{row['flow']['protocol']} {port(row['flow'])}"),
    Column("CONNECTIONS", lambda row: row["flow"]["opened"], right=True),
    Column("OUTBOUND", lambda row: decided_by(row["deciding"].get("consumer"))),
    Column("INBOUND", lambda row: decided_by(row["deciding"].get("provider"))),
    Column("NODE", lambda row: decided_by(row["deciding"].get("node")), wide=True),
    Column("LOGGED BY", lambda row: ", ".join(map(decided_by, row["logged"])), wide=True),
]


@app.command()
def analyze(
    workspace: Annotated[str, typer.Argument(help="A workspace, or workspace@p2 for a version.")],
    since: SinceOption = "5m",
    until: UntilOption = None,
    with_: Annotated[
        list[str] | None, typer.Option("--with", help="Judge beside this one too; repeatable.")
    ] = None,
    category: Annotated[Category | None, typer.Option(help="Show these records only.")] = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Count and list what a policy version would do to observed connections. Enforces nothing.

    permitted: passed, and the policy allows it. escaped: passed, but the policy denies it.
    rejected: dropped, and the policy denies it. misdropped: dropped, but the policy allows it.
    Log-only policies are told with the number of connections that each matches.

    Example: ringfence analyze sock-shop --since 10m --category escaped
    """
    name, number = parse_version(workspace)
    answer = connect().get(
        "/analysis",
        workspace=name,
        version=number,
        since=since,
        until=until,
        category=category,
        **({"with": with_} if with_ else {}),
    )
    if output in (Format.JSON, Format.YAML):
        emit_data(answer, output)
        return
    counts = "  ".join(f"{name} {answer['counts'][name]}" for name in Category)
    tell(f"{answer['workspace']} p{answer['version']}: {counts}")
    for one in answer["logged"]:
        tell(f"{decided_by(one['decision'])}: {one['connections']}")
    emit(answer["records"], COLUMNS, output, "no connection in view")
