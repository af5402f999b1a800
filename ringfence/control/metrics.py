"""What the control plane counts about itself, for Prometheus."""

import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Metrics:
    """A registry of its own, so that several control planes in one process stay apart."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.batches = Counter(
            "ringfence_batches", "Reports taken in.", ["outcome"], registry=self.registry
        )
        self.rows = Counter(
            "ringfence_rows", "Rows in those reports.", ["table"], registry=self.registry
        )
        self.agents = Gauge(
            "ringfence_agents_connected", "Agents with an open session.", registry=self.registry
        )
        self.items = Gauge(
            "ringfence_inventory_items", "Items that exist now.", registry=self.registry
        )
        self.unwritten = Gauge(
            "ringfence_inventory_unwritten",
            "Changes of the inventory that are not in the database yet.",
            registry=self.registry,
        )
        self.names_refused = Gauge(
            "ringfence_dns_names_refused",
            "Addresses of names that DNS told and for which there was no room, since the start.",
            registry=self.registry,
        )
        self.address_sets_failing = Gauge(
            "ringfence_address_sets_failing",
            "Address sets whose list could not be read when it was last asked for.",
            registry=self.registry,
        )
        self.compile_failures = Counter(
            "ringfence_compile_failures",
            "Times that the enforced set could not be turned into rules.",
            registry=self.registry,
        )
        self.background_failures = Counter(
            "ringfence_background_failures",
            "Times that work in the background failed, and is to be tried again.",
            ["work"],
            registry=self.registry,
        )
        self.flow_files_aside = Gauge(
            "ringfence_flow_files_aside",
            "Files of rows that were damaged before they were stored, kept beside the flow store.",
            registry=self.registry,
        )
        self.latency = Histogram(
            "ringfence_request_seconds",
            "Time to answer an API request.",
            ["method", "route", "status"],
            registry=self.registry,
        )

    def render(self) -> bytes:
        """The Prometheus text format."""
        return generate_latest(self.registry)


class MeasureRequests:
    """ASGI middleware: how long each route takes."""

    def __init__(
        self, app: ASGIApp, metrics: Metrics, timer: Callable[[], float] = time.perf_counter
    ) -> None:
        self._app, self._metrics, self._timer = app, metrics, timer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and observe its time."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = self._timer()
        status = 500

        async def note_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, note_status)
        finally:
            # Paths and methods are the client's words without end, and so would the labels be.
            method = scope["method"] if scope["method"] in _METHODS else "other"
            route = getattr(scope.get("route"), "path", "unknown")
            spent = self._timer() - began
            self._metrics.latency.labels(method, route, status).observe(spent)
