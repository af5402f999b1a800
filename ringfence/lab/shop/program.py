"""Every process of the shop: servers, load generator, intruder. Standard library only.

One program plays all the parts, so that the shop's image is small and starts quickly; its JSON
configuration says which part. It logs JSON lines. Calls are written as URLs:

- ``http://HOST:PORT/PATH`` must answer 200;
- ``tcp://HOST:PORT`` is a database: it answers each line with a line that starts with OK.
"""

import asyncio
import contextlib
import ipaddress
import itertools
import json
import os
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

CALL_TIMEOUT = 3.0  # seconds for one call, with name resolution and connection
SCAN_TIMEOUT = 1.0  # seconds for one connection of the intruder
EXCHANGE_INTERVAL = 1.0  # seconds between two exchanges on a kept connection
REPORT_INTERVAL = 10.0  # seconds between two reports of a kept connection

Reader = asyncio.StreamReader
Writer = asyncio.StreamWriter


class CallError(Exception):
    """A call that was not answered as it should be."""


def log(event: str, **fields: Any) -> None:
    """Write one JSON line."""
    print(json.dumps({"time": round(time.time(), 3), "event": event, **fields}), flush=True)


async def call(url: str) -> None:
    """Make one call on a connection of its own; raises CallError."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    port = parts.port or 80
    try:
        async with asyncio.timeout(CALL_TIMEOUT):
            reader, writer = await asyncio.open_connection(parts.hostname, port)
            try:
                if parts.scheme == "http":
                    await get(reader, writer, parts.hostname, parts.path or "/")
                else:
                    await ask(reader, writer)
            finally:
                writer.close()
    except (OSError, asyncio.IncompleteReadError) as error:
        raise CallError(f"{url}: {type(error).__name__} {error}".strip()) from error


async def get(reader: Reader, writer: Writer, host: str, path: str) -> None:
    """Make an HTTP/1.1 request and read the answer to its end."""
    writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    await writer.drain()
    answer = (await reader.read()).decode(errors="replace")
    status = answer.split(" ", 2)[1:2]
    if status != ["200"]:
        raise CallError(f"http://{host}{path}: {' '.join(status) or 'no answer'}")


async def ask(reader: Reader, writer: Writer) -> None:
    """Make one exchange of the line protocol."""
    writer.write(b"GET item\n")
    await writer.drain()
    line = await reader.readline()
    if not line.startswith(b"OK"):
        raise ConnectionResetError("the connection was closed")


@dataclass
class KeptConnection:
    """A connection that stays open and keeps exchanging; it reports when it is lost."""

    url: str
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    _streams: tuple[Reader, Writer] | None = None
    _exchanges: int = 0

    async def exchange(self) -> None:
        """Make one exchange on the open connection; raises CallError."""
        async with self._lock:
            if self._streams is None:
                raise CallError(f"{self.url}: not connected")
            try:
                async with asyncio.timeout(CALL_TIMEOUT):
                    await ask(*self._streams)
            except OSError as error:
                self._streams[1].close()
                self._streams = None
                raise CallError(f"{self.url}: {type(error).__name__} {error}") from error
            self._exchanges += 1

    async def run(self) -> None:
        """Keep the connection open for ever."""
        parts = urlsplit(self.url)
        while True:
            with contextlib.suppress(OSError):
                async with asyncio.timeout(CALL_TIMEOUT):
                    streams = await asyncio.open_connection(parts.hostname, parts.port)
                self._streams, self._exchanges = streams, 0
                local = "{}:{}".format(*streams[1].get_extra_info("sockname")[:2])
                log("opened", url=self.url, local=local)
                await self._keep(local)
            await asyncio.sleep(EXCHANGE_INTERVAL)

    async def _keep(self, local: str) -> None:
        reported = time.monotonic()
        while True:
            try:
                await self.exchange()
            except CallError as error:
                log("lost", url=self.url, local=local, exchanges=self._exchanges, why=str(error))
                return
            if time.monotonic() - reported >= REPORT_INTERVAL:
                reported = time.monotonic()
                log("kept", url=self.url, local=local, exchanges=self._exchanges)
            await asyncio.sleep(EXCHANGE_INTERVAL)


class Service:
    """A server of the shop.

    Configuration: ``listen`` is its port; ``protocol`` is http or line; ``pages`` maps each path
    (``*`` for all others) to the calls that it makes; ``keep`` lists connections to keep open,
    which every page but the health check uses too.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        self._port: int = config["listen"]
        self._http: bool = config["protocol"] == "http"
        self._pages: dict[str, list[str]] = config.get("pages", {})
        self._kept = [KeptConnection(url) for url in config.get("keep", [])]

    async def run(self) -> None:
        """Serve for ever."""
        handle = self._serve_http if self._http else self._serve_lines
        server = await asyncio.start_server(handle, None, self._port, backlog=512)
        log("listening", port=self._port)
        async with server, asyncio.TaskGroup() as group:
            for kept in self._kept:
                group.create_task(kept.run())
            await server.serve_forever()

    async def _serve_lines(self, reader: Reader, writer: Writer) -> None:
        with contextlib.suppress(OSError):
            for number in itertools.count(1):
                if not await reader.readline():
                    break
                writer.write(f"OK {number}\n".encode())
                await writer.drain()
        writer.close()

    async def _serve_http(self, reader: Reader, writer: Writer) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, IndexError):
            request = (await reader.readuntil(b"\r\n\r\n")).decode()
            status, text = await self._page(request.split(" ", 2)[1])
            head = f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nConnection: close\r\n"
            writer.write(f"{head}Content-Length: {len(text)}\r\n\r\n{text}".encode())
            await writer.drain()
        writer.close()

    async def _page(self, path: str) -> tuple[str, str]:
        if path == "/health":
            return "200 OK", "ok\n"
        calls = self._pages.get(path, self._pages.get("*"))
        if calls is None:
            return "404 Not Found", "no such page\n"
        work = [call(url) for url in calls] + [kept.exchange() for kept in self._kept]
        results = await asyncio.gather(*work, return_exceptions=True)
        failures = [str(r) for r in results if isinstance(r, CallError)]
        if not failures:
            return "200 OK", "ok\n"
        for failure in failures:
            log("failed", path=path, why=failure)
        return "503 Service Unavailable", "\n".join(failures) + "\n"


