"""`ringfence why`: which policy decides a connection, at each end, and what else matched."""

from typing import Annotated

import typer

from ringfence.cli.client import connect
from ringfence.cli.decisions import decided_by
from ringfence.cli.flows.options import SinceOption, UntilOption
from ringfence.cli.output import AnswerOption, Format, Row, emit_data, say
from ringfence.model.policy import Action
from ringfence.model.words import counted

app = typer.Typer(add_completion=False)


@app.command()
def why(  # noqa: PLR0913, PLR0917 - one parameter for each option
    source: Annotated[
        str | None,
        typer.Argument(help="An address, a node, namespace/pod or namespace/owner."),
    ] = None,
    destination: Annotated[
        str | None, typer.Argument(help="The same, or namespace/service.")
    ] = None,
    port: Annotated[int, typer.Argument(min=0, max=65535, help="The port as dialled.")] = 0,
    protocol: Annotated[str, typer.Option(help="TCP, UDP, ICMP, …")] = "TCP",
    icmp: Annotated[str, typer.Option(help="Of ICMP, the type, or type/code.")] = "echo-request",
    flow: Annotated[
        str | None, typer.Option(help="Instead of all these: an observed connection's id.")
    ] = None,
    with_: Annotated[
        list[str] | None,
        typer.Option("--with", help="As if this workspace@version were enforced; repeatable."),
    ] = None,
    since: SinceOption = "1h",
    until: UntilOption = None,
    output: AnswerOption = Format.TABLE,
) -> None:
    """Name the policy that decides at each end, and the others that matched; exit 2 if denied.

    Each end's kernel is asked too: which of its rules judge, as nft or iptables prints them, with
    counters.

    `ringfence flows related` and `ringfence flows list -o json` tell the ids of connections.

    Examples:

    ringfence why sock-shop/front-end sock-shop/carts 80

    ringfence why --flow 6f1c0a94d2e8b371 --since 10m
    """
    if flow is None and (source is None or destination is None):
        raise typer.BadParameter("write SOURCE and DESTINATION, or --flow ID")
    if flow is not None and source is not None:
        raise typer.BadParameter("--flow stands for SOURCE and DESTINATION: write either")
    named = {
        "source": source,
        "destination": destination,
        "port": port,
        "protocol": protocol,
        "icmp": icmp,
    }
    # What is only supposed to be enforced is in no kernel.
    also = {"with": with_ or [], "live": not with_}
    answer = (
        connect().get("/why/flow", connection=flow, since=since, until=until, **also)
        if flow is not None
        else connect().get("/why", **named, **also)
    )
    if output is not Format.TABLE:
        emit_data(answer, output)
        raise typer.Exit(0 if answer["allowed"] else 2)
    for connection in answer["connections"]:
        _tell_connection(connection)
    for note in answer["notes"]:
        say(f"note: {note}")
    raise typer.Exit(0 if answer["allowed"] else 2)


def _tell_connection(connection: Row) -> None:
    says = "allowed" if connection["allowed"] else "DENIED"
    say(f"{connection['text']}: {says}")
    for end in connection["ends"]:
        head = f"  {end['role']} {end['workload']} {end['direction']}: "
        if end.get("fail_safe"):
            say(f"{head}ALLOW fail-safe: {end['fail_safe']}")
        say(head + (decided_by(end["deciding"]) or "not governed"))
        for other in end["matching"]:
            if other != end["deciding"]:
                word = "told by" if other["action"] == Action.LOG else "then"
                say(f"      {word} {decided_by(other)}")
        _tell_kernel(end["kernel"])
    if connection["kept_out"]:
        say(f"  kube-proxy drops it: {connection['kept_out']}")


def _tell_kernel(kernel: Row | None) -> None:
    """The rules of the kernel at an end, and the elements of sets by which they hold."""
    if kernel is None:
        return
    if kernel["problem"]:
        say(f"      kernel: not known: {kernel['problem']}")
    elif not kernel["rules"]:
        say("      kernel: no rule of ours speaks of it")
    for rule in kernel["rules"]:
        say(f"      kernel: {rule['chain']}: {rule['text']}")
        for held in rule["elements"]:
            denied = held["denied_packets"]
            told = f", {counted(denied, 'packet')} denied" if denied else ""
            say(f"        by @{held['set']}: {held['element']}{told}")
