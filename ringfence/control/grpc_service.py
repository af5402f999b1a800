"""The gRPC service: what agents and connectors say over mutual TLS, and what they hear."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, NoReturn, TypeVar

import grpc
import structlog

from ringfence.control.agents import TOLERATED_SKEW_NS, Agent, NodeKey, skew_text
from ringfence.control.claims import (
    own_addresses,
    own_item,
    own_key,
    own_times,
    short_names,
)
from ringfence.control.errors import ForbiddenError, NotYetError
from ringfence.control.identity import ClientIdentity
from ringfence.control.pki import read_identity
from ringfence.control.services import Services
from ringfence.control.times import Window
from ringfence.inventory.timeline import Change
from ringfence.model.client import ClientKind
from ringfence.model.errors import InputError, RingfenceError
from ringfence.model.ids import ClusterId, NodeName
from ringfence.model.workload import Item
from ringfence.wire import batch
from ringfence.wire.generated import agent_pb2 as wire
from ringfence.wire.generated.agent_pb2_grpc import ControlPlaneServicer
from ringfence.wire.limits import MOST_ID_BYTES, PROTOCOL

_LOG = structlog.get_logger(__name__)

_DAY_NS = 24 * 3600 * 10**9

Context = grpc.aio.ServicerContext[Any, Any]
_T = TypeVar("_T")


class AgentService(ControlPlaneServicer):  # type: ignore[misc]  # generated, not typed
    """Serves agents and connectors. Who calls is what the certificate says, never the message."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._stopping = asyncio.Event()
        self._publishing: dict[ClusterId, list[object]] = {}
        """The conversations with connectors of each cluster, the latest last."""

    def stop(self) -> None:
        """End the conversations that clients hold for ever; nobody need wait for them."""
        self._stopping.set()

    async def Renew(  # noqa: N802
        self, request: wire.RenewRequest, context: Context
    ) -> wire.RenewReply:
        """Sign a new certificate with the names of the present one."""
        identity = await self._peer(context, *ClientKind)
        try:
            now_ns = self._services.clock()
            signed = self._services.authority.sign_client(request.csr_pem, identity, now_ns)
        except InputError as error:
            await _refuse(context, grpc.StatusCode.INVALID_ARGUMENT, error)
        return wire.RenewReply(certificate_pem=signed)

    async def Session(  # noqa: N802
        self, request_iterator: AsyncIterator[wire.AgentState], context: Context
    ) -> AsyncIterator[wire.SignedDirective]:
        """Take in an agent's states, and send a directive whenever its desired state changes."""
        identity = await self._peer(context, ClientKind.AGENT)
        states = self._until_stopped(request_iterator)
        first = await anext(states, None)
        if first is None:
            return
        if first.protocol != PROTOCOL:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, protocol_text(first.protocol))
        agent = self._heard(identity, first)
        session = agent.latest = object()
        reader = asyncio.create_task(self._read_states(identity, session, states))
        reader.add_done_callback(lambda _: agent.news.set())
        agent.sessions += 1
        _LOG.info("agent connected", node=identity.name, cluster=identity.kubernetes_cluster)
        try:
            sent: wire.Directive | None = None
            while not reader.done():
                agent.news.clear()
                directive = self._directive(agent.key)
                if directive is not None and directive != sent:
                    sent = directive
                    yield self._sign(directive)
                await agent.news.wait()
        finally:
            agent.sessions -= 1
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
            _LOG.info("agent gone", node=identity.name, cluster=identity.kubernetes_cluster)

    async def Inspect(  # noqa: N802
        self, request_iterator: AsyncIterator[wire.Inspected], context: Context
    ) -> AsyncIterator[wire.Inspection]:
        """Ask an agent what people want to know of its kernel."""
        identity = await self._peer(context, ClientKind.AGENT)
        agent = identity.kubernetes_cluster, NodeName(identity.name)
        answers = self._until_stopped(request_iterator)
        async for question in self._services.inspections.converse(agent, answers):
            yield question

    async def Report(  # noqa: N802
        self, request: wire.Batch, context: Context
    ) -> wire.BatchReply:
        """Decode one interval's flows and drops and hand them on."""
        services = self._services
        identity = await self._peer(context, ClientKind.AGENT)
        try:
            window = self._window(identity, request)
            flows = batch.decode(batch.FLOWS, request.flows)
            drops = batch.decode(batch.DROPS, request.drops)
            own_times(flows, window, self._services.flow_store.kept_days * _DAY_NS)
            short_names(flows)
            duplicate = await services.ingest.ingest(
                identity, request.id, window, flows, drops, more=request.more
            )
        except (InputError, batch.BatchError) as error:
            services.metrics.batches.labels("refused").inc()
            await _refuse(context, grpc.StatusCode.INVALID_ARGUMENT, error)
        except NotYetError as error:
            services.metrics.batches.labels("early").inc()
            await _refuse(context, grpc.StatusCode.UNAVAILABLE, error)
        except RingfenceError as error:
            services.metrics.batches.labels("failed").inc()
            _LOG.error("batch not stored", batch=request.id, reason=str(error))
            await _refuse(context, grpc.StatusCode.UNAVAILABLE, error)
        except Exception:
            services.metrics.batches.labels("failed").inc()
            raise
        services.metrics.batches.labels("duplicate" if duplicate else "stored").inc()
        if not duplicate:
            services.inventory.names.seen(flows, window.end_ns)
            services.metrics.rows.labels("flows").inc(flows.num_rows)
            services.metrics.rows.labels("drops").inc(drops.num_rows)
        return wire.BatchReply(duplicate=duplicate)

    async def Resolve(  # noqa: N802
        self, request: wire.DnsAnswers, context: Context
    ) -> wire.DnsAnswersReply:
        """Take in what DNS servers answered on an agent's node."""
        identity = await self._peer(context, ClientKind.AGENT)
        try:
            agent = identity.kubernetes_cluster, NodeName(identity.name)
            self._services.inventory.names.hear(agent, request.answers)
        except InputError as error:
            await _refuse(context, grpc.StatusCode.INVALID_ARGUMENT, error)
        return wire.DnsAnswersReply()

    async def Publish(  # noqa: N802
        self, request_iterator: AsyncIterator[wire.InventoryEvent], context: Context
    ) -> AsyncIterator[wire.InventoryReply]:
        """Enter a connector's inventory into the timeline.

        What the latest conversation of a cluster says is the last news, whatever clocks say: they
        may be set. What one before it still has to say goes by its time.
        """
        identity = await self._peer(context, ClientKind.CONNECTOR)
        conversations = self._publishing.setdefault(identity.kubernetes_cluster, [])
        conversations.append(conversation := object())
        events = self._until_stopped(request_iterator)
        try:
            async for reply in self._publish(
                identity, events, context, lambda: conversations[-1] is conversation
            ):
                yield reply
        finally:
            conversations.remove(conversation)

    async def _publish(
        self,
        identity: ClientIdentity,
        events: AsyncIterator[wire.InventoryEvent],
        context: Context,
        is_latest: Callable[[], bool],
    ) -> AsyncIterator[wire.InventoryReply]:
        timeline, inventory = self._services.inventory.timeline, self._services.inventory
        cluster = identity.kubernetes_cluster
        snapshot: list[Item] | None = None
        async for event in events:
            try:
                at_ns = self._instant(identity, event)
                last = is_latest()
                kind = event.WhichOneof("event")
                changes: list[Change] = []
                if kind == "snapshot_begin":
                    snapshot = []
                elif kind == "snapshot_end":
                    items, snapshot = snapshot or [], None
                    changes = timeline.replace(at_ns, cluster, items, last=last)
                elif kind == "gone":
                    key = own_key(cluster, event.gone)
                    changes = timeline.gone(timeline.after(at_ns, key) if last else at_ns, key)
                else:
                    item = own_item(cluster, event.item)
                    if snapshot is None:
                        at_ns = timeline.after(at_ns, item.key) if last else at_ns
                        changes = timeline.observe(at_ns, item)
                    else:
                        snapshot.append(item)
            except InputError as error:
                await _refuse(context, grpc.StatusCode.INVALID_ARGUMENT, error)
            inventory.record(changes)
            if snapshot is None:
                yield wire.InventoryReply(through_ns=event.at_ns)

    async def _until_stopped(self, messages: AsyncIterator[_T]) -> AsyncIterator[_T]:
        """What a client says, until it or we have no more to say."""
        stopping = asyncio.create_task(self._stopping.wait())
        said = aiter(messages)
        waited: set[asyncio.Task[Any]] = {stopping}
        try:
            while True:
                following = asyncio.create_task(_next(said))
                waited = {stopping, following}
                await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
                if stopping.done() or (message := following.result()) is None:
                    return
                yield message
        finally:
            for task in waited:
                task.cancel()

    async def _peer(self, context: Context, *kinds: ClientKind) -> ClientIdentity:
        """The caller, who must be of one of these kinds."""
        certificate = next(iter(context.auth_context().get("x509_pem_cert", ())), None)
        if certificate is None:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "no client certificate was shown")
        try:
            identity = read_identity(certificate)
        except ForbiddenError as error:
            await _refuse(context, grpc.StatusCode.PERMISSION_DENIED, error)
        if identity.kind not in kinds:
            await context.abort(
                grpc.StatusCode.PERMISSION_DENIED,
                f"a certificate for a {identity.kind} cannot"
                f" do this: it is for a {' or '.join(kinds)}",
            )
        return identity

    def _directive(self, node: NodeKey) -> wire.Directive | None:
        directive = self._services.enforcement.directive(node)
        if directive is not None:
            self._services.modes.complete(node, directive)
        return directive

    def _sign(self, directive: wire.Directive) -> wire.SignedDirective:
        data, services = directive.SerializeToString(), self._services
        signature = services.authority.sign_directive(data)
        return wire.SignedDirective(directive=data, signature=signature, now_ns=services.clock())

    def _heard(self, identity: ClientIdentity, state: wire.AgentState) -> Agent:
        services = self._services
        now_ns = services.clock()
        agent = services.agents.heard(identity, state, now_ns)
        services.enforcement.outgrow(agent.key, state.enforced_revision)
        services.repairs.hear(agent.key, state)
        inventory = services.inventory
        addresses, refused = own_addresses(inventory.timeline, agent.key, state.node_addresses)
        if refused != agent.refused_addresses:
            agent.refused_addresses = refused
            _LOG.warning("node addresses refused", node=identity.name, reason=refused)
        if state.node_addresses:
            cluster, node = agent.key
            inventory.record(
                inventory.timeline.set_node_addresses(cluster, node, addresses, now_ns)
            )
        return agent

    async def _read_states(
        self, identity: ClientIdentity, session: object, states: AsyncIterator[wire.AgentState]
    ) -> None:
        async for state in states:
            agent = self._heard(identity, state)
            if agent.latest is not session:
                agent.contested_ns = agent.last_seen_ns

    def _window(self, identity: ClientIdentity, request: wire.Batch) -> Window:
        """The batch's window; old ones are welcome, for an agent keeps what it cannot deliver."""
        ahead = request.window_end_ns - self._services.clock()
        if ahead > TOLERATED_SKEW_NS:
            raise InputError(skew_text(identity.name, ahead))
        kept_days = self._services.flow_store.kept_days
        if -ahead > kept_days * _DAY_NS:
            raise InputError(
                f"the report is older than the {kept_days} days for which flows are kept; if the"
                f" clock of {identity.name} is behind, synchronise it with NTP"
            )
        if not request.id or not request.window_start_ns <= request.window_end_ns:
            raise InputError("a batch needs an id and a window that does not end before it starts")
        if len(request.id.encode()) > MOST_ID_BYTES:
            raise InputError(f"a batch has an id of more than {MOST_ID_BYTES} bytes")
        return Window(request.window_start_ns, request.window_end_ns)

    def _instant(self, identity: ClientIdentity, event: wire.InventoryEvent) -> int:
        """When it was, epoch ns; now, if the connector takes it to be in the future."""
        if event.kubernetes_cluster != identity.kubernetes_cluster:
            raise InputError(
                f"this connector is enrolled for the Kubernetes cluster "
                f"{identity.kubernetes_cluster!r}, not {event.kubernetes_cluster!r}"
            )
        now_ns = self._services.clock()
        ahead = event.at_ns - now_ns
        if ahead <= TOLERATED_SKEW_NS:
            return event.at_ns
        if event.WhichOneof("event") == "snapshot_begin":
            _LOG.warning("clocks disagree", problem=skew_text(identity.name, ahead))
        return now_ns


def protocol_text(spoken: int) -> str:
    """What to do about a client of another release."""
    return (
        f"the client speaks protocol {spoken}, the control plane {PROTOCOL}; "
        "install the same release of Ringfence on both"
    )


async def _next(messages: AsyncIterator[_T]) -> _T | None:
    return await anext(messages, None)


async def _refuse(context: Context, code: grpc.StatusCode, error: RingfenceError) -> NoReturn:
    await context.abort(code, str(error))
    raise AssertionError("abort does not return")
