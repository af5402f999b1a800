"""What an agent makes of a window, without a kernel."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ringfence.agent.agent import Agent
from ringfence.agent.capture import Capture
from ringfence.agent.config import AgentConfig
from ringfence.agent.pods import node
from ringfence.flows.record import FLOW_DTYPE
from ringfence.kernel.drops import DROP_DTYPE
from ringfence.kernel.errors import KernelError
from ringfence.link.identity import LinkConfig
from ringfence.model.client import ClientKind
from ringfence.wire import batch
from ringfence.wire.generated.agent_pb2 import Audit


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
    link = LinkConfig("https://127.0.0.1:1", tmp_path, tmp_path, tmp_path, ClientKind.AGENT, "n1")
    agent = Agent(AgentConfig(link, runtime_socket=None))
    with pytest.raises(KernelError):
        list(agent._gather(0, 1, last=False))
    batches = list(agent._gather(1, 2, last=False))
    drops = [batch.decode(batch.DROPS, each.drops) for each in batches]
    assert [table["packets"].to_pylist() for table in drops] == [[], [7]]
