"""What this node was told to do last: its signature checked, kept on disk, and taken back in time.

A policy on trial comes with the one before it. Unless another directive comes in time, that one is
in force again: a change that cuts the node off from the control plane, or people off from that,
heals itself. The time is counted by CLOCK_BOOTTIME, which nobody sets; a node that was booted
meanwhile takes it to be over.
"""

import time
from collections.abc import Callable
from pathlib import Path

import structlog
from google.protobuf.message import DecodeError

from ringfence.agent.errors import AgentError
from ringfence.agent.plan import Order, read_order, read_policy
from ringfence.agent.spool import write_atomically
from ringfence.model.errors import InputError, RingfenceError
from ringfence.wire.generated.agent_pb2 import Directive, KeptDirective, SignedDirective

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

Verify = Callable[[bytes, bytes], None]
"""Raises a RingfenceError unless the signature is the control plane's, of that directive."""

log = structlog.get_logger()


def boot_clock() -> int:
    """CLOCK_BOOTTIME, ns."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class Orders:
    """The orders of one node, (Kubernetes cluster, name), in one file."""

    def __init__(
        self,
        file: Path,
        node: tuple[str, str],
        verify: Verify,
        clock: Callable[[], int] = boot_clock,
    ) -> None:
        self._file, self._node, self._verify, self._clock = file, node, verify, clock
        self._order: Order | None = None
        self._fallback: Order | None = None
        self._fallback_ns = 0
        self._trial_ns = 0  # the end of the trial by the control plane's clock, 0 for none
        self._refused = ""
        self.booted = False
        """Whether the node was booted since the directive that was recalled was heard."""

    @property
    def order(self) -> Order | None:
        """What is to be enforced now; None where nothing was ever heard, so that rules stay."""
        return self._fallback if self._over else self._order

    @property
    def problem(self) -> str:
        """Why the last directive is not followed; empty if it is."""
        if self._refused or not self._over or self._order is None:
            return self._refused
        return (
            f"revision {self._order.revision} was on trial, and nothing was heard in time: what was"
            " enforced before is in force again"
        )

    @property
    def _over(self) -> bool:
        """Whether the trial came to its end unheard of."""
        return self._fallback is not None and self._clock() >= self._fallback_ns

    def hear(self, signed: SignedDirective) -> Directive | None:
        """Follow a directive from now on, and keep it; None where it is refused."""
        try:
            directive = self._read(signed)
            same = directive.fallback.at_ns == self._trial_ns
            left_ns = max(0, directive.fallback.at_ns - signed.now_ns)
            # The control plane's clock may be set: what was left at first is never made longer.
            due_ns = self._fallback_ns if same else self._clock() + left_ns
            self._take(directive, due_ns)
        except RingfenceError as error:
            self._refuse("the directive is refused, and the one before is followed", error)
            return None
        self._trial_ns = directive.fallback.at_ns
        kept = KeptDirective(signed=signed, boot_id=_boot_id(), fallback_ns=self._fallback_ns)
        try:
            write_atomically(self._file, kept.SerializeToString())
        except OSError as error:
            log.warning("directive will not outlive a restart", problem=str(error))
        return directive

    def recall(self) -> Directive | None:
        """Follow the directive of the run before; None where there is none, or it is refused."""
        if not self._file.exists():
            return None
        try:
            kept = KeptDirective.FromString(self._file.read_bytes())
            directive = self._read(kept.signed)
            same_boot = kept.boot_id == _boot_id()
            self.booted = not same_boot
            self._take(directive, kept.fallback_ns if same_boot else 0)
            self._trial_ns = directive.fallback.at_ns if same_boot else 0
        except (OSError, DecodeError, RingfenceError) as error:
            self._refuse(f"{self._file} is refused, and rules stay as they were found", error)
            return None
        return directive

    def _read(self, signed: SignedDirective) -> Directive:
        """A directive that the control plane signed for this node; raises RingfenceError."""
        self._verify(signed.signature, signed.directive)
        try:
            directive = Directive.FromString(signed.directive)
        except DecodeError as error:
            raise AgentError(f"it is damaged: {error}") from error
        if (directive.kubernetes_cluster, directive.node) != self._node:
            raise AgentError(f"it is for {directive.kubernetes_cluster}/{directive.node}")
        return directive

    def _take(self, directive: Directive, due_ns: int) -> None:
        """Follow a directive; raises AgentError, and then follows what it did before."""
        fallback = None
        try:
            order = read_order(directive)
            if directive.HasField("fallback"):
                fallback = Order(0, read_policy(directive.fallback.node_policy))
        except InputError as error:
            raise AgentError(f"revision {directive.revision} is not understood: {error}") from error
        self._order, self._fallback = order, fallback
        self._fallback_ns = due_ns if fallback else 0
        self._refused = ""

    def _refuse(self, what: str, error: Exception) -> None:
        self._refused = f"{what}: {error}"
        log.error("directive refused", problem=self._refused)


def _boot_id() -> str:
    return _BOOT_ID.read_text().strip()
