"""The lab's record is read back as it was written."""

from pathlib import Path

from ringfence.lab.config import Cni
from ringfence.lab.processes import Process
from ringfence.lab.state import State, load


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    assert load(path) is None
    state = State(path, 3, Cni.OVERLAY, sysctls={"kernel.panic": "0"}, directories=["/run/netns"])
    state.add_init("node1", Process("node1/init", 7, 70))
    state.add(Process("relay", 8, 80))
    assert load(path) == state