class Load:
    """The load generator: walks the pages on every target, and counts its own connections.

    Configuration: ``targets`` (host:port), ``pages``, ``rate`` (requests a second in all) and
    ``counters``, the JSON file that it rewrites for each. Each request is a connection. While a
    file beside it with the suffix ``.pause`` exists, no request starts.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        self._targets: list[str] = config["targets"]
        self._pages: list[str] = config["pages"]
        self._interval = 1 / config["rate"]
        self._file = Path(config["counters"])
        self._pause = self._file.with_suffix(".pause")
        self._counts = {t: Counter(opened=0, answered=0, failed=0) for t in self._targets}
        self._failures: Counter[str] = Counter()
        self._started = time.time()

    async def run(self) -> None:
        """Load for ever, at a steady rate whatever the answers take."""
        walk = itertools.cycle([(t, p) for p in self._pages for t in self._targets])
        async with asyncio.TaskGroup() as requests:
            for target, page in walk:
                if not self._pause.exists():
                    requests.create_task(self._request(target, page))
                await asyncio.sleep(self._interval)

    async def _request(self, target: str, page: str) -> None:
        counts = self._counts[target]
        counts["opened"] += 1
        self._write()
        try:
            await call(f"http://{target}{page}")
        except CallError as error:
            counts["failed"] += 1
            self._failures[page] += 1
            log("failed", page=page, why=str(error))
        else:
            counts["answered"] += 1

    def _write(self) -> None:
        content = {
            "started": self._started,
            "updated": time.time(),
            "targets": self._counts,
            "failures": self._failures,
        }
        temporary = self._file.with_suffix(".new")
        temporary.write_text(json.dumps(content, indent=1))
        temporary.rename(self._file)


class Intruder:
    """What no application should do: scans its neighbours and calls a database directly.

    Configuration: ``ports`` to scan, ``calls`` to make, ``interval`` in seconds between rounds.
    Names are resolved once, so that a later refusal concerns the connection itself.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        self._ports: list[int] = config["ports"]
        self._calls: list[str] = config["calls"]
        self._interval: float = config["interval"]

    async def run(self) -> None:
        """Intrude for ever, and log the result of each try."""
        own = ipaddress.ip_address(os.environ["POD_IP"])
        neighbours = ipaddress.ip_network(f"{own}/28", strict=False).hosts()
        scanned = [(str(n), p) for n in neighbours if n != own for p in self._ports]
        called = [await self._resolve(url) for url in self._calls]
        async with asyncio.TaskGroup() as group:
            group.create_task(self._repeat("call", called))
            group.create_task(self._repeat("scan", scanned))

    async def _resolve(self, url: str) -> tuple[str, int]:
        parts = urlsplit(url)
        loop = asyncio.get_running_loop()
        while True:
            with contextlib.suppress(OSError):
                found = await loop.getaddrinfo(parts.hostname, parts.port, type=socket.SOCK_STREAM)
                return str(found[0][4][0]), int(found[0][4][1])
            await asyncio.sleep(EXCHANGE_INTERVAL)

    async def _repeat(self, event: str, targets: Sequence[tuple[str, int]]) -> None:
        while True:
            for host, port in targets:
                log(event, target=f"{host}:{port}", result=await self._try(host, port))
            await asyncio.sleep(self._interval)

    async def _try(self, host: str, port: int) -> str:
        try:
            async with asyncio.timeout(SCAN_TIMEOUT):
                _, writer = await asyncio.open_connection(host, port)
        except TimeoutError:
            return "timeout"
        except ConnectionRefusedError:
            return "refused"
        except OSError:
            return "unreachable"
        writer.close()
        return "connected"


PARTS: dict[str, Callable[[dict[str, Any]], Service | Load | Intruder]] = {
    "service": Service,
    "load": Load,
    "intruder": Intruder,
}


def main() -> None:
    """Play the part that the first argument names, as the second (JSON) configures it."""
    part, config = sys.argv[1:]
    work: Awaitable[None] = PARTS[part](json.loads(config)).run()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_until_stopped(work))


async def _until_stopped(work: Awaitable[None]) -> None:
    """Run until SIGTERM, which a process with pid 1 must handle to be stoppable."""
    task = asyncio.ensure_future(work)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await task


if __name__ == "__main__":
    main()
