"""The lab as the end-to-end tests use it: through the command line, as an operator does."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ringfence.cli.client import CHOICE

COMMAND = str(Path(sys.executable).parent / "ringfence")
_ENVIRONMENT = {**os.environ, CHOICE: "lab"}  # the lab is meant, whoever is logged in elsewhere


class Lab:
    """A running lab with its shop."""

    def kubectl(self, *argv: str) -> str:
        return ringfence("lab", "kubectl", *argv)

    def get(self, *argv: str) -> Any:
        return json.loads(self.kubectl("get", "-o", "json", *argv))

    def on(self, machine: str, *argv: str) -> str:
        return ringfence("lab", "exec", machine, "--", *argv)

    def in_pod(self, deployment: str, code: str) -> str:
        """Run Python in a pod of the shop."""
        target = f"deploy/{deployment}"
        return self.kubectl("exec", "-n", "sock-shop", target, "--", "python3", "-c", code)

    def events(self, target: str) -> list[dict[str, Any]]:
        """The JSON lines that a process of the shop logged."""
        lines = self.kubectl("logs", "-n", "sock-shop", target, "--tail=-1").splitlines()
        return [json.loads(line) for line in lines]

    def status(self) -> Any:
        return json.loads(ringfence("lab", "status", "-o", "json"))


def run(*argv: str) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end, which need not be a good one."""
    command = [COMMAND, *argv]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=_ENVIRONMENT)


def ringfence(*argv: str) -> str:
    """Run the command line to its good end and return its stdout."""
    done = run(*argv)
    assert done.returncode == 0, f"ringfence {' '.join(argv)}:\n{done.stderr}"
    return done.stdout


def until(what: str, holds: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"waited {seconds} s in vain until {what}"
        time.sleep(0.5)
