"""What an agent makes of a window, without a kernel."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ringfence.agent.agent import Agent
from ringfence.agent.capture import Capture
from ringfence.agent.config import AgentConfig
from ringfence.agent.held import Outcome
from ringfence.agent.plan import Order
from ringfence.agent.pods import node
from ringfence.flows.record import FLOW_DTYPE
from ringfence.kernel.drops import DROP_DTYPE
from ringfence.kernel.errors import KernelError
from ringfence.link.identity import LinkConfig
from ringfence.model.client import ClientKind
from ringfence.model.flow import Loss
from ringfence.wire import batch, columns
from ringfence.wire.generated.agent_pb2 import Audit
from ringfence.wire.limits import MOST_ROWS


def made(directory: Path) -> Agent:
    server, name = "https://127.0.0.1:1", "n1"
    link = LinkConfig(server, directory, directory, directory, ClientKind.AGENT, name)
    return Agent(AgentConfig(link, runtime_socket=None))


def test_drops_of_a_window_whose_flows_cannot_be_told_come_with_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dropped = np.zeros(1, DROP_DTYPE)
    dropped["netns"], dropped["packets"] = node().inode, 7
    told: list[np.ndarray[Any, Any]] = [dropped, np.empty(0, DROP_DTYPE)]
    failures = [KernelError("no more files")]

    def flows(*_: object) -> Iterator[tuple[bytes, bool]]:
        yield b"of the first slice", True
        if failures:
            raise failures.pop()
        yield b"of the second", False

    monkeypatch.setattr(Capture, "drops", lambda _: told.pop(0))
    monkeypatch.setattr(Capture, "audit", lambda _: Audit())
    monkeypatch.setattr(Capture, "take", lambda _: np.empty(0, FLOW_DTYPE))
    monkeypatch.setattr(Capture, "flows", flows)
    agent = made(tmp_path)
    with pytest.raises(KernelError):
        list(agent._reporter.gather(0, 1, last=False))
    batches = list(agent._reporter.gather(1, 2, last=False))
    drops = [batch.decode(batch.DROPS, each.drops) for each in batches]
    assert [table["packets"].to_pylist() for table in drops] == [[], [7]]


def test_more_drops_than_one_report_may_have_come_in_several(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control plane refuses a report with more; a node has a set of drops for each rule."""
    dropped = np.zeros(2 * MOST_ROWS + 1, DROP_DTYPE)
    dropped["netns"], dropped["packets"] = node().inode, 1
    flows = columns.encode(columns.FLOWS, columns.empty(columns.FLOWS))
    monkeypatch.setattr(Capture, "drops", lambda _: dropped)
    monkeypatch.setattr(Capture, "audit", lambda _: Audit())
    monkeypatch.setattr(Capture, "take", lambda _: np.empty(0, FLOW_DTYPE))
    monkeypatch.setattr(Capture, "flows", lambda *_: iter([(flows, False)]))
    agent = made(tmp_path)
    batches = list(agent._reporter.gather(0, 1, last=False))
    assert [each.more for each in batches] == [True, True, False]
    assert len({each.id for each in batches}) == 3
    told = [len(batch.decode(batch.DROPS, each.drops)) for each in batches]
    assert told == [MOST_ROWS, MOST_ROWS, 1]
    assert [len(batch.decode(batch.FLOWS, each.flows)) for each in batches] == [0, 0, 0]


async def test_a_disk_that_takes_nothing_ends_no_agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flows = columns.encode(columns.FLOWS, columns.empty(columns.FLOWS))
    monkeypatch.setattr(Capture, "drops", lambda _: np.empty(0, DROP_DTYPE))
    monkeypatch.setattr(Capture, "audit", lambda _: Audit())
    monkeypatch.setattr(Capture, "take", lambda _: np.empty(0, FLOW_DTYPE))
    monkeypatch.setattr(Capture, "flows", lambda *_: iter([(flows, False)]))
    monkeypatch.setattr(Capture, "done", lambda _: None)
    agent = made(tmp_path / "state")  # which is not there, so that nothing can be written
    agent._tell_health()
    await agent._reporter.keep(agent._reporter.gather(0, 1, last=False))
    (tmp_path / "state" / "window").mkdir(parents=True)  # nor can what is there be taken away
    await agent._reporter.keep(agent._reporter.gather(1, 2, last=False))
    assert agent._spool.lost[Loss.REPORT_NOT_KEPT] == 2


async def test_a_newer_order_waits_for_no_proof_of_an_older_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    older, newer = Order(1, None), Order(2, None)
    agent = made(tmp_path)
    proved: list[Order] = []

    def steps(order: Order, *_: object) -> Iterator[None]:
        for _place in range(2):
            yield
            agent._orders._order = newer  # heard while a namespace is proved
            proved.append(order)

    monkeypatch.setattr(agent._enforcer, "steps", steps)
    agent._orders._order = older
    await agent._enforce()
    assert (proved, agent._enforced) == ([older], 0)
    await agent._enforce()
    assert (proved, agent._enforced) == ([older, newer, newer], 2)


@pytest.mark.parametrize(
    ("heard", "written"),
    [
        pytest.param([7], [7], id="the same, as a new session tells it"),
        pytest.param([8, 8], [7, 8], id="a newer one, told twice"),
        pytest.param([8, 7], [7, 8, 7], id="a newer one, and the one before again"),
    ],
)
async def test_what_is_heard_while_rules_are_proved_is_enforced_to_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, heard: list[int], written: list[int]
) -> None:
    agent = made(tmp_path)
    begun: list[int] = []

    def steps(order: Order, *_: object) -> Iterator[None]:
        begun.append(order.revision)
        if heard:
            agent._orders._order = Order(heard.pop(0), None)
        yield
        agent._enforcer.outcome = Outcome(order.revision, frozenset(), {})

    monkeypatch.setattr(Capture, "know", lambda *_: None)
    monkeypatch.setattr(agent._enforcer, "steps", steps)
    agent._orders._order = Order(7, None)
    look = asyncio.create_task(agent._look())
    try:
        async with asyncio.timeout(20):
            while heard or agent._enforced != written[-1]:
                agent._look_now.set()
                await asyncio.sleep(0.01)
    finally:
        look.cancel()
        await asyncio.gather(look, return_exceptions=True)
    assert begun == written
