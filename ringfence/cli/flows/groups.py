"""`ringfence flows top` and `graph`: flows added up."""

from enum import StrEnum
from typing import Annotated, Any

import typer

from ringfence.cli.client import connect
from ringfence.cli.flows.columns import two_way
from ringfence.cli.flows.drawing import dot, edge_name, mermaid, node_names
from ringfence.cli.flows.options import FilterOption, LimitOption, SinceOption, UntilOption
from ringfence.cli.output import Column, Format, OutputOption, Row, emit, emit_data, say, tell
from ringfence.flows.told import TOLD
from ringfence.model.flow import Sort
from ringfence.model.protocol import format_port, parse_protocol


class GraphFormat(StrEnum):
    """The forms of `graph`."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    JSONL = "jsonl"
    CSV = "csv"
    MD = "md"
    DOT = "dot"
    MERMAID = "mermaid"


SortOption = Annotated[Sort, typer.Option(help="The greatest by this come first.")]
MergeOption = Annotated[
    bool,
    typer.Option("--merge-outside", help="Show all addresses outside the inventory as one."),
]

_PORTS = ("port", "dialled_port")

SUMS_COLUMNS = [
    Column("CONNECTIONS", lambda row: row["connections"], right=True),
    two_way("bytes"),
    two_way("packets"),
    Column("OPENED", lambda row: row["opened"], right=True),
    Column("ANSWERED", lambda row: row["answered"], right=True, wide=True),
    Column("REFUSED", lambda row: row["refused"], right=True),
    Column("DROPPED", lambda row: row["dropped"], right=True),
    Column("FIRST", lambda row: row["first"], wide=True),
    Column("LAST", lambda row: row["last"], wide=True),
]


def top(  # noqa: PLR0913, PLR0917 - one parameter for each option
    by: Annotated[
        str,
        typer.Option(help="Keys joined by commas: consumer.KEY, provider.KEY, or see below."),
    ] = "consumer.workload,provider.workload,protocol,port",
    filter_: FilterOption = None,
    since: SinceOption = "5m",
    until: UntilOption = None,
    sort: SortOption = Sort.BYTES,
    limit: LimitOption = 20,
    merge_outside: MergeOption = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Add up connections by labels of their ends, the greatest groups first.

    A KEY is a label such as kubernetes.namespace or kubernetes.label.app, or `workload`: the
    namespace and name of a Deployment, a DaemonSet and so on; address.type tells what is outside:
    private, public, cloud-metadata, kube-apiserver and so on. dialled.KEY tells of what was
    dialled: a Service, or the provider itself. Besides there are protocol, port (the provider's),
    dialled_port and method, provider.dns.name, and process.name, process.pid and process.container
    of the consumer and the provider. A port brings its protocol along. A label that an end lacks
    is shown empty, an empty one as "". Six hours and more are added up from whole hours.

    Examples:

    ringfence flows top --by consumer.kubernetes.namespace,provider.kubernetes.namespace

    ringfence flows top --by provider.workload,port --sort dropped --since 1h

    ringfence flows top --by dialled.name,dialled_port -f 'provider.kind = "service"'
    """
    answer = connect().get(
        "/flows/top", by=_with_protocol(by), filter=filter_, since=since, until=until, sort=sort,
        limit=limit, outside="merged" if merge_outside else None,
    )  # fmt: skip
    rows = answer["items"]
    keys = list(rows[0]["group"]) if rows else []
    columns = [Column(key, _value(key), right=key in _PORTS) for key in keys]
    emit(rows, [*columns, *SUMS_COLUMNS], output, "no flow matches")
    if answer["total"] > len(rows):
        tell(f"{len(rows)} of {answer['total']} groups; more with --limit")


def graph(  # noqa: PLR0913, PLR0917 - one parameter for each option
    by: Annotated[
        str, typer.Option(help="Labels by which ends are nodes, or `workload`, joined by commas.")
    ] = "kubernetes.cluster,workload",
    filter_: FilterOption = None,
    since: SinceOption = "5m",
    until: UntilOption = None,
    sort: SortOption = Sort.BYTES,
    limit: LimitOption = 1_000,
    merge_outside: MergeOption = False,
    output: Annotated[
        GraphFormat,
        typer.Option("--output", "-o", help="How to print the result.", case_sensitive=False),
    ] = GraphFormat.TABLE,
) -> None:
    """Draw who talks to whom: groups of ends, and between them edges with ports and volume.

    Six hours and more are added up from whole hours.

    Examples:

    ringfence flows graph -f 'kubernetes.namespace = "sock-shop"' -o dot | dot -Tsvg > shop.svg

    ringfence flows graph --by kubernetes.namespace --since 1h -o mermaid
    """
    answer = connect().get(
        "/flows/graph", by=by, filter=filter_, since=since, until=until, sort=sort, limit=limit,
        outside="merged" if merge_outside else None,
    )  # fmt: skip
    if output in (GraphFormat.DOT, GraphFormat.MERMAID):
        for line in (dot if output is GraphFormat.DOT else mermaid)(answer):
            say(line)
    elif output in (GraphFormat.JSON, GraphFormat.YAML):
        emit_data(answer, Format(output))
    else:
        names = node_names(answer["nodes"])
        columns = [
            Column("CONSUMER", lambda row: names[row["consumer"]]),
            Column("PROVIDER", lambda row: names[row["provider"]]),
            Column("PORTS AND VOLUME", edge_name),
            *SUMS_COLUMNS,
        ]
        emit(answer["edges"], columns, Format(output), "no flow matches")
    if answer["total"] > len(answer["edges"]):
        shown = len(answer["edges"])
        tell(f"{shown} of {answer['total']} edges; more with --limit")


def _with_protocol(by: str) -> str:
    """Keys joined by commas, with the protocol before the first port: alone it says nothing."""
    keys = [key.strip().lower() for key in by.split(",")]
    ports = [number for number, key in enumerate(keys) if key in _PORTS]
    if ports and "protocol" not in keys:
        keys.insert(ports[0], "protocol")
    return ",".join(keys)


def _value(key: str) -> Any:
    end = key.partition(".")[0]

    def text(row: Row) -> object:
        value = row["group"][key]
        if key in _PORTS:
            return format_port(parse_protocol(row["group"]["protocol"]), value)
        if value is None and end in row["outside"] and key not in TOLD:
            return row["outside"][end] or "outside"
        return '""' if value == "" else value

    return text
