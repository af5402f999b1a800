"""One node's agent: looks which pods there are, reports what passes, enforces what it is told.

Loops, none of which waits for another: news of interfaces, what the kernel keeps for but a
moment, a look at the pods, a report each interval, the conversation with the control plane, the
delivery of reports, and of DNS answers. What touches the kernel runs in one worker thread, so one
thing at a time.
"""

import asyncio
import os
import time
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from functools import partial
from typing import Any

import structlog

from ringfence import __version__
from ringfence.agent import host
from ringfence.agent.boot import keep_gate, shut_gate
from ringfence.agent.capture import Capture
from ringfence.agent.config import AgentConfig
from ringfence.agent.errors import AgentError
from ringfence.agent.held import Outcome
from ringfence.agent.mechanisms import MECHANISMS, enforcer
from ringfence.agent.orders import Orders
from ringfence.agent.plan import Order
from ringfence.agent.pods import Here, Pod, locate, node, own_links, places
from ringfence.agent.report import Reporter
from ringfence.agent.session import Session, deliver, tell_answers
from ringfence.agent.spool import Spool
from ringfence.agent.worker import KernelThread
from ringfence.kernel.cri import ContainerRuntime, RuntimeUnavailableError, Sandbox
from ringfence.kernel.errors import KernelError
from ringfence.kernel.interfaces import Interface, list_interfaces, watch_interfaces
from ringfence.link.channel import Link
from ringfence.link.errors import LinkError
from ringfence.model.errors import RingfenceError
from ringfence.model.flow import Mode
from ringfence.policy.program import Passage
from ringfence.wire.generated.agent_pb2 import (
    CONVERSATION,
    DETAILED,
    AgentState,
    Directive,
    Inspected,
    Inspection,
    PodState,
    Repair,
    SignedDirective,
)
from ringfence.wire.limits import PROTOCOL

_LOOPBACK = "lo"

log = structlog.get_logger()


