"""Watches one Kubernetes cluster and publishes its inventory to the control plane."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import structlog

from ringfence.connector.config import ConnectorConfig
from ringfence.connector.identity import SecretStore
from ringfence.connector.outbox import Outbox
from ringfence.connector.sync import WATCHED, Join
from ringfence.kube.client import KubeClient
from ringfence.kube.errors import KubeError
from ringfence.kube.watch import Kind, follow
from ringfence.link.channel import Link
from ringfence.model.backoff import Backoff
from ringfence.wire.generated.agent_pb2 import InventoryEvent
from ringfence.wire.generated.agent_pb2_grpc import ControlPlaneStub

log = structlog.get_logger()

_PAUSE_S = 0.02
"""Between two times that changes are told: the first is told at once, what follows together."""


class Connector:
    """`problems` says what is wrong at the moment, by what it is wrong with."""

    def __init__(self, config: ConnectorConfig) -> None:
        self._config = config
        self._client = KubeClient(config.kubeconfig)
        secret = config.identity_secret
        self._link = Link(config.link, SecretStore(self._client, *secret) if secret else None)
        self._join = Join(config.cluster, config.annotations)
        self._moved = asyncio.Event()
        self._complete = asyncio.Event()
        self._outbox = Outbox()
        self._tasks: list[asyncio.Task[None]] = []
        self._watch_problems: dict[str, str] = {}

    @property
    def problems(self) -> dict[str, str]:
        """Empty while all is well."""
        link = {"control plane": self._link.problem} if self._link.problem else {}
        return self._watch_problems | link

    async def start(self) -> None:
        """Begin to watch and to publish; raises KubeconfigError."""
        await self._client.start()
        await self._link.start()
        jobs = [self._watch(kind) for kind in WATCHED]
        jobs += [self._notice(), self._link.converse(self._publish)]
        self._tasks = [asyncio.create_task(job) for job in jobs]

    async def stop(self) -> None:
        """End every task and connection."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._link.stop()
        await self._client.stop()

    async def run(self) -> None:
        """Start, go on until cancelled, stop; raises what ends a task that should not end."""
        try:
            await self.start()
            await asyncio.gather(*self._tasks)
        finally:
            await self.stop()

    async def _watch(self, kind: Kind[Any]) -> None:
        def report(error: KubeError | None) -> None:
            name = kind.resource.name
            known = self._watch_problems.pop(name, None)
            if error is not None:
                self._watch_problems[name] = str(error)
                if known != str(error):
                    log.warning("cannot watch", resource=name, problem=str(error))
            elif known is not None:
                log.info("watching again", resource=name)

        async for event in follow(self._client, kind, report, Backoff()):
            self._join.apply(kind, event)
            self._moved.set()

    async def _notice(self) -> None:
        """Turn what the watches said into changes to be told."""
        while True:
            await self._moved.wait()
            self._moved.clear()
            now = time.time_ns()
            for key, item in self._join.changes():
                self._outbox.put(key, now, item)
            if self._join.complete and not self._complete.is_set():
                log.info("inventory complete", items=len(self._join.items))
                self._complete.set()
            await asyncio.sleep(_PAUSE_S)

    async def _publish(self, stub: ControlPlaneStub) -> None:
        """One conversation: everything there is, then every change."""
        outbox = Outbox()
        try:
            async for _ in stub.Publish(self._events(outbox)):
                self._link.heard()
        finally:
            # gRPC leaves the sending side waiting when the other side ends the conversation.
            outbox.close()

    async def _events(self, outbox: Outbox) -> AsyncIterator[InventoryEvent]:
        await self._complete.wait()
        now, self._outbox = time.time_ns(), outbox
        present = list(self._join.items.values())
        yield self._event(now, snapshot_begin=True)
        for item in present:
            yield self._event(now, item=msgspec.json.encode(item))
        yield self._event(now, snapshot_end=True)
        while untold := await outbox.take():
            for key, (at_ns, changed) in untold.items():
                if changed is None:
                    yield self._event(at_ns, gone=key)
                else:
                    yield self._event(at_ns, item=msgspec.json.encode(changed))

    def _event(self, at_ns: int, **what: Any) -> InventoryEvent:
        return InventoryEvent(kubernetes_cluster=self._config.cluster, at_ns=at_ns, **what)
