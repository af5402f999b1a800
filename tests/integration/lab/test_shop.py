"""The shop's program on loopback: a page answers 200 only if every call behind it was answered."""

import asyncio
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from ringfence.lab.shop import manifests, program
from ringfence.lab.shop.program import CallError, call


@contextmanager
def _playing(part: str, config: dict[str, Any]) -> Iterator[None]:
    """Run the program in a process of its own, as the shop does."""
    argv = [sys.executable, program.__file__, part, json.dumps(config)]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.terminate()


@contextmanager
def _serving(**config: Any) -> Iterator[str]:
    """Run a service on a free port of loopback; yields its host and port."""
    port = _free_port()
    with _playing("service", {"listen": port, **config}):
        deadline = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except ConnectionRefusedError:
                assert time.monotonic() < deadline
                time.sleep(0.02)
        yield f"127.0.0.1:{port}"


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


async def test_a_page_stands_and_falls_with_the_calls_behind_it() -> None:
    with _serving(protocol="line") as db:
        pages = {"/": [f"tcp://{db}"], "/other": []}
        with _serving(protocol="http", pages=pages) as shop:
            await call(f"http://{shop}/")
            await call(f"http://{shop}/health")
            with pytest.raises(CallError, match="404"):
                await call(f"http://{shop}/nothing")
            dead = _free_port()
            broken = {"*": [f"tcp://{db}", f"tcp://127.0.0.1:{dead}"]}
            with _serving(protocol="http", pages=broken) as front:
                with pytest.raises(CallError, match="503"):
                    await call(f"http://{front}/any")
                await call(f"http://{front}/health")


async def test_a_kept_connection_is_part_of_every_page() -> None:
    with _serving(protocol="line") as db:
        keep = [f"tcp://{db}"]
        with _serving(protocol="http", pages={"*": []}, keep=keep) as shop:
            async with asyncio.timeout(5):
                while True:
                    try:
                        await call(f"http://{shop}/")
                    except CallError:  # not open yet
                        await asyncio.sleep(0.01)
                    else:
                        break
    dead = f"tcp://127.0.0.1:{_free_port()}"
    with (
        _serving(protocol="http", pages={"*": []}, keep=[dead]) as shop,
        pytest.raises(CallError, match="503"),
    ):
        await call(f"http://{shop}/")


def test_load_counts_what_it_opened(tmp_path: Path) -> None:
    dead = f"127.0.0.1:{_free_port()}"
    file = tmp_path / "load.json"
    with _serving(protocol="http", pages={"/": []}) as shop:
        config = {"targets": [shop, dead], "pages": ["/"], "rate": 100, "counters": str(file)}
        with _playing("load", config):
            deadline = time.monotonic() + 10
            while not file.exists() or json.loads(file.read_text())["targets"][dead]["failed"] < 5:
                assert time.monotonic() < deadline
                time.sleep(0.1)
    counts = json.loads(file.read_text())["targets"]
    assert counts[shop]["answered"] >= 5
    assert counts[shop]["failed"] == 0
    assert counts[dead]["answered"] == 0


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
