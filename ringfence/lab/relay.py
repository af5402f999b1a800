"""Reach TCP servers inside the lab from the host's loopback, with no lab address on the host.

``python -m ringfence.lab.relay NETNS PORT=ADDRESS:PORT …`` listens on 127.0.0.1 and connects
inside the network namespace. A socket belongs to the namespace of the thread that creates it,
so one thread lives in the namespace and only makes sockets; the event loop does the rest.
"""

import asyncio
import contextlib
import socket
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ringfence.kernel.netns import enter

_CHUNK = 1 << 16  # bytes


@dataclass(frozen=True)
class Forward:
    """One port of the loopback and where it leads."""

    port: int
    address: str
    target_port: int

    @classmethod
    def parse(cls, text: str) -> "Forward":
        """Read ``PORT=ADDRESS:PORT``."""
        port, _, target = text.partition("=")
        address, _, target_port = target.rpartition(":")
        return cls(int(port), address.strip("[]"), int(target_port))

    def __str__(self) -> str:
        """Return the text that ``parse`` reads."""
        address = f"[{self.address}]" if ":" in self.address else self.address
        return f"{self.port}={address}:{self.target_port}"


async def serve(netns: str, forwards: Sequence[Forward]) -> None:
    """Relay until cancelled."""
    with ThreadPoolExecutor(1, initializer=enter, initargs=(Path(netns),)) as makers:
        async with contextlib.AsyncExitStack() as stack:
            for forward in forwards:
                handle = partial(_relay, makers, forward)
                server = await asyncio.start_server(handle, "127.0.0.1", forward.port)
                await stack.enter_async_context(server)
            await asyncio.Event().wait()


async def _relay(
    makers: ThreadPoolExecutor,
    forward: Forward,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> None:
    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if ":" in forward.address else socket.AF_INET
    far = await loop.run_in_executor(makers, socket.socket, family, socket.SOCK_STREAM)
    far.setblocking(False)
    try:
        await loop.sock_connect(far, (forward.address, forward.target_port))
        far_reader, far_writer = await asyncio.open_connection(sock=far)
    except OSError:
        far.close()
        writer.close()
        return
    await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy one direction to its end, and pass the end on."""
    try:
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass  # either side may vanish at any time; closing tells the other
    finally:
        writer.close()


def main() -> None:
    """Run the relay that the command line describes."""
    netns, *forwards = sys.argv[1:]
    asyncio.run(serve(netns, [Forward.parse(f) for f in forwards]))


if __name__ == "__main__":
    main()
