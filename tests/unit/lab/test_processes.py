"""A recorded process is known again, and a reused pid is not taken for it."""

import os
import subprocess
from dataclasses import replace

from ringfence.lab.processes import Process, identify, kill


def test_kill_ends_the_recorded_process_and_spares_a_reused_pid() -> None:
    with subprocess.Popen(["sleep", "60"]) as sleeper:
        process = identify("sleep", sleeper.pid)
        assert process.alive
        stranger = replace(process, started=process.started - 1)
        assert not stranger.alive
        assert kill([stranger]) == []
        assert process.alive
        assert kill([process]) == []
        # A zombie until its parent waits for it, which the end of the block does.
        assert not process.alive


def test_a_process_that_is_gone_is_not_alive() -> None:
    done = subprocess.Popen(["true"])
    done.wait()
    assert not identify("true", done.pid).alive
    assert not Process("", os.getpid(), -1).alive
