"""A standing connection to the control plane: mutual TLS, renewed in time, dialled when lost."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime

import grpc
import structlog

from ringfence.link.errors import LinkError, RefusedError, UnreachableError
from ringfence.link.identity import (
    Identity,
    IdentityStore,
    LinkConfig,
    StateDirectory,
    new_request,
    renewed,
    target,
)
from ringfence.model.backoff import Backoff
from ringfence.wire.generated.agent_pb2 import RenewRequest
from ringfence.wire.generated.agent_pb2_grpc import ControlPlaneStub
from ringfence.wire.limits import LARGEST_MESSAGE

log = structlog.get_logger()

_OPTIONS = [
    ("grpc.max_receive_message_length", LARGEST_MESSAGE),
    ("grpc.max_send_message_length", LARGEST_MESSAGE),
    ("grpc.initial_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 10_000),
    # A gRPC server counts pings more often than every 300 s on a quiet connection as abuse.
    ("grpc.keepalive_time_ms", 330_000),
    ("grpc.keepalive_timeout_ms", 20_000),
]
_CALL_TIMEOUT_S = 30
_HELD_S = 10
"""A conversation that held so long is worth a quick new try when it breaks."""


def heed_cancellation() -> None:
    """Raise CancelledError if the task was cancelled while a stream of gRPC failed.

    For then gRPC raises the failure in its stead.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


