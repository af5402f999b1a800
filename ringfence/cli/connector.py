"""`ringfence connector`: publish the inventory of one Kubernetes cluster."""

import asyncio
import contextlib
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ringfence.connector.config import ConnectorConfig

app = typer.Typer(no_args_is_help=True, add_completion=False)


@app.callback()
def _group() -> None:
    """The connector of a Kubernetes cluster."""


@app.command()
def run(  # noqa: PLR0913, PLR0917 - one parameter for each option
    server: Annotated[
        str, typer.Option(envvar="RINGFENCE_SERVER", help="https:// address of the control plane.")
    ],
    kubernetes_cluster: Annotated[
        str,
        typer.Option(envvar="RINGFENCE_KUBERNETES_CLUSTER", help="The Kubernetes cluster's id."),
    ],
    ca_file: Annotated[
        Path, typer.Option(envvar="RINGFENCE_CA_FILE", help="The control plane's CA, PEM.")
    ],
    token_file: Annotated[
        Path, typer.Option(envvar="RINGFENCE_TOKEN_FILE", help="Holds the enrolment token.")
    ],
    state_dir: Annotated[
        Path, typer.Option(envvar="RINGFENCE_STATE_DIR", help="Keeps the client certificate.")
    ] = Path("/var/lib/ringfence"),
    identity_secret: Annotated[
        str,
        typer.Option(
            envvar="RINGFENCE_IDENTITY_SECRET",
            metavar="NAMESPACE/NAME",
            help="Keeps the client certificate in this Secret, not in the state directory.",
        ),
    ] = "",
    kubeconfig: Annotated[
        Path | None, typer.Option(help="Outside a pod: how to reach the Kubernetes API.")
    ] = None,
    annotation: Annotated[
        list[str] | None, typer.Option(help="Key of an annotation that becomes a label; repeat.")
    ] = None,
) -> None:
    """Watch one Kubernetes cluster and publish its inventory, until stopped.

    Example: ringfence connector run --server https://ringfence:8443 --kubernetes-cluster lab
    --ca-file ca.pem --token-file token --state-dir state --kubeconfig ~/.kube/config
    """
    from ringfence.cli import logs  # noqa: PLC0415
    from ringfence.connector.config import ConnectorConfig  # noqa: PLC0415
    from ringfence.link.identity import LinkConfig  # noqa: PLC0415
    from ringfence.model.client import ClientKind  # noqa: PLC0415
    from ringfence.model.errors import InputError  # noqa: PLC0415
    from ringfence.model.ids import ClusterId  # noqa: PLC0415

    logs.configure()
    link = LinkConfig(
        server=server,
        ca_file=ca_file,
        token_file=token_file,
        state_dir=state_dir,
        kind=ClientKind.CONNECTOR,
        name=f"connector-{kubernetes_cluster}",
        kubernetes_cluster=kubernetes_cluster,
    )
    secret = None
    if identity_secret:
        namespace, _, name = identity_secret.partition("/")
        if not (namespace and name):
            raise InputError(f"--identity-secret {identity_secret!r}: write NAMESPACE/NAME")
        secret = namespace, name
    cluster = ClusterId(kubernetes_cluster)
    config = ConnectorConfig(cluster, link, kubeconfig, tuple(annotation or ()), secret)
    asyncio.run(_run(config))


async def _run(config: "ConnectorConfig") -> None:
    from ringfence.connector.connector import Connector  # noqa: PLC0415

    connector = Connector(config)
    running = asyncio.create_task(connector.run())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, running.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await running
