"""Taking off a node what an agent leaves there for its successor, when there is to be none."""

import os
from collections.abc import Iterable
from contextlib import AsyncExitStack
from pathlib import Path

from ringfence.agent import host
from ringfence.agent.capture import Capture
from ringfence.agent.config import gate_file
from ringfence.agent.errors import AgentError
from ringfence.agent.mechanisms import MECHANISMS
from ringfence.agent.pods import Place, locate, node
from ringfence.kernel.cri import ContainerRuntime, RuntimeUnavailableError
from ringfence.kernel.errors import KernelError
from ringfence.kernel.interfaces import list_interfaces


async def remove(state_dir: Path, pin_dir: Path, runtime_socket: Path | None) -> None:
    """Detach the programs, forget their counts, and take every namespace's rules away.

    The state directory keeps what is in it, but for the gate of the next boot. What is away already
    is no error. Raises HostError while an agent runs, KernelError, and AgentError where rules are
    left, or may be: what can be reached is free of them all the same.
    """
    host.check()
    async with AsyncExitStack() as stack:
        stack.callback(os.close, host.lock(state_dir))
        interfaces = list_interfaces()
        capture = Capture(pin_dir)
        capture.open()
        stack.callback(capture.close)
        # Filters of kernels before 6.6 are found by their names, in whose place ours are put.
        capture.watch(interfaces)
        capture.remove()
        gate_file(state_dir).unlink(missing_ok=True)  # else the next boot would shut it for good
        problems = _clear([node()])
        if runtime_socket:
            runtime = ContainerRuntime(runtime_socket)
            await runtime.start()
            stack.push_async_callback(runtime.stop)
            try:
                pods, unreached = locate(await runtime.sandboxes(), interfaces)
                problems |= unreached | _clear(pod.place for pod in pods)
            except RuntimeUnavailableError as error:
                problems["pods"] = str(error)
        if problems:
            told = "; ".join(f"{where}: {why}" for where, why in problems.items())
            raise AgentError(f"rules may be left on this node: {told}")


def _clear(places: Iterable[Place]) -> dict[str, str]:
    """Take every rule away, whatever wrote it; where that failed, by the pod's uid, and why."""
    doors = [mechanism.door for mechanism in MECHANISMS.values() if mechanism.door.usable()]
    problems = {}
    for place in places:
        for door in doors:
            try:
                door.remove(place.netns)
            except KernelError as error:
                problems[place.uid or "node"] = str(error)
    return problems
