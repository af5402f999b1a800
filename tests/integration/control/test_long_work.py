"""Work that takes long keeps nobody else waiting."""

import asyncio
import importlib
import threading
from typing import Any

import pytest

from tests.integration.control.conftest import World
from tests.unit.control.shop import DOCUMENTS


@pytest.mark.parametrize(
    ("path", "query", "work"),
    [
        (
            "/why",
            {"source": "192.0.2.1", "destination": "192.0.2.2", "protocol": "ICMP"},
            "ringfence.control.why.why",
        ),
        ("/analysis", {"workspace": "shop"}, "ringfence.control.api.analysis.records"),
        ("/flows", {}, "ringfence.control.api.flow_search.disposed"),
        ("/labels", {}, "ringfence.control.api.labels._response"),
    ],
)
async def test_others_are_served_meanwhile(
    world: World, monkeypatch: pytest.MonkeyPatch, path: str, query: dict[str, str], work: str
) -> None:
    files = {"files": [{"name": "shop.yaml", "documents": DOCUMENTS}]}
    await world.ok("POST", "/apply", json=files)
    await world.ok("POST", "/labels", json={"items": [{"address": "192.0.2.0/24"}]})
    module, _, name = work.rpartition(".")
    real = getattr(importlib.import_module(module), name)
    begun, served = threading.Event(), threading.Event()

    def slow(*given: Any) -> Any:
        begun.set()
        assert served.wait(10), "nobody else was served"
        return real(*given)

    monkeypatch.setattr(work, slow)
    asked = asyncio.create_task(world.ok("GET", path, params=query))
    await asyncio.to_thread(begun.wait, 10)
    assert (await world.http.get("/healthz")).is_success
    served.set()
    await asked
