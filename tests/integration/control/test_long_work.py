"""Work that takes long keeps nobody else waiting."""

import asyncio
import importlib
import threading
from typing import Any

import pytest

from ringfence.inventory.as_known import FOREVER, AsKnown
from ringfence.inventory.snapshot import Snapshot
from tests.integration.control.conftest import World
from tests.integration.control.test_analyses import Watched, watched  # noqa: F401
from tests.unit.control.shop import DOCUMENTS


def files(text: str) -> dict[str, Any]:
    """What apply takes."""
    return {"files": [{"name": "shop.yaml", "documents": text}]}


CHANGED = files(DOCUMENTS.replace("3306", "3307"))
ENFORCED = {"workspaces": [{"name": "shop"}]}


@pytest.mark.parametrize(
    ("path", "given", "work"),
    [
        (
            "/why",
            {"source": "192.0.2.1", "destination": "192.0.2.2", "protocol": "ICMP"},
            "ringfence.control.why.why",
        ),
        ("/analysis", {"workspace": "shop"}, "ringfence.control.api.analysis.records"),
        ("/flows", {}, "ringfence.control.api.flow_search.disposed"),
        ("/labels", {}, "ringfence.control.api.labels._response"),
        ("/scopes", {}, "ringfence.control.api.scopes.overlaps"),
        ("/apply", CHANGED, "ringfence.control.api.documents.read_files"),
        ("/apply", CHANGED, "ringfence.control.api.documents.decide"),
        ("/apply", CHANGED, "ringfence.control.writing.format_documents"),
        ("/scopes/preview", CHANGED, "ringfence.control.api.scope_preview.decide"),
        ("/workspaces/shop/rollback", {"version": 1}, "ringfence.control.api.versions.decide"),
        ("/enforcement", ENFORCED, "ringfence.control.planning.affected"),
    ],
)
async def test_others_are_served_meanwhile(
    world: World, monkeypatch: pytest.MonkeyPatch, path: str, given: dict[str, Any], work: str
) -> None:
    await world.ok("POST", "/apply", json=files(DOCUMENTS))
    await world.ok("POST", "/labels", json={"items": [{"address": "192.0.2.0/24"}]})
    module, _, name = work.rpartition(".")
    real = getattr(importlib.import_module(module), name)
    begun, served = threading.Event(), threading.Event()

    def slow(*given: Any) -> Any:
        begun.set()
        assert served.wait(10), "nobody else was served"
        return real(*given)

    monkeypatch.setattr(work, slow)
    posted = path in {"/apply", "/scopes/preview", "/workspaces/shop/rollback", "/enforcement"}
    asked = asyncio.create_task(
        world.ok("POST", path, json=given) if posted else world.ok("GET", path, params=given)
    )
    await asyncio.to_thread(begun.wait, 10)
    assert (await world.http.get("/healthz")).is_success
    served.set()
    await asked


@pytest.mark.parametrize(
    ("path", "given"),
    [
        ("/inventory", {"at": "1s"}),
        ("/analysis", {"workspace": "shop"}),
        ("/what-if", {"workspace": "shop"}),
        ("/discover", {"scope": "shop", "since": "1h"}),
    ],
)
async def test_others_are_served_while_the_past_is_looked_up(
    watched: Watched,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    given: dict[str, Any],
) -> None:
    world = watched.world
    await watched.report(passed=(3306,))
    begun, served = threading.Event(), threading.Event()
    at, between = AsKnown.at, AsKnown.between

    def wait() -> None:
        begun.set()
        assert served.wait(10), "nobody else was served"

    def slow_at(self: AsKnown, t_ns: int) -> Snapshot:
        if t_ns < FOREVER - 1:
            wait()
        return at(self, t_ns)

    def slow_between(self: AsKnown, since_ns: int, until_ns: int) -> Snapshot:
        wait()
        return between(self, since_ns, until_ns)

    monkeypatch.setattr(AsKnown, "at", slow_at)
    monkeypatch.setattr(AsKnown, "between", slow_between)
    asked = asyncio.create_task(
        world.ok("POST", path, json=given)
        if path == "/discover"
        else world.ok("GET", path, params=given)
    )
    assert await asyncio.to_thread(begun.wait, 10)
    assert (await world.http.get("/healthz")).is_success
    served.set()
    await asked
