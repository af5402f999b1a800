"""Who may pass the gate that a node holds before new pods (`policy/gate.py`).

What was released stays so for as long as the same pod is here, behind the same interface, whatever
becomes of its rules later: those of before hold until others are in force. Of whoever was released
by an agent before, the kernel tells, but not which pod it was.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

from ringfence.agent.pods import Place, Pod
from ringfence.kernel.errors import KernelError
from ringfence.kernel.neighbours import forget_waiting
from ringfence.kernel.rules import Door
from ringfence.model.address import parse_address
from ringfence.model.errors import InputError
from ringfence.policy.backends.nftables_gate import RELEASED
from ringfence.policy.program import LINK_LOCAL, Gate, Passage


@dataclass
class Gatekeeper:
    """Knows what is released on a node."""

    released: frozenset[Passage] | None = None
    """As the kernel has it; None where no gate stands, or nobody has looked yet."""
    links: frozenset[Passage] = frozenset()
    """Those that lead to no pod."""
    _holders: dict[Passage, Place] = field(default_factory=dict)
    """Whose a passage is that was released, as far as that is known."""

    def keep(
        self, node: Place, pods: Iterable[Pod] | None, door: Door
    ) -> frozenset[Passage] | None:
        """What passes until the rules of new pods are in force: what did, and is still its pod's.

        None where no gate stands yet. `pods` are None if it is not known who is here: then nobody
        has gone. Raises KernelError.
        """
        if self.released is None:
            self.released = _read(door.list_table(node.netns) or ())
        if pods is None or self.released is None:
            return self.released
        here = {(passage, pod.place) for pod in pods for passage in pod.passages}
        holders = {passage: place for passage, place in here if passage in self.released}
        holders |= self._holders
        still = frozenset(p for p in self.released if (p, holders.get(p)) in here)
        self._holders = {passage: holders[passage] for passage in still}
        self.released = still | self.links
        return self.released

    def due(
        self, gate: Gate, pods: Iterable[Pod] | None, programmed: Collection[str]
    ) -> tuple[frozenset[Passage], dict[Place, str]]:
        """What may pass now that the rules of the pods `programmed`, by uid, are in force.

        And who may not for all that, and why: what a pod sent before its rules were in force, and
        still waits in its namespace, must not pass.
        """
        passages = {*(self.released or ()), *self.links}
        problems: dict[Place, str] = {}
        for pod in pods or ():
            spared = gate.spares(pod.namespace, pod.place.uid)
            if pod.passages <= passages or not (spared or pod.place.uid in programmed):
                continue
            try:
                if not spared:
                    forget_waiting(pod.place.netns)
                passages |= pod.passages
                self._holders |= dict.fromkeys(pod.passages, pod.place)
            except KernelError as error:
                problems[pod.place] = str(error)
        return frozenset(passages), problems


def _read(table: Iterable[dict[str, Any]]) -> frozenset[Passage] | None:
    """What the gate of a table lets through; None if it has none, or one that is not ours."""
    sets = [body for found in table if (body := found.get("set", {})).get("name") in RELEASED]
    try:
        held = [element for body in sets for element in body.get("elem", ())]
        links = (Passage(one, LINK_LOCAL.address) for one in held if isinstance(one, str))
        pairs = (one["concat"] for one in held if not isinstance(one, str))
        passages = frozenset(
            (*links, *(Passage(name, parse_address(text)) for name, text in pairs))
        )
    except (TypeError, LookupError, ValueError, InputError):
        return None
    return passages if sets else None
