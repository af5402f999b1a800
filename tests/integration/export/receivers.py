"""Programs of others that take exports in, each as a process of its own."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path


def free_port(kind: socket.SocketKind) -> int:
    """A port of loopback that nobody holds."""
    with socket.socket(socket.AF_INET, kind) as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


@contextlib.asynccontextmanager
async def running(log: Path, *argv: str | Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """A program until the end of the block, what it says in a file."""
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(*argv, stdout=output, stderr=output)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def until(true: Callable[[], bool] | Callable[[], Awaitable[bool]]) -> None:
    """Wait for something, half a minute at most."""
    for _ in range(600):
        found = true()
        if found if isinstance(found, bool) else await found:
            return
        await asyncio.sleep(0.05)
    raise TimeoutError("it did not come to that")


def said(log: Path, word: str) -> Callable[[], bool]:
    """Whether a program has said something."""
    return lambda: log.exists() and word in log.read_text()
