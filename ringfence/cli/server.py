"""`ringfence server`: the control plane."""

import asyncio
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ringfence.cli.output import say, tell

if TYPE_CHECKING:
    from ringfence.control.config import ControlConfig

app = typer.Typer(add_completion=False)


@app.command()
def server(  # noqa: PLR0913, PLR0917 - one parameter for each option
    data_dir: Annotated[Path, typer.Option(help="Where everything is kept; made if missing.")],
    http_listen: Annotated[str, typer.Option(help="ADDRESS:PORT of the API.")] = "127.0.0.1:8443",
    grpc_listen: Annotated[
        str, typer.Option(help="ADDRESS:PORT for agents and connectors.")
    ] = "127.0.0.1:8444",
    advertise: Annotated[
        list[str] | None,
        typer.Option(help="A name or address by which clients reach this server; repeatable."),
    ] = None,
    database: Annotated[
        str | None,
        typer.Option(
            envvar="RINGFENCE_DATABASE",
            help="postgresql://USER:PASSWORD@HOST/NAME; else SQLite. Others on the machine can "
            "read a command's options, so keep a password in the variable.",
        ),
    ] = None,
    admin_token_file: Annotated[
        Path | None,
        typer.Option(help="On first start write the administrator's token here, not on stdout."),
    ] = None,
    ssh_network: Annotated[
        list[str] | None,
        typer.Option(help="A CIDR block that may always open SSH to nodes; repeatable."),
    ] = None,
    keep_detailed_days: Annotated[
        int, typer.Option(min=1, help="Keep flows that tell consumers' ports so long.")
    ] = 7,
    keep_conversations_days: Annotated[
        int, typer.Option(min=1, help="Keep flows and drops so long.")
    ] = 90,
    keep_hourly_days: Annotated[
        int, typer.Option(min=1, help="Keep what they come to by the hour so long.")
    ] = 400,
    flow_memory_mib: Annotated[
        int,
        typer.Option(min=1024, help="What the embedded flow store may take of memory, in MiB."),
    ] = 2048,
    clickhouse: Annotated[
        str | None,
        typer.Option(
            envvar="RINGFENCE_CLICKHOUSE",
            help="clickhouse://USER:PASSWORD@HOST:8123/NAME, to keep flows there instead of "
            "embedded. Keep a password in the variable. One control plane writes there: of two "
            "some batches would be stored twice.",
        ),
    ] = None,
    clickhouse_cluster: Annotated[
        str, typer.Option(help="Spread flows over this cluster of the ClickHouse server's.")
    ] = "",
    fetch_network: Annotated[
        list[str] | None,
        typer.Option(
            help="A CIDR block in which URLs of address sets may lead, besides public addresses; "
            "repeatable."
        ),
    ] = None,
    export: Annotated[
        list[str] | None,
        typer.Option(
            metavar="URL",
            help="Where conversations go besides the store, such as jsonl:///var/log/flows.jsonl; "
            "repeatable. docs/exporters.md lists the kinds.",
        ),
    ] = None,
) -> None:
    """Run the control plane until interrupted.

    The first start prints an administrator's token, once. Clients trust DATA_DIR/ca.pem.

    Example: ringfence server --data-dir /var/lib/ringfence --advertise ringfence.example
    """
    from ringfence.control.config import ControlConfig, parse_listen  # noqa: PLC0415
    from ringfence.export.url import parse_url  # noqa: PLC0415
    from ringfence.model.address import parse_network  # noqa: PLC0415
    from ringfence.store.flows.tables import Retention  # noqa: PLC0415

    config = ControlConfig(
        data_dir=data_dir,
        http_listen=parse_listen(http_listen),
        grpc_listen=parse_listen(grpc_listen),
        advertise=tuple(advertise or ()),
        database_url=database,
        admin_token_file=admin_token_file,
        ssh_networks=tuple(parse_network(text) for text in ssh_network or ()),
        retention=Retention(keep_detailed_days, keep_conversations_days, keep_hourly_days),
        flow_memory_mib=flow_memory_mib,
        clickhouse_url=clickhouse,
        clickhouse_cluster=clickhouse_cluster,
        fetch_networks=tuple(parse_network(text) for text in fetch_network or ()),
        exports=tuple(parse_url(text) for text in export or ()),
    )
    asyncio.run(_run(config))


async def _run(config: "ControlConfig") -> None:
    from ringfence.cli import logs  # noqa: PLC0415
    from ringfence.control.server import ControlPlane  # noqa: PLC0415

    logs.configure()
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    plane = ControlPlane(config)
    await plane.start()
    if plane.admin_token is not None:
        tell("The administrator's token, shown this once:")
        say(plane.admin_token)
    await stopped.wait()
    await plane.stop()
