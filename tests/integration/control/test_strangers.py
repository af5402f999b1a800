"""What somebody without a token can make the control plane hold: little."""

from collections.abc import AsyncIterator

import httpx
import pytest

from ringfence.control.app import LARGEST_BODY
from tests.integration.control.conftest import World

PIECE = b"x" * (1 << 20)


async def pieces() -> AsyncIterator[bytes]:
    """A body of unannounced length, a little too large."""
    for _ in range(LARGEST_BODY // len(PIECE) + 1):
        yield PIECE


@pytest.mark.parametrize("announced", [True, False])
async def test_a_body_that_is_too_large_is_refused(world: World, *, announced: bool) -> None:
    content = b"x" * (LARGEST_BODY + 1) if announced else pieces()
    async with httpx.AsyncClient(
        base_url=world.http.base_url, verify=world.verify, trust_env=False
    ) as stranger:
        answer = await stranger.post("/api/v1/enrol", content=content)
    assert answer.status_code == 413, answer.text


async def test_made_up_methods_and_paths_make_no_metrics(world: World) -> None:
    for number in range(3):
        await world.http.request(f"METHOD{number}", f"/path{number}")
    metrics = (await world.http.get("/metrics")).text
    counted = [line for line in metrics.splitlines() if "seconds_count" in line]
    assert len(counted) == 1, counted
    assert 'method="other"' in counted[0]