class Link:
    """Keeps a client enrolled and connected.

    `problem` says what is wrong at the moment, empty if nothing is known to be.
    """

    def __init__(self, config: LinkConfig, store: IdentityStore | None = None) -> None:
        """`store` keeps the identity elsewhere than in the configured `state_dir`."""
        self._config = config
        self._store = store or StateDirectory(config.state_dir)
        self._identity: Identity | None = None
        self._kept = True
        self._channel: grpc.aio.Channel | None = None
        self._renewal: asyncio.Task[None] | None = None
        self.problem = ""

    async def recall(self) -> None:
        """Know the identity that is kept, before any conversation; raises LinkError."""
        if self._identity is None and (kept := await self._store.load()):
            self._adopt(kept)

    def verify(self, signature: bytes, directive: bytes) -> None:
        """Raise RefusedError unless the control plane's CA signed this directive."""
        if self._identity is None:
            raise RefusedError("without an identity, nobody knows who signed it")
        self._identity.verify(signature, directive)

    async def start(self) -> None:
        """Begin to renew in time; does not wait for anybody."""
        self._renewal = asyncio.create_task(self._renew_in_time())

    async def stop(self) -> None:
        """Hang up."""
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.gather(self._renewal, return_exceptions=True)
        if self._channel is not None:
            await self._channel.close()

    @property
    def stub(self) -> ControlPlaneStub:
        """For single calls; ask anew for each. Its errors are for `explain`.

        Raises UnreachableError before the client is enrolled.
        """
        return ControlPlaneStub(self._enrolled_channel())

    async def converse(self, conversation: Callable[[ControlPlaneStub], Awaitable[None]]) -> None:
        """Enrol where needed, and hold a conversation for ever: whenever it ends, begin anew.

        Failures are logged once and kept in `problem`; the conversation clears it by `heard`.
        """
        backoff = Backoff()
        while True:
            began = time.monotonic()
            try:
                await self._ensure_enrolled()
                # A channel closes when nothing refers to it, so it is held until the end.
                channel = self._enrolled_channel()
                await conversation(ControlPlaneStub(channel))
                self._report(UnreachableError("the control plane ended the conversation"))
            except LinkError as error:
                self._report(error)
            except grpc.aio.AioRpcError as error:
                heed_cancellation()
                problem = self.explain(error)
                self._report(problem)
                if isinstance(problem, UnreachableError):
                    await self._find_port()
            if time.monotonic() - began > _HELD_S:
                backoff.reset()
            await asyncio.sleep(backoff.delay())

    def heard(self) -> None:
        """The control plane answered: whatever was wrong is over."""
        if self.problem:
            log.info("control plane reached again")
        self.problem = ""

    def explain(self, error: grpc.aio.AioRpcError) -> LinkError:
        """Say what a failed call means, and what to do."""
        server, said = self._config.server, error.details() or error.code().name
        match error.code():
            case grpc.StatusCode.UNAVAILABLE if "CERTIFICATE_VERIFY_FAILED" in said:
                return RefusedError(
                    f"{server} shows a certificate that the CA known from enrolment did not make,"
                    f" or the clocks disagree: {said}"
                )
            case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.DEADLINE_EXCEEDED:
                return UnreachableError(f"the control plane at {server} is unavailable: {said}")
            case grpc.StatusCode.UNAUTHENTICATED | grpc.StatusCode.PERMISSION_DENIED:
                return RefusedError(
                    f"the control plane refuses this {self._config.kind}: {said}; remove"
                    f" {self._store} and give a new enrolment token"
                )
            case grpc.StatusCode.FAILED_PRECONDITION:
                return RefusedError(f"the control plane does not speak our protocol: {said}")
            case code:
                return LinkError(f"the control plane failed ({code.name}): {said}")

    def _enrolled_channel(self) -> grpc.aio.Channel:
        if self._channel is None:
            raise UnreachableError(f"{self._config.name} is not enrolled yet")
        return self._channel

    def _adopt(self, identity: Identity) -> None:
        """Use an identity from now on; calls under way end on the channel before it."""
        credentials = grpc.ssl_channel_credentials(
            identity.ca.encode(), identity.key.encode(), identity.certificate.encode()
        )
        self._identity = identity
        whom = target(self._config, identity)
        self._channel = grpc.aio.secure_channel(whom, credentials, options=_OPTIONS)

    async def _take(self, identity: Identity) -> None:
        """Use a new identity, and keep it; raises LinkError where that fails."""
        self._adopt(identity)
        self._kept = False
        await self._keep()

    async def _keep(self) -> None:
        """Keep the identity unless it is kept: its token or predecessor is worth nothing now."""
        if self._identity is not None and not self._kept:
            await self._store.keep(self._identity)
            self._kept = True

    def _report(self, problem: LinkError) -> None:
        if str(problem) != self.problem:
            log.warning("control plane lost", problem=str(problem))
        self.problem = str(problem)

    async def _renew_in_time(self) -> None:
        backoff = Backoff(first=1, most=60)
        while True:
            await asyncio.sleep(backoff.delay())
            identity, now = self._identity, datetime.now(UTC)
            try:
                await self._keep()
                if identity is not None and identity.renewal <= now < identity.expires:
                    await self._renew(identity)
                    backoff.reset()
            except grpc.aio.AioRpcError as error:
                log.warning("certificate not renewed", problem=str(self.explain(error)))
            except LinkError as error:
                log.warning("certificate not renewed or not kept", problem=str(error))

    async def _renew(self, identity: Identity) -> None:
        key, request = new_request(self._config.kind, self._config.name)
        reply = await self.stub.Renew(
            RenewRequest(csr_pem=request.encode()), timeout=_CALL_TIMEOUT_S
        )
        fresh = renewed(identity, key, reply.certificate_pem.decode())
        await self._take(fresh)
        log.info("certificate renewed", expires=fresh.expires.isoformat())

    async def _ensure_enrolled(self) -> None:
        """A certificate that ran out while the control plane was away needs a new enrolment."""
        await self.recall()
        if self._identity is None or self._identity.expires <= datetime.now(UTC):
            from ringfence.link.enrolment import enrol  # noqa: PLC0415

            await self._take(await enrol(self._config))

    async def _find_port(self) -> None:
        """After a failure: the control plane may listen elsewhere than when we enrolled."""
        from ringfence.link.enrolment import find_port  # noqa: PLC0415

        with suppress(LinkError):  # that it is away is told already
            port = await find_port(self._config)
            if self._identity is not None and port != self._identity.grpc_port:
                await self._take(replace(self._identity, grpc_port=port))
