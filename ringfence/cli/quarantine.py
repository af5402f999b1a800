"""`ringfence quarantine`: cut a workload off at once, and let it go again."""

from typing import Annotated

import typer
from typer._click import Context
from typer.core import TyperGroup

from ringfence.cli.client import connect
from ringfence.cli.enforce import wait_until_in_force
from ringfence.cli.output import (
    AnswerOption,
    Column,
    Format,
    OutputOption,
    Row,
    emit,
    emit_data,
    say,
    tell,
)
from ringfence.model.duration import parse_duration
from ringfence.model.errors import RingfenceError
from ringfence.model.override import Override
from ringfence.model.words import counted, named


class _SetByDefault(TyperGroup):
    """Takes what is no command for the workload that is meant."""

    def parse_args(self, ctx: Context, args: list[str]) -> list[str]:
        """Read the arguments as those of `set` where they begin with no other command."""
        if args and args[0] not in {*self.commands, *ctx.help_option_names}:
            args = ["set", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_SetByDefault,
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Cut a workload off at once, ahead of every policy; list quarantines, lift one.

    `ringfence quarantine WORKLOAD` is short for `ringfence quarantine set WORKLOAD`.

    Example: ringfence quarantine sock-shop/carts --allow dns --for 2h --reason "odd scans"
    """,
)


ClusterOption = Annotated[
    str | None, typer.Option(help="Where several clusters have a workload of that name.")
]
WaitOption = Annotated[bool, typer.Option(help="Wait until every connected agent has it in force.")]
TimeoutOption = Annotated[float, typer.Option(min=0, help="Seconds to wait.")]


@app.command("set")
def set_quarantine(  # noqa: PLR0913, PLR0917 - one parameter for each option
    workload: Annotated[
        str,
        typer.Argument(help="namespace/name of a pod or of what owns pods; a node or host."),
    ],
    allow: Annotated[
        list[str] | None,
        typer.Option(
            help="What still passes, by commas or repeated: dns, probes, namespace/name of a "
            "Service, an address or a CIDR block."
        ),
    ] = None,
    for_: Annotated[
        str | None,
        typer.Option("--for", help="How long, such as 30m, 2h or 7d; else until lifted."),
    ] = None,
    reason: Annotated[str, typer.Option(help="Why, for those who find it later.")] = "",
    kubernetes_cluster: ClusterOption = None,
    override: Annotated[
        list[Override] | None,
        typer.Option(help="Go ahead despite a refusal that names this word; repeatable."),
    ] = None,
    dry_run: Annotated[bool, typer.Option(help="Show whom it would hold only.")] = False,
    wait: WaitOption = True,
    timeout: TimeoutOption = 60.0,
    output: AnswerOption = Format.TABLE,
) -> None:
    """Let nothing pass to or from a workload but what is allowed, and cut what is open.

    namespace/name means the pod of that name and the pods of the owner of that name, also those
    that come later. A pod that is quarantined by its own name does not take the other pods of its
    owner along, nor one that replaces it under another name. Setting it again replaces it.

    Exit code 2 if it is not in force on every node by the end of the wait.

    Example: ringfence quarantine sock-shop/carts --allow dns,probes --for 2h
    """
    client = connect()
    body = {
        "workload": workload,
        "kubernetes_cluster": kubernetes_cluster,
        "allow": [word for text in allow or [] for word in text.split(",") if word],
        "for_seconds": parse_duration(for_) if for_ is not None else None,
        "reason": reason,
        "override": override or [],
    }
    plan = client.post("/quarantines", {**body, "dry_run": dry_run})
    if output is Format.TABLE:
        verb = "would be quarantined" if dry_run else "quarantined"
        say(f"{verb}, {_until(plan)}, allowed: {_allowed(plan)}")
        say(f"{counted(len(plan['workloads']), 'workload')}: {named(plan['workloads'])}")
    else:
        emit_data(plan, output)
    for note in plan["notes"]:
        tell(f"note: {note}")
    if plan["refused"]:
        raise RingfenceError(plan["refused"])
    _check_told(plan)
    if wait and not dry_run and not wait_until_in_force(client, timeout):
        raise typer.Exit(2)


@app.command("list")
def list_quarantines(output: OutputOption = Format.TABLE) -> None:
    """List who is quarantined since when, by whom, until when and why.

    Example: ringfence quarantine list -o json
    """
    emit(connect().get("/quarantines")["items"], COLUMNS, output, "nothing is quarantined")


@app.command("lift")
def lift(
    workload: Annotated[str, typer.Argument(help="As it was quarantined.")],
    kubernetes_cluster: ClusterOption = None,
    wait: WaitOption = True,
    timeout: TimeoutOption = 60.0,
    output: AnswerOption = Format.TABLE,
) -> None:
    """Let a workload go: the policies that are enforced decide again.

    Example: ringfence quarantine lift sock-shop/carts
    """
    client = connect()
    query = {"workload": workload, "kubernetes_cluster": kubernetes_cluster}
    lifted = client.delete("/quarantines", **query)
    if output is Format.TABLE:
        say(f"lifted: {workload}")
    else:
        emit_data(lifted, output)
    _check_told(lifted)
    if wait and not wait_until_in_force(client, timeout):
        raise typer.Exit(2)


def _check_told(answer: Row) -> None:
    if answer["problem"]:
        raise RingfenceError(f"not in force yet: {answer['problem']}")


def _until(row: Row) -> str:
    return f"until {row['expires']}" if row["expires"] else "until lifted"


def _allowed(row: Row) -> str:
    return ", ".join(row["allow"]) or "nothing"


COLUMNS = [
    Column("WORKLOAD", lambda row: row["workload"]),
    Column("KUBERNETES CLUSTER", lambda row: row["kubernetes_cluster"]),
    Column("NOW", lambda row: len(row["workloads"]), right=True),
    Column("ALLOWED", _allowed),
    Column("BY", lambda row: row["actor"]),
    Column("SINCE", lambda row: row["since"]),
    Column("UNTIL", lambda row: row["expires"] or "lifted"),
    Column("REASON", lambda row: row["reason"]),
    Column("WORKLOADS", lambda row: ", ".join(row["workloads"]), wide=True),
]
