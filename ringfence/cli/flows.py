"""`ringfence flows`: who talked to whom, and who tried."""

from typing import Annotated

import typer

from ringfence.cli.client import connect
from ringfence.cli.output import Column, Format, OutputOption, Row, emit, human_bytes
from ringfence.model.protocol import format_port, parse_protocol

app = typer.Typer(no_args_is_help=True, add_completion=False)

SinceOption = Annotated[str, typer.Option(help="A time, or a duration back from now such as 5m.")]
UntilOption = Annotated[str | None, typer.Option(help="A time or a duration back from now.")]
LimitOption = Annotated[int, typer.Option(min=1, max=10_000, help="At most this many.")]
_WAYS = ("forward", "reverse")
FilterOption = Annotated[
    str | None,
    typer.Option(
        "--filter",
        "-f",
        help="Such as 'consumer.name = \"carts\" and port = 80'; see docs/filters.md.",
    ),
]


def end_name(end: Row) -> str:
    """The name of a flow's end with its address; the address alone for an unknown one."""
    return f"{end['name']} ({end['address']})" if end.get("name") else end["address"]


def port(row: Row) -> str:
    """A flow's port, or ICMP's type and code."""
    return format_port(parse_protocol(row["protocol"]), row["port"])


def _provider(row: Row) -> str:
    service = row.get("service")
    name = end_name(row["provider"])
    return f"{name} via {service['name']}" if service and service["name"] not in name else name


def _flags(row: Row) -> str:
    forward, reverse = ("".join(flag[0] for flag in row[way]["flags"]) for way in _WAYS)
    return f"{forward}/{reverse}" if forward or reverse else ""


def _rtt(row: Row) -> str:
    """The least and the mean time from SYN to SYN-ACK."""
    rtt = row["rtt"]
    return " / ".join(f"{rtt[name] / 1e6:.2f} ms" for name in ("min_ns", "mean_ns")) if rtt else ""


FLOW_COLUMNS = [
    Column("CONSUMER", lambda row: end_name(row["consumer"])),
    Column("PROVIDER", _provider),
    Column("PROTOCOL", lambda row: row["protocol"]),
    Column("PORT", port, right=True),
    Column("BYTES", lambda row: _both(row, "bytes"), right=True),
    Column("PACKETS", lambda row: _both(row, "packets"), right=True),
    Column("FLAGS", _flags),
    Column("OPENED", lambda row: row["opened"], right=True),
    Column("ANSWERED", lambda row: row["answered"], right=True, wide=True),
    Column("REFUSED", lambda row: row["refused"], right=True, wide=True),
    Column("DROPPED", lambda row: row["dropped"], right=True, wide=True),
    Column("SYN", lambda row: _of_tcp(row, "syn"), right=True, wide=True),
    Column("FIN", lambda row: _of_tcp(row, "fin"), right=True, wide=True),
    Column("RST", lambda row: _of_tcp(row, "rst"), right=True, wide=True),
    Column("RETRANSMITTED", lambda row: _of_tcp(row, "retransmitted"), right=True, wide=True),
    Column("RTT MIN / MEAN", _rtt, right=True, wide=True),
    Column("DIRECTION BY", lambda row: row["method"]),
    Column("DISPOSITION", lambda row: row["disposition"]),
    Column("FIRST", lambda row: row["first"], wide=True),
    Column("LAST", lambda row: row["last"], wide=True),
]


def _both(row: Row, count: str) -> str:
    forward, reverse = row["forward"][count], row["reverse"][count]
    if count == "bytes":
        return f"{human_bytes(forward)} / {human_bytes(reverse)}"
    return f"{forward} / {reverse}"


def _of_tcp(row: Row, count: str) -> str:
    return _both(row, count) if row["protocol"] == "TCP" else ""


def with_related(rows: list[Row]) -> list[Row]:
    """Each flow, and under it, marked, the related records of the same connections."""
    spread: list[Row] = []
    for row in rows:
        spread.append(row)
        for hop in row.get("related") or []:
            marked = {**hop["consumer"], "name": "  └ " + (hop["consumer"].get("name") or "")}
            spread.append({**row, "service": None, **hop, "consumer": marked})
    return spread


@app.command("list")
def list_flows(
    filter_: FilterOption = None,
    since: SinceOption = "5m",
    until: UntilOption = None,
    limit: LimitOption = 200,
    output: OutputOption = Format.TABLE,
) -> None:
    """List connections with their names, volume, flags and how their direction was known.

    Each connection stands once; its related records (before and after a Service's or a node's
    translation) stand below it.

    Example: ringfence flows list --since 5m --filter 'consumer.kubernetes.label.name = "carts"'
    """
    answer = connect().get("/flows", filter=filter_, since=since, until=until, limit=limit)
    rows = answer["items"]
    tabular = output not in (Format.JSON, Format.JSONL, Format.YAML)
    emit(with_related(rows) if tabular else rows, FLOW_COLUMNS, output, "no flow matches")


DENIED_COLUMNS = [
    Column("CONSUMER", lambda row: end_name(row["consumer"])),
    Column("PROVIDER", lambda row: end_name(row["provider"])),
    Column("PROTOCOL", lambda row: row["protocol"]),
    Column("PORT", port, right=True),
    Column("DROPPED", lambda row: f"{row['direction']} at {' '.join(*row['at'].items())}"),
    Column("POLICY", lambda row: row.get("policy") or row.get("rule") or row.get("reason")),
    Column("PACKETS", lambda row: row["packets"], right=True),
    Column("LAST", lambda row: row["last"], wide=True),
]


@app.command("denied")
def denied(
    filter_: FilterOption = None,
    since: SinceOption = "5m",
    until: UntilOption = None,
    limit: LimitOption = 200,
    output: OutputOption = Format.TABLE,
) -> None:
    """List dropped connections with the policy that dropped them, from the agents' drop reports.

    Example: ringfence flows denied --since 10m
    """
    answer = connect().get("/flows/denied", filter=filter_, since=since, until=until, limit=limit)
    emit(answer["items"], DENIED_COLUMNS, output, "nothing was dropped")
