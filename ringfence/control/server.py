"""The control plane as one long-running component: stores, API, gRPC, all in one event loop."""

import asyncio
import contextlib
import errno
import ipaddress
import os
import socket
import time
from collections.abc import Iterator
from typing import Protocol, TypeVar

import grpc
import structlog
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from ringfence.control.agent_metrics import AgentMetrics
from ringfence.control.agents import Agents
from ringfence.control.alert_delivery import AlertDelivery
from ringfence.control.alerts import Alerts
from ringfence.control.analysis import history_of
from ringfence.control.app import make_app
from ringfence.control.auth import digest, new_token
from ringfence.control.config import ControlConfig, Listen
from ringfence.control.continuous import Continuous
from ringfence.control.enforcement import Enforcement
from ringfence.control.errors import StartError
from ringfence.control.experiments import Experiments
from ringfence.control.exports import Exports
from ringfence.control.files import DataDirectory, write_private
from ringfence.control.grpc_service import AgentService
from ringfence.control.identity import Role
from ringfence.control.ingest import FlowIngest
from ringfence.control.inspections import Inspections
from ringfence.control.inventory import Inventory
from ringfence.control.labels import UploadedLabels
from ringfence.control.metrics import Metrics
from ringfence.control.modes import Modes
from ringfence.control.pki import Authority
from ringfence.control.promotions import Promotions
from ringfence.control.quarantine import Quarantines
from ringfence.control.recommendations import Recommendations
from ringfence.control.repairs import Repairs
from ringfence.control.requests import Requests
from ringfence.control.secrets import Secrets
from ringfence.control.services import Services
from ringfence.control.staged import Watch
from ringfence.control.times import Clock
from ringfence.control.trials import Trials
from ringfence.export.kinds import make_exporters
from ringfence.model.address import Address, parse_address
from ringfence.model.ids import DEFAULT_TENANT
from ringfence.policy.failsafe import NodeAccess
from ringfence.policy.nodes import Surroundings
from ringfence.store.flows import FlowStore, FlowStoreConfig
from ringfence.store.relational.changes import Change, add_change
from ringfence.store.relational.database import Database
from ringfence.store.relational.tokens import Token, add_token, any_token
from ringfence.wire.generated.agent_pb2_grpc import add_ControlPlaneServicer_to_server
from ringfence.wire.limits import LARGEST_MESSAGE

_LOG = structlog.get_logger(__name__)
_GRACE_SECONDS = 3
_FIRST_ADMINISTRATOR = "admin"


class _Component(Protocol):
    async def start(self) -> None: ...

    async def stop(self) -> None: ...


_Running = TypeVar("_Running", bound=_Component)


