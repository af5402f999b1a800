"""`ringfence flows related`: why records belong together."""

import json
from typing import Annotated

import typer

from ringfence.cli.client import connect
from ringfence.cli.flows.columns import both, end_name, port, process_name, provider_name
from ringfence.cli.flows.options import SinceOption, UntilOption
from ringfence.cli.output import AnswerOption, Format, Row, emit_data, say, tell
from ringfence.model.address import parse_address
from ringfence.model.errors import InputError
from ringfence.model.flow import format_connection, parse_connection
from ringfence.model.protocol import WITH_PORTS, parse_one_protocol


def related(  # noqa: PLR0913, PLR0917 - one parameter for each option
    source: Annotated[
        str, typer.Argument(help="A connection's id; or an address, namespace/name, or a name.")
    ],
    destination: Annotated[
        str | None, typer.Argument(help="An address, namespace/name (a Service's too), or a name.")
    ] = None,
    dialled: Annotated[
        int | None,
        typer.Argument(metavar="PORT", min=0, max=65535, help="The port, before or after NAT."),
    ] = None,
    protocol: Annotated[str, typer.Option(help="TCP, UDP, ICMP, …")] = "TCP",
    since: SinceOption = "5m",
    until: UntilOption = None,
    limit: Annotated[int, typer.Option(min=1, max=100, help="At most so many connections.")] = 10,
    output: AnswerOption = Format.TABLE,
) -> None:
    """Show the hops of a connection in the order of the path, with what each observer saw.

    `*` marks the observer whose counts are the connection's; the others saw the same packets.

    Examples:

    ringfence flows related sock-shop/front-end sock-shop/carts 80

    ringfence flows related 6f1c0a94d2e8b371 --since 1h
    """
    if destination is None:
        filter_ = f'connection = "{format_connection(parse_connection(source))}"'
    else:
        filter_ = _between(source, destination, dialled, protocol)
    answer = connect().get("/flows/related", filter=filter_, since=since, until=until, limit=limit)
    if output is not Format.TABLE:
        emit_data(answer, output)
        return
    for connection in answer["items"]:
        _print(connection)
    if not answer["items"]:
        tell("no flow matches")


def _between(source: str, destination: str, dialled: int | None, protocol: str) -> str:
    """The filter of connections between two ends."""
    number = parse_one_protocol(protocol)
    parts = [_end("consumer", source), _end("provider", destination), f'protocol = "{number}"']
    if dialled is not None and number in WITH_PORTS:
        parts.append(f"port = {dialled}")
    return " and ".join(parts)


def _end(end: str, text: str) -> str:
    try:
        parse_address(text)
    except InputError:
        namespace, _, name = text.rpartition("/")
        quoted = json.dumps(name, ensure_ascii=False)
        either = f"({end}.name = {quoted} or {end}.kubernetes.owner.name = {quoted})"
        inside = f"{end}.kubernetes.namespace = {json.dumps(namespace, ensure_ascii=False)}"
        return f"{either} and {inside}" if namespace else either
    return f'{end}.address = "{text}"'


def _print(connection: Row) -> None:
    flow = connection["flow"]
    head = f"{end_name(flow['consumer'])} → {provider_name(flow)} {flow['protocol']} {port(flow)}"
    say(f"connection {flow['connection']}: {head}, {flow['disposition']}")
    for number, hop in enumerate(connection["hops"], 1):
        nat = f"  after {' and '.join(hop['translated'])}" if hop["translated"] else ""
        ends = f"{end_name(hop['consumer'])} → {end_name(hop['provider'])} {port(hop)}"
        say(f"  hop {number}: {ends}{nat}")
        for end in ("consumer", "provider"):
            if holder := process_name(hop[end]):
                say(f"    {end} is {holder}")
        for seen in hop["observations"]:
            mark = "*" if seen["counted"] else " "
            say(f"    {mark} {_observation(seen)}")
        for drop in hop["drops"]:
            say(f"    x {_drop(drop)}")


def _observation(seen: Row) -> str:
    before = seen["before"]
    known = (
        f", known to be {end_name(before['consumer'])} → {end_name(before['provider'])}"
        f" {before['port']} before"
        if before
        else ""
    )
    counts = f"{both(seen, 'packets')} packets, {both(seen, 'bytes')}, {seen['opened']} opened"
    where = f"at the {seen['place']}" if seen["place"] != "elsewhere" else "elsewhere"
    return f"{seen['node']} interface {seen['interface']}, {where}: {counts}{known}"


def _drop(drop: Row) -> str:
    why = drop["policy"] or drop["reason"]
    return f"{drop['node']} dropped {drop['packets']} packets {drop['direction']}: {why}"
