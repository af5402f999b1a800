"""Makes the rules of every namespace on this node what the last directive asks for.

`agent.plan` decides, and is pure; `Enforcer` acts. What is in force in a namespace stays whole
until the kernel has taken its successor in one transaction: a failure changes nothing, and says
so. Rules are in force once they are proved: read back, and held against the policy for every
packet.
"""

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import structlog
from numpy.typing import NDArray

from ringfence.agent.cut import cut_denied
from ringfence.agent.drops import DropLedger
from ringfence.agent.gate import Gatekeeper
from ringfence.agent.held import Asked, Held, Outcome
from ringfence.agent.plan import NOTHING, Order, Plan, bindings, plan
from ringfence.agent.pods import Place, Pod
from ringfence.agent.repairs import Repairs
from ringfence.agent.watches import Watches
from ringfence.kernel import conntrack, nft
from ringfence.kernel.errors import KernelError, NamespaceError
from ringfence.kernel.rules import Door, Listing, Watch
from ringfence.model.address import Address
from ringfence.model.repair import Damage
from ringfence.policy.backends.interface import Backend, Ruleset, UnsupportedError
from ringfence.policy.program import Guarded, NodePolicy, Passage
from ringfence.policy.proof.prove import Reader
from ringfence.policy.proof.reading import read as read_nft
from ringfence.policy.proof.shared import Agreed

_UNKNOWN_PODS = (
    "the node's rules stay as found: the container runtime has not told yet which pods are here"
)

log = structlog.get_logger()


