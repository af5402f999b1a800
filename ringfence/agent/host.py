"""What an agent needs of its node, checked before anything is touched."""

import ctypes
import fcntl
import os
from pathlib import Path

from ringfence.agent.errors import HostError

# Bits of the capability sets (capabilities(7)).
_CAPABILITIES = {"NET_ADMIN": 12, "SYS_ADMIN": 21, "PERFMON": 38, "BPF": 39}
_BTF = Path("/sys/kernel/btf/vmlinux")
_STATUS = Path("/proc/self/status")


def check() -> None:
    """Raise HostError when a privilege or a kernel feature is missing."""
    if os.geteuid() != 0:
        raise HostError("the agent attaches BPF programs and writes firewall rules: run it as root")
    missing = missing_capabilities(_STATUS.read_text())
    if missing:
        raise HostError(
            f"missing capabilities: {', '.join(missing)}; add them to the container's "
            "securityContext.capabilities.add, or to CapabilityBoundingSet of the service"
        )
    if not _BTF.exists():
        raise HostError(
            f"{_BTF} is missing: the kernel has no type information; "
            "use a kernel built with CONFIG_DEBUG_INFO_BTF=y"
        )


def missing_capabilities(status: str) -> list[str]:
    """Which needed capabilities are not effective, given the text of /proc/self/status."""
    line = next(line for line in status.splitlines() if line.startswith("CapEff:"))
    effective = int(line.split()[1], base=16)
    return [name for name, bit in _CAPABILITIES.items() if not effective >> bit & 1]


def lock(state_directory: Path) -> int:
    """Keep a second agent off the node; returns the lock's descriptor, released on close.

    Raises HostError when another agent holds it.
    """
    try:
        state_directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(state_directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise HostError(f"cannot use the state directory {state_directory}: {error}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise HostError(
            f"another agent runs on this node: it holds {state_directory / 'lock'}; stop it first"
        ) from error
    return descriptor


def give_back_memory() -> None:
    """Let the kernel have what a report took; the C library keeps it otherwise (malloc_trim(3))."""
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)


def health_file(state_dir: Path) -> Path:
    """Touched on every round of a working agent that has its runtime: its age is its health."""
    return state_dir / "health"