class ControlPlane:
    """Everything that `ringfence server` runs.

    After `start`, `admin_token` is the administrator's token if this was the first start and no
    file was asked for: it is kept nowhere else.
    """

    def __init__(self, config: ControlConfig, clock: Clock = time.time_ns) -> None:
        self._config, self._clock = config, clock
        self._opened = contextlib.AsyncExitStack()
        self.admin_token: str | None = None
        self.app: FastAPI | None = None
        self.http_port = 0
        self.grpc_port = 0

    async def start(self) -> None:
        """Open the stores and serve; what it raises has a reason, and then it holds nothing.

        Raises StartError, StoreError, and InputError where an exporter's URL means nothing.
        """
        try:
            await self._start()
        except BaseException:
            await self._opened.aclose()
            raise

    async def stop(self) -> None:
        """Finish what is under way, and close everything in the reverse order."""
        await self._opened.aclose()

    async def _start(self) -> None:
        config, now_ns = self._config, self._clock()
        exporters = make_exporters(config.exports)
        directory = DataDirectory(config.data_dir)
        directory.open()
        self._opened.callback(directory.close)
        authority = Authority.load(config.data_dir, now_ns)
        certificate, key = authority.server_certificate(self._names(), now_ns)
        database = Database(config.database_url or f"sqlite:///{config.data_dir / 'control.db'}")
        await self._run(database)

        http_socket = _bind(config.http_listen, "--http-listen")
        self._opened.callback(http_socket.close)
        self.http_port = http_socket.getsockname()[1]
        grpc_server, self.grpc_port = _bind_grpc(config.grpc_listen, authority, certificate, key)

        metrics = Metrics()
        agents = Agents(metrics)
        metrics.registry.register(AgentMetrics(agents.all))
        inventory = Inventory(self._clock, database, DEFAULT_TENANT, metrics, config.fetch_networks)
        await self._run(inventory)
        labels = await self._run(UploadedLabels(self._clock, database, DEFAULT_TENANT, inventory))
        flow_store = FlowStore(
            FlowStoreConfig(
                config.data_dir / "flows",
                config.retention,
                config.flow_memory_mib,
                config.clickhouse_url,
                config.clickhouse_cluster,
            )
        )
        await self._run(flow_store)
        metrics.flow_files_aside.set_function(flow_store.aside)
        exports = await self._run(Exports(exporters, inventory.timeline))
        metrics.registry.register(exports)
        ingest = FlowIngest(flow_store, inventory, exports, self._clock)
        await self._run(ingest)
        interval = config.report_interval_seconds
        modes = await self._run(Modes(self._clock, database, DEFAULT_TENANT, agents, interval))
        surroundings = Surroundings(await self._reached_at(), NodeAccess(config.ssh_networks))
        enforcement = Enforcement(
            self._clock, database, DEFAULT_TENANT, inventory, agents, metrics, surroundings
        )
        await self._run(enforcement)
        watch = Watch(
            flow_store,
            DEFAULT_TENANT,
            history_of(inventory, surroundings),
            ingest.through,
            interval * 10**9,
        )
        trials = await self._run(
            Trials(self._clock, database, DEFAULT_TENANT, enforcement, agents, watch, metrics)
        )
        continuous = await self._run(
            Continuous(self._clock, database, watch, ingest.arrivals, metrics)
        )
        experiments = await self._run(Experiments(self._clock, database, watch, metrics))
        alerts = await self._run(Alerts(self._clock, database, DEFAULT_TENANT, continuous, metrics))
        recommendations = await self._run(
            Recommendations(self._clock, database, watch, ingest, alerts, metrics)
        )
        promotions = await self._run(
            Promotions(self._clock, database, watch, enforcement, trials, alerts, metrics)
        )
        alert_delivery = await self._run(
            AlertDelivery(database, DEFAULT_TENANT, alerts, Secrets.load(config.data_dir), metrics)
        )
        quarantines = await self._run(
            Quarantines(self._clock, database, DEFAULT_TENANT, inventory, enforcement, metrics)
        )
        requests = await self._run(
            Requests(self._clock, database, DEFAULT_TENANT, inventory, metrics)
        )
        services = Services(
            clock=self._clock,
            database=database,
            inventory=inventory,
            labels=labels,
            enforcement=enforcement,
            trials=trials,
            continuous=continuous,
            experiments=experiments,
            recommendations=recommendations,
            promotions=promotions,
            alert_delivery=alert_delivery,
            quarantines=quarantines,
            requests=requests,
            agents=agents,
            inspections=Inspections(),
            modes=modes,
            repairs=await self._run(
                Repairs(self._clock, database, DEFAULT_TENANT, inventory, metrics)
            ),
            flow_store=flow_store,
            ingest=ingest,
            authority=authority,
            metrics=metrics,
            grpc_port=self.grpc_port,
        )
        agent_service = AgentService(services)
        add_ControlPlaneServicer_to_server(agent_service, grpc_server)
        await grpc_server.start()
        self._opened.push_async_callback(grpc_server.stop, _GRACE_SECONDS)
        self._opened.callback(agent_service.stop)
        await self._serve_http(services, http_socket, certificate, key)
        # Last: a token that a failed start had made would be shown to nobody, and made never again.
        await self._make_administrator(database)
        _LOG.info("control plane ready", http_port=self.http_port, grpc_port=self.grpc_port)

    async def _serve_http(
        self, services: Services, bound: socket.socket, certificate: bytes, key: bytes
    ) -> None:
        # The TLS library reads keys from files only.
        certificate_file = self._config.data_dir / "server.pem"
        key_file = self._config.data_dir / "server.key"
        certificate_file.write_bytes(certificate)
        write_private(key_file, key)
        self.app = make_app(services)
        server = _HttpServer(
            uvicorn.Config(
                self.app,
                ssl_certfile=str(certificate_file),
                ssl_keyfile=key_file,
                http="h11",
                log_config=None,
                access_log=False,
                lifespan="off",
                ws="none",
                proxy_headers=False,  # or who is on this host could forge where it came from
                server_header=False,
                timeout_graceful_shutdown=_GRACE_SECONDS,
            )
        )
        task = asyncio.create_task(server.serve(sockets=[bound]))

        async def stop() -> None:
            server.should_exit = True
            await task

        self._opened.push_async_callback(stop)
        ready = asyncio.create_task(server.ready.wait())
        await asyncio.wait({task, ready}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            ready.cancel()
            await task
            raise StartError("the HTTP server ended while it started; its log says why")

    async def _run(self, component: _Running) -> _Running:
        await component.start()
        self._opened.push_async_callback(component.stop)
        return component

    def _names(self) -> list[str]:
        listened = [
            listen.host
            for listen in (self._config.http_listen, self._config.grpc_listen)
            if not ipaddress.ip_address(listen.host).is_unspecified
        ]
        names = [*self._config.advertise, *listened, "localhost", "127.0.0.1", "::1"]
        return list(dict.fromkeys(names))

    async def _make_administrator(self, database: Database) -> None:
        """On first start, make the one token that all others come from."""
        token, now_ns = new_token("rf"), self._clock()
        async with database.write() as connection:
            if await any_token(connection):
                return
            made = Token(
                digest(token), DEFAULT_TENANT, _FIRST_ADMINISTRATOR, Role.ADMIN, now_ns, None
            )
            await add_token(connection, made)
            what = "made the administrator's token"
            change = Change(now_ns, _FIRST_ADMINISTRATOR, "first start", "token", what, "")
            await add_change(connection, DEFAULT_TENANT, change)
            if self._config.admin_token_file is not None:
                write_private(self._config.admin_token_file, f"{token}\n".encode())
        if self._config.admin_token_file is None:
            self.admin_token = token

    async def _reached_at(self) -> tuple[tuple[Address, int], ...]:
        """Where agents reach us: their rules must never cut this off."""
        loop = asyncio.get_running_loop()
        addresses = set()
        for name in self._config.advertise:
            try:
                found = await loop.getaddrinfo(name, None, type=socket.SOCK_STREAM)
            except OSError as error:
                raise StartError(
                    f"{name!r} cannot be resolved: {error}; give --advertise a name or an address "
                    "by which agents reach this control plane"
                ) from error
            addresses |= {parse_address(str(entry[4][0])) for entry in found}
        ports = (self.http_port, self.grpc_port)
        return tuple((address, port) for address in sorted(addresses) for port in ports)


class _HttpServer(uvicorn.Server):
    """Leaves signals to the process, which has more than HTTP to stop."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so."""
        await super().startup(sockets)
        self.ready.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Finish answers; clients that are owed none are not waited for.

        TLS would have each say goodbye, and who keeps a connection for later does not listen.
        """
        for connection in list(self.server_state.connections):
            if isinstance(connection, H11Protocol):
                answered = getattr(connection.cycle, "response_complete", True)
                if answered and not connection.transport.get_write_buffer_size():
                    connection.transport.abort()
        await super().shutdown(sockets)


def _bind(listen: Listen, option: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    try:
        return socket.create_server((listen.host, listen.port), family=family)
    except OSError as error:
        why = f"{os.strerror(error.errno or 0)}; stop what uses it, or"
        if error.errno == errno.EADDRNOTAVAIL:
            why = "no interface of this machine has that address;"
        raise StartError(
            f"cannot listen on {listen}: {why} choose another with {option}"
        ) from error


def _bind_grpc(
    listen: Listen, authority: Authority, certificate: bytes, key: bytes
) -> tuple[grpc.aio.Server, int]:
    server = grpc.aio.server(
        options=[
            ("grpc.so_reuseport", 0),  # or a second control plane would share the port unnoticed
            ("grpc.max_receive_message_length", LARGEST_MESSAGE),
            ("grpc.max_send_message_length", LARGEST_MESSAGE),
        ]
    )
    credentials = grpc.ssl_server_credentials(
        [(key, certificate)], authority.certificate_pem, require_client_auth=True
    )
    try:
        return server, server.add_secure_port(str(listen), credentials)
    except RuntimeError as error:
        _bind(listen, "--grpc-listen").close()  # raises with the reason, which gRPC does not tell
        raise StartError(f"cannot listen on {listen}; choose another with --grpc-listen") from error