@dataclass
class Enforcer:
    """Programs namespaces. Its methods block: call them in turn, from one thread at a time."""

    backend: Backend
    door: Door = nft
    read: Reader = read_nft
    """Of what the door lists, for the proof."""
    others: tuple[Door, ...] = ()
    """Of mechanisms in which a predecessor may have left rules."""
    listen: Callable[[Path], Watch] | None = None
    """Hears of changes in a namespace; without it they are noticed by `read_drops` alone."""
    ledger: DropLedger = field(default_factory=DropLedger)
    tampered: bool = False
    """Whether someone changed our rules since the last `apply`, which mends it."""
    repairs: Repairs = field(default_factory=Repairs)
    outcome: Outcome = field(default_factory=lambda: Outcome(0, frozenset(), {}))
    """Of the last `apply`."""
    _held: dict[Place, Held] = field(default_factory=dict)
    """Of those with rules, the first was proved longest ago."""
    _watches: Watches = field(init=False)
    _doubted: dict[Place, Held] = field(default_factory=dict)
    """What namespaces were made to hold that may hold something else by now."""
    _gatekeeper: Gatekeeper = field(default_factory=Gatekeeper)
    _guarded: Guarded = field(default_factory=dict)
    _planned: Plan = NOTHING
    _agreed: Agreed = field(default_factory=Agreed)
    _node: Place | None = None

    def __post_init__(self) -> None:
        """Hear nothing yet."""
        self._watches = Watches(self.listen)

    def apply(
        self,
        order: Order,
        places: Iterable[Place],
        pods: Sequence[Pod] | None = None,
        links: frozenset[Passage] = frozenset(),
    ) -> Outcome:
        """Bring every namespace to what the order asks, each in one transaction, and prove it.

        `pods` are those that are here, None if that is not known: then nobody else is released.
        `links` are the node's own, that a gate is not before.
        """
        for _ in self.steps(order, places, pods, links):
            pass
        return self.outcome

    def steps(
        self,
        order: Order,
        places: Iterable[Place],
        pods: Sequence[Pod] | None = None,
        links: frozenset[Passage] = frozenset(),
    ) -> Iterator[None]:
        """The same, with a rest before each proof: by the first one all rules are written.

        `outcome` is what came of it, in the end.
        """
        self.tampered = False
        self._gatekeeper.links = links
        if order.policy:
            order = replace(order, policy=self.backend.sayable(order.policy))
        # The node first: who is gone must not leave the gate open for who gets its address.
        places = sorted(places, key=lambda place: bool(place.uid))
        self._node = node = next((place for place in places if not place.uid), None)
        released, problems = self._see(order.policy, node, pods)
        places = [place for place in places if place not in problems]
        last, known = self._planned, (released or (), self._guarded)
        self._planned = NOTHING
        wanted = plan(order.policy, places, self.backend, *known, last)
        problems |= wanted.problems
        for place in self._held.keys() - wanted.rulesets.keys() - problems.keys():
            del self._held[place]
            self.ledger.forget(place)
        self._watches.keep(wanted.rulesets.keys() | problems.keys())
        for place in self._doubted.keys() - problems.keys():
            del self._doubted[place]
        work = self._work(wanted.rulesets, order.policy, released)
        # What is refused leaves the rules of before: those too are written again, once doubted.
        work |= self._doubted
        failed = self._write(work)
        problems |= failed
        gate = order.policy.gate if order.policy else None
        judged = (p for p, new in work.items() if new.ruleset or (gate and not p.uid))
        written = [place for place in judged if place not in failed]
        for place in reversed(written):  # the node last: by then it is known who may pass
            if order.policy and gate and not place.uid and place not in problems:
                proved = {one.uid for one in written} - {one.uid for one in problems}
                problems |= self._release(place, order.policy, pods, proved)
            if (held := self._held.get(place)) and not held.frame:
                yield
            if problem := self._prove(place):
                problems[place] = problem
        # What was read meanwhile may have brought those into doubt that were proved by then.
        failing = problems.keys() | self._doubted.keys()
        whole = [place for place in written if place not in failing]
        self.repairs.made(whole, failing, time.time_ns())
        proved = {place.uid for place in written} - {place.uid for place in problems}
        self._planned = wanted.without(problems)
        self.outcome = Outcome(order.revision, frozenset(proved - {""}), problems)

    def _work(
        self,
        rulesets: Mapping[Place, Ruleset | None],
        policy: NodePolicy | None,
        released: frozenset[Passage] | None,
    ) -> dict[Place, Held]:
        """What namespaces are to hold, and by whose words.

        A first gate comes with the first releases: one that was there before, and stayed when the
        agent ended, would be open to whom nobody has released.
        """
        asked = Asked(policy, released or frozenset(), self._guarded) if policy else None
        work = {place: Held(ruleset, asked) for place, ruleset in rulesets.items()}
        if policy and policy.gate and released is None:
            open_ = replace(policy, gate=None)
            node = [place for place in rulesets if not place.uid]
            wanted = plan(open_, node, self.backend, guarded=self._guarded)
            asked = Asked(open_, guarded=self._guarded)
            work |= {place: Held(ruleset, asked) for place, ruleset in wanted.rulesets.items()}
        return work

    def _write(self, work: Mapping[Place, Held]) -> dict[Place, str]:
        """Make namespaces hold what they are to; returns where that failed, and why."""
        problems: dict[Place, str] = {}
        fresh: dict[Place, Held] = {}
        for place, new in work.items():
            try:
                if new.ruleset is None or new.asked is None:
                    self._clear(place)
                elif held := self._program(place, new.ruleset, new.asked):
                    fresh[place] = held
            except KernelError as error:
                problems[place] = str(error)
        # By then whoever opens a connection anywhere meets the new rules.
        for place, held in fresh.items():
            try:
                self._cut(place, held)
            except KernelError as error:
                problems[place] = str(error)
        return problems

    def read_drops(
        self, others: NDArray[np.void], addresses: Mapping[Place, Iterable[Address]]
    ) -> None:
        """Gather drop reports, and notice where rules are not what they were made.

        `others` are the kernel's own reports (DROP_DTYPE), drained before this call.
        """
        for place, held in list(self._held.items()):
            self._examine(place, held)
        self._prove_again()
        self.ledger.read_others(others, addresses)

    def _see(
        self, policy: NodePolicy | None, node: Place | None, pods: Sequence[Pod] | None
    ) -> tuple[frozenset[Passage] | None, dict[Place, str]]:
        """What the gate lets through for now, None if none stands.

        And why the node stays as found, if it does.
        """
        if pods is not None:
            self._guarded = {pod.place.uid: pod.alone for pod in pods}
        if node is None or policy is None:
            self._gatekeeper.released = None
            return None, {}
        unknown = {node: _UNKNOWN_PODS} if pods is None else {}
        needed = policy.gate is not None or any(pod.guarded for pod in policy.pods)
        if unknown and needed and node not in self._held:
            return None, unknown
        if policy.gate is None:
            self._gatekeeper.released = None
            return None, {}
        try:
            released = self._gatekeeper.keep(node, pods, self.door)
        except KernelError as error:
            return None, {node: str(error)}
        return released, unknown if released is None else {}

    def _release(
        self, node: Place, policy: NodePolicy, pods: Sequence[Pod] | None, proved: Collection[str]
    ) -> dict[Place, str]:
        """Let those through whose rules are in force; returns why that failed, if it did."""
        held = self._held.get(node)
        if policy.gate is None or held is None:
            return {}
        released, problems = self._gatekeeper.due(policy.gate, pods, proved)
        asked = Asked(policy, released, self._guarded)
        try:
            ruleset = self.backend.render_node(policy, released, self._guarded)
            if held.ruleset is None or held.ruleset.frame != ruleset.frame:
                if written := self._program(node, ruleset, asked):  # the first gate
                    self._cut(node, written)
            elif commands := self.backend.transaction(ruleset, held.ruleset):
                self._load(node, commands)
                self._held[node] = replace(held, ruleset=ruleset, asked=asked, frame=b"")
            self._gatekeeper.released = released
        except (KernelError, UnsupportedError) as error:
            problems[node] = str(error)
        return problems

    def hear(self) -> None:
        """Notice where rules were changed since they were written; takes next to no time."""
        for place in self._watches.heard():
            if (held := self._held.get(place)) and held.ruleset and not held.frame:
                self._distrust(place, Damage.RULES)  # written, and not known as it was
            elif held:
                self._examine(place, held)

    def close(self) -> None:
        """Hear of changes no more; rules stay."""
        self._watches.keep(())

    def _examine(self, place: Place, held: Held) -> None:
        """Read the counters, and notice whether rules are what they were made."""
        try:
            damage = self._count(place, held)
        except NamespaceError:
            return  # gone; the next look at the node's pods takes it out
        except KernelError as error:  # the counters stand, and are read the next time
            log.warning("drops not read", pod=place.uid, problem=str(error))
            return
        if damage:
            self._distrust(place, damage)

    def _load(self, place: Place, commands: str) -> None:
        """One transaction; what is heard after it is another's, and what comes before is seen."""
        self._watches.begin(place)
        try:
            self.door.apply(place.netns, commands)
        except KernelError:
            # Where nobody has read back what stands there, it may be gone: the next time is whole.
            if (held := self._held.get(place)) and not held.frame:
                self._doubted[place] = self._held.pop(place)
            raise
        self._watches.touched(place)

    def _clear(self, place: Place) -> None:
        held = self._held.get(place)
        if held is None or held.ruleset is not None:
            self._harvest(place, held)
            self.door.remove(place.netns)
        self._watches.end(place)
        if held is None:
            self._remove_others(place)
        self._held[place] = Held(None)

    def _remove_others(self, place: Place) -> None:
        for door in self.others:
            if door.usable():
                door.remove(place.netns)

    def _program(self, place: Place, ruleset: Ruleset, asked: Asked) -> Held | None:
        """Write the rules of a namespace; None if they stand there already."""
        held = self._held.get(place)
        previous = held.ruleset if held else None
        same = ruleset is previous
        commands = "" if same else self.backend.transaction(ruleset, previous)
        if held and not commands:
            held.asked = asked
            return None
        kept = ruleset.drop_sets if self.backend.keeps_drops else ()
        if previous is None or not set(previous.drop_sets) <= set(kept):
            self._harvest(place, held)
        if previous is None and not self.door.judges(place.netns):
            # A connection that is older than tracking would stall under the first rules. Where
            # tracking has begun, it is not known whether all were adopted then.
            self.door.start_tracking(place.netns)
            conntrack.adopt_open_sockets(place.netns)
            if place.uid and self._node:
                own = bindings(asked.policy)[place.uid].addresses
                conntrack.adopt_datagrams(place.netns, own, self._node.netns)
        self._load(place, commands)
        if held is None:
            self._remove_others(place)
        # Not held until all is done: should cutting fail, the next time does everything again.
        self._held.pop(place, None)
        denials = {**(held.denials if held else {}), **ruleset.denials}
        return Held(ruleset, asked, denials=denials)

    def _cut(self, place: Place, held: Held) -> None:
        """Cut what newly written rules deny."""
        assert held.asked
        asked, policy = held.asked, held.asked.policy
        cut_denied(place.netns, policy, bindings(policy)[place.uid])
        for pod in policy.pods if not place.uid else ():
            if pod.guarded and asked.guarded.get(pod.uid):
                cut_denied(place.netns, policy, pod, guarded=True)
        self._held[place] = held
        self._doubted.pop(place, None)

    def _prove(self, place: Place) -> str:
        """Prove the rules of a namespace, if they are new; returns why that fails, if it does.

        What is not as it should be is written once more.
        """
        held = self._held.get(place)
        if held is None:
            return "rules changed by another"
        try:
            if held.ruleset and not held.frame and not self._read_back(place, held):
                log.error("rules not proved, written again", pod=place.uid, problem=held.problem)
                self._load(place, self.backend.transaction(held.ruleset, None))
                self._read_back(place, held)
        except KernelError as error:
            return str(error)
        return held.problem

    def _prove_again(self) -> None:
        """Prove one namespace as it stands, of those with rules in turn."""
        place = next((place for place, held in self._held.items() if held.frame), None)
        if place is None:
            return
        held = self._held.pop(place)
        self._held[place] = held  # now the last one
        was = held.whole
        try:
            proved = self._read_back(place, held)
        except KernelError as error:
            log.warning("rules not read back", pod=place.uid, problem=str(error))
            return
        if not proved or held.whole != was:
            damage = Damage.RULES if proved else Damage.UNPROVED
            self._distrust(place, damage, held.problem)

    def _read_back(self, place: Place, held: Held) -> bool:
        """Whether what a namespace holds is proved to be what was asked."""
        table = self.door.list_table(place.netns) or []
        held.frame = self.door.fingerprint(table, elements=False)
        held.whole = self.door.fingerprint(table)
        held.problem = (
            held.asked.refuted(place, table, self.read, self._agreed) if held.asked else ""
        )
        return not held.problem

    def _distrust(self, place: Place, damage: Damage, problem: str = "") -> None:
        """Forget what a namespace holds, so that everything is written again."""
        what = "not proved" if problem else "changed by another"
        log.error(f"rules {what}, to be written again", pod=place.uid, problem=problem)
        self._doubted[place] = self._held.pop(place)
        self.repairs.notice(place, damage)
        self.tampered = True

    def _count(self, place: Place, held: Held) -> Damage | None:
        """Read the counters; returns what was done to the table, None if it is what it was made.

        A privileged pod may write into it. What sets hold is read only where they are the ones
        that we made, for one of a pod's own making may be as large as it likes.
        """
        if held.ruleset is None or not held.frame:
            return None
        frame = self.door.list_table(place.netns, elements=False)
        if frame is None:
            return Damage.TAKEN_AWAY
        if self.door.fingerprint(frame, elements=False) != held.frame:
            return Damage.RULES
        table = self.door.list_table(place.netns) or []
        try:
            self._gather(place, held, held.ruleset, table)
        except KernelError as error:
            log.warning("drops not counted", pod=place.uid, problem=str(error))
            return Damage.SETS
        return None if self.door.fingerprint(table) == held.whole else Damage.SETS

    def _gather(self, place: Place, held: Held, ruleset: Ruleset, table: Listing) -> None:
        """Take in what a table has counted; raises KernelError."""
        self.ledger.read(place, held.denials, self.door.read_drops(table, ruleset.drop_sets))
        held.denials = ruleset.denials

    def _harvest(self, place: Place, held: Held | None) -> None:
        """Read the counters once more before the table goes with them."""
        if held:
            try:
                if held.ruleset and not held.frame:  # written, and not read back yet
                    table = self.door.list_table(place.netns) or []
                    self._gather(place, held, held.ruleset, table)
                else:
                    self._count(place, held)
            except KernelError as error:  # no reason to keep the rules that are to go
                log.warning("drops not counted", pod=place.uid, problem=str(error))
        self.ledger.forget(place)
