"""The gate of a node that was booted, before its agent knows anything but its last directive.

After a boot every pod is new, so a gate that lets nobody through does to each what it is for. The
agent writes it first thing, and keeps it in a file too, for the node to load before there is an
agent (docs/enforcement.md).
"""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import structlog

from ringfence.agent.pods import Place, own_links
from ringfence.agent.spool import write_atomically
from ringfence.kernel import conntrack, nft
from ringfence.kernel.interfaces import Interface
from ringfence.kernel.rules import Door
from ringfence.policy.backends.interface import Backend, Ruleset, UnsupportedError
from ringfence.policy.program import NodeBinding, NodePolicy

log = structlog.get_logger()


def shut_gate(
    policy: NodePolicy, node: Place, interfaces: Iterable[Interface], backend: Backend, door: Door
) -> None:
    """Write a policy's gate, if it has one, where no rules of ours are yet; raises KernelError."""
    ruleset = _gate_alone(policy, interfaces, backend)
    if ruleset is None or door.judges(node.netns):
        return
    door.start_tracking(node.netns)
    conntrack.adopt_open_sockets(node.netns)
    door.apply(node.netns, backend.transaction(ruleset, None))
    log.info("gate shut before pods of a node that was booted")


def keep_gate(
    file: Path, policy: NodePolicy | None, interfaces: Iterable[Interface], backend: Backend
) -> None:
    """Have the file hold a policy's gate, for `nft -f` where no rules of ours are yet."""
    ruleset = _gate_alone(policy, interfaces, backend) if policy else None
    wanted = f"{nft.CREATE}{backend.text(ruleset)}".encode() if ruleset else None
    try:
        if wanted is None:
            file.unlink(missing_ok=True)
        elif not file.exists() or file.read_bytes() != wanted:
            write_atomically(file, wanted)
    except OSError as error:
        log.warning("gate not kept for the next boot", problem=str(error))


def _gate_alone(
    policy: NodePolicy, interfaces: Iterable[Interface], backend: Backend
) -> Ruleset | None:
    """The gate with nobody released; None where there is none, or it cannot be said."""
    if policy.gate is None:
        return None
    nothing = NodeBinding(policy.binding.addresses, None, None, None)
    alone = replace(policy, sets={}, programs={}, pods=(), binding=nothing)
    try:
        return backend.render_node(alone, own_links(interfaces, policy.gate))
    except UnsupportedError:  # told once the whole policy is tried
        return None