class Agent:
    """Runs on one node until stopped. `wait` raises what ended it before."""

    def __init__(self, config: AgentConfig) -> None:
        self._config = config
        self._link = Link(config.link)
        self._spool = Spool(config.spool_dir, config.spool_bytes)
        self._session = Session(self._link, self._state, self._hear, self._inspect)
        self._runtime = ContainerRuntime(config.runtime_socket) if config.runtime_socket else None
        self._capture = Capture(config.pin_dir, dns=config.dns)
        self._enforcer = enforcer(config.backend)
        self._kernel = KernelThread()
        self._look_now = asyncio.Event()
        self._listed_at = -float("inf")
        """When the runtime was last asked, by the loop's clock; long ago where it is to be."""
        self._here = Here()
        self._sandboxes: tuple[Sandbox, ...] = ()
        self._unreached: dict[str, str] = {}
        whose = config.link.kubernetes_cluster, config.link.name
        self._orders = Orders(config.directive_file, whose, self._link.verify)
        self._enforced = 0
        self._runtime_problem = ""
        self._health_problem = ""
        self._outcome = Outcome(0, frozenset(), {})
        self._stopping = asyncio.Event()
        self._reporter = Reporter(
            config, self._here, self._capture, self._enforcer, self._spool, self._kernel,
            self._session.tell,
        )  # fmt: skip
        self._tasks: list[asyncio.Task[None]] = []
        self._resources = AsyncExitStack()

    async def start(self) -> None:
        """Load the programs, and begin; raises AgentError, KernelError.

        The node has what `host.check` asks for. Does not wait for the control plane: the last
        directive is in force before it answers.
        """
        async with AsyncExitStack() as stack:
            lock = host.lock(self._config.link.state_dir)
            stack.callback(os.close, lock)
            await self._recall()
            self._spool.open()
            await self._kernel.run(self._capture.open)
            stack.callback(self._capture.close)
            if not len(await self._kernel.run(self._capture.left)):
                self._spool.release()
            if self._runtime:
                await self._runtime.start()
                stack.push_async_callback(self._runtime.stop)
            await self._link.start()
            stack.push_async_callback(self._link.stop)
            self._resources = stack.pop_all()
        loops: tuple[Callable[[], Coroutine[Any, Any, None]], ...] = (
            self._reporter.run, self._watch, self._keep_up, self._look, self._session.run,
            lambda: deliver(self._link, self._spool), *([self._tell_answers] * self._config.dns),
        )  # fmt: skip
        self._tasks = [asyncio.create_task(loop()) for loop in loops]
        log.info("agent started", node=self._config.link.name, release=__version__,
                 backend=self._config.backend)  # fmt: skip

    async def stop(self) -> None:
        """Report once more, and leave the rest to a successor.

        Rules stay: an agent's absence is no reason to open up. So do programs and what they count.
        """
        self._stopping.set()
        self._reporter.end()
        if self._tasks:
            await asyncio.wait(self._tasks[:1])  # the reporter's
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._kernel.stop()
        self._enforcer.close()
        await self._resources.aclose()

    async def wait(self) -> None:
        """Return never; raise AgentError when one of the loops has failed."""
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            if error := task.exception():
                raise AgentError(f"the agent cannot go on: {error}") from error

    # Looking

    async def _watch(self) -> None:
        while True:
            try:
                async for interfaces in watch_interfaces():
                    self._here.interfaces = interfaces
                    await self._attach()
                    self._listed_at = -float("inf")
                    self._look_now.set()
            except KernelError as error:  # such as a listing that a change came in between
                log.warning("interfaces not followed", problem=str(error))
            await asyncio.sleep(self._config.poll_seconds)

    async def _attach(self) -> None:
        """Capture at the interfaces that there are; waits for nobody but the kernel."""
        wanted = [one for one in self._here.interfaces if one.up and one.name != _LOOPBACK]
        if self._here.interfaces and not self._stopping.is_set():
            await self._kernel.run(partial(self._capture.watch, wanted))

    async def _keep_up(self) -> None:
        """Be there before the kernel has no more room, or forgets; waits for nobody but it."""
        while not self._stopping.is_set():
            try:
                if await self._kernel.run(self._capture.crowded):
                    self._reporter.cut_short()
                await self._kernel.run(self._capture.hear)
                await self._attach()  # again, where it failed
                held = places(self._here.pods, self._here.addresses)
                await self._kernel.run(partial(self._capture.owners.look_again, held))
            except KernelError as error:
                log.warning("cannot keep up with the kernel", problem=str(error))
            await asyncio.sleep(self._config.poll_seconds)

    async def _look(self) -> None:
        """Follow pods as they come and go, and keep their rules with them."""
        seen: tuple[tuple[Sandbox, ...], tuple[Interface, ...]] | None = None
        applied: tuple[Order | None, tuple[Pod, ...], frozenset[Passage]] | None = None
        while not self._stopping.is_set():
            self._look_now.clear()
            if not self._pods_known():
                await self._list_pods()
            try:
                found = self._sandboxes, self._here.interfaces
                before = self._here.pods, self._unreached
                changed = found != seen
                if changed or self._unreached:
                    self._here.pods, self._unreached = locate(*found)
                    changed |= before != (self._here.pods, self._unreached)
                    await self._kernel.run(partial(self._capture.know, self._here.pods))
                if changed:
                    seen = found
                    self._log_unreached(before[1])
                    self._session.tell()
                await self._kernel.run(self._enforcer.hear)
                current = self._orders.order, self._here.pods, self._own_links()
                if current != applied or self._outcome.problem or self._enforcer.tampered:
                    finished = await self._enforce()
                    applied = current if finished else None
                if not self._runtime_problem:
                    self._tell_health()
            except KernelError as error:
                log.warning("cannot look after the node's pods", problem=str(error))
            # Python 3.11's wait_for may lose the cancellation that ends this loop.
            with suppress(TimeoutError):
                async with asyncio.timeout(self._config.poll_seconds):
                    await self._look_now.wait()

    def _tell_health(self) -> None:
        """Leave a sign of life for `ringfence agent health`, while the disk takes one."""
        problem = ""
        try:
            host.health_file(self._config.link.state_dir).touch()
        except OSError as error:
            problem = str(error)
        if problem != self._health_problem:
            log.warning("health not told on this node", problem=problem or "none any more")
            self._health_problem = problem

    def _log_unreached(self, before: dict[str, str]) -> None:
        for uid, problem in self._unreached.items():
            if before.get(uid) != problem:
                log.warning("pod not reached", pod=uid, problem=problem)

    def _pods_known(self) -> bool:
        """Whether a directive can be followed without another look at which pods are here."""
        policy = self._orders.order.policy if self._orders.order else None
        bound = {pod.uid for pod in policy.pods} if policy else set()
        lately = asyncio.get_running_loop().time() < self._listed_at + self._config.poll_seconds
        return lately and bound <= {pod.place.uid for pod in self._here.pods}

    async def _list_pods(self) -> None:
        """Ask the runtime; while it does not answer, the pods are those that it last told."""
        self._listed_at, problem = asyncio.get_running_loop().time(), ""
        try:
            if self._runtime:
                self._sandboxes = await self._runtime.sandboxes()
                owners = self._capture.owners
                if asked := await self._kernel.run(owners.unnamed):
                    names = await self._runtime.containers()
                    await self._kernel.run(partial(owners.name, asked, names))
        except RuntimeUnavailableError as error:
            problem = str(error)
        if problem != self._runtime_problem:
            log.warning("container runtime", problem=problem or "none any more")
            self._runtime_problem = problem
            self._session.tell()

    # Enforcing

    def _hear(self, signed: SignedDirective) -> None:
        """Take a directive; what it asks is done at the next look, which is now."""
        if directive := self._orders.hear(signed):
            self._heed(directive)
            self._look_now.set()
        else:
            self._session.tell()

    async def _recall(self) -> None:
        """Take up the directive of the run before, if there was one."""
        try:
            await self._link.recall()
        except LinkError as error:
            log.warning("identity", problem=str(error))
        directive = self._orders.recall()
        if directive is None:
            return
        self._heed(directive)
        if self._orders.booted and self._orders.order and (policy := self._orders.order.policy):
            try:
                held = node(), list_interfaces(), self._enforcer.backend, self._enforcer.door
                await self._kernel.run(partial(shut_gate, policy, *held))
            except KernelError as error:
                log.warning("gate not shut before pods of a new boot", problem=str(error))

    def _heed(self, directive: Directive) -> None:
        """Report as a directive says."""
        mode = Mode.DETAILED if directive.mode == DETAILED else Mode.CONVERSATION
        self._reporter.pace(mode, directive.interval_seconds)
        declared = frozenset((p.protocol, p.port) for p in directive.declared_ports)
        self._reporter.declared_ports = declared

    async def _enforce(self) -> bool:
        """Bring every namespace to the order; without one ever heard, rules stay as found.

        Returns whether that was done to the end, be it with problems.
        """
        order, places = self._orders.order, [pod.place for pod in self._here.pods]
        if order is None:
            return True
        seen = self._known_pods(), self._own_links()
        steps = self._enforcer.steps(order, [*places, node()], *seen)
        while await self._kernel.run(partial(next, steps, True)) is None:
            # Others have the kernel between two steps. A newer order waits for no proof of this
            # one: what is not proved then is proved with it. The same one may be heard again.
            if self._orders.order != order:
                return False
        outcome = self._enforcer.outcome
        if not outcome.problem:
            self._enforced = order.revision
        if outcome.problem != self._outcome.problem:
            log.error("rules", problem=outcome.problem or "none any more")
        self._outcome = outcome
        kept = order.policy, self._here.interfaces, self._enforcer.backend
        keep_gate(self._config.gate_file, *kept)
        self._session.tell()
        return True

    def _known_pods(self) -> tuple[Pod, ...] | None:
        """The pods that are here; None while the runtime or the kernel tells nothing of them."""
        told = self._runtime and not self._runtime_problem and self._here.interfaces
        return self._here.pods if told else None

    def _own_links(self) -> frozenset[Passage]:
        policy = self._orders.order.policy if self._orders.order else None
        return own_links(self._here.interfaces, policy.gate if policy else None)

    # Telling

    async def _inspect(self, question: Inspection) -> Inspected:
        """Say what the kernel holds, or why that cannot be said."""
        held = {"": node(), **{pod.place.uid: pod.place for pod in self._here.pods}}
        place = held.get(question.uid)
        if place is None:
            problem = self._unreached.get(question.uid, "no such pod runs here")
            return Inspected(id=question.id, problem=problem)
        inspect = MECHANISMS[self._config.backend].inspect
        try:
            return await self._kernel.run(partial(inspect, place, question))
        except RingfenceError as error:
            return Inspected(id=question.id, problem=str(error))
        except Exception as error:  # noqa: BLE001 - what a pod wrote there must end nothing here
            return Inspected(id=question.id, problem=f"its rules are not understood: {error!r}")

    async def _tell_answers(self) -> None:
        news = partial(self._kernel.run, self._capture.answers)
        await tell_answers(self._link, news, self._config.poll_seconds)

    def _state(self) -> AgentState:
        """What the control plane should know now."""
        problems = {p.uid: why for p, why in self._outcome.problems.items()} | self._unreached
        programmed = self._outcome.programmed
        return AgentState(
            protocol=PROTOCOL,
            kubernetes_cluster=self._config.link.kubernetes_cluster,
            node=self._config.link.name,
            release=__version__,
            clock_ns=time.time_ns(),
            node_addresses=self._here.addresses,
            enforced_revision=self._enforced,
            pods=[
                PodState(uid=uid, programmed=uid in programmed, reason=problems.get(uid, ""))
                for uid in (*(pod.place.uid for pod in self._here.pods), *self._unreached)
            ],
            audit=self._reporter.audit,
            mode=DETAILED if self._reporter.mode is Mode.DETAILED else CONVERSATION,
            stale_reason=self._orders.problem or self._outcome.problem or self._runtime_problem,
            repairs=[
                Repair(uid=one.uid, damage=one.damage, at_ns=one.at_ns, times=one.times)
                for one in self._enforcer.repairs.told()
            ],
        )
