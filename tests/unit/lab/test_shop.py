"""The shop's program on loopback: a page answers 200 only if every call behind it was answered."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from ringfence.lab.shop import manifests
from ringfence.lab.shop.program import CallError, Load, Service, call


@asynccontextmanager
async def _serving(**config: Any) -> AsyncIterator[str]:
    """Run a service on a free port of loopback; yields its host and port."""
    port = await _free_port()
    task = asyncio.create_task(Service({"listen": port, **config}).run())
    try:
        await _until_open(port)
        yield f"127.0.0.1:{port}"
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _free_port() -> int:
    async with await asyncio.start_server(lambda _r, _w: None, "127.0.0.1", 0) as server:
        return int(server.sockets[0].getsockname()[1])


async def _until_open(port: int) -> None:
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.01)
        else:
            writer.close()
            return


async def test_a_page_stands_and_falls_with_the_calls_behind_it() -> None:
    async with _serving(protocol="line") as db:
        pages = {"/": [f"tcp://{db}"], "/other": []}
        async with _serving(protocol="http", pages=pages) as shop:
            await call(f"http://{shop}/")
            await call(f"http://{shop}/health")
            with pytest.raises(CallError, match="404"):
                await call(f"http://{shop}/nothing")
            dead = await _free_port()
            broken = {"*": [f"tcp://{db}", f"tcp://127.0.0.1:{dead}"]}
            async with _serving(protocol="http", pages=broken) as front:
                with pytest.raises(CallError, match="503"):
                    await call(f"http://{front}/any")
                await call(f"http://{front}/health")


async def test_a_kept_connection_is_part_of_every_page() -> None:
    async with _serving(protocol="line") as db:
        keep = [f"tcp://{db}"]
        async with _serving(protocol="http", pages={"*": []}, keep=keep) as shop:
            async with asyncio.timeout(5):
                while True:
                    try:
                        await call(f"http://{shop}/")
                    except CallError:  # not open yet
                        await asyncio.sleep(0.01)
                    else:
                        break
    dead = f"tcp://127.0.0.1:{await _free_port()}"
    async with _serving(protocol="http", pages={"*": []}, keep=[dead]) as shop:
        with pytest.raises(CallError, match="503"):
            await call(f"http://{shop}/")


async def test_load_counts_what_it_opened(tmp_path: Path) -> None:
    dead = f"127.0.0.1:{await _free_port()}"
    async with _serving(protocol="http", pages={"/": []}) as shop:
        file = tmp_path / "load.json"
        config = {"targets": [shop, dead], "pages": ["/"], "rate": 100, "counters": str(file)}
        load = Load(config)
        task = asyncio.create_task(load.run())
        await asyncio.sleep(0.3)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert load._counts[shop]["answered"] > 5
        assert load._counts[shop]["failed"] == 0
        assert load._counts[dead]["answered"] == 0
        assert load._counts[dead]["failed"] > 5


def test_every_call_leads_to_a_service_of_the_shop() -> None:
    external = IPv4Address("203.0.113.10")
    services = manifests.services(external)
    served = {s.name: s.service_port or s.port for s in services}
    served |= {"user-db-direct": 27017, str(external): manifests.EXTERNAL_PORT}
    for service in services:
        calls = [url for urls in (service.pages or {}).values() for url in urls]
        for url in [*calls, *service.keep]:
            parts = urlsplit(url)
            assert served[parts.hostname or ""] == (parts.port or 80), f"{service.name}: {url}"
