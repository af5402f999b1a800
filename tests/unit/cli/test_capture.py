"""From where `capture replay` reads."""

import os
import subprocess
import sys
from pathlib import Path

from ringfence.cli import capture

READ = "from pathlib import Path; from ringfence.cli.capture import _map; print(_map(Path('-')))"


def test_a_capture_is_read_from_a_pipe_and_from_stdin() -> None:
    end, start = os.pipe()
    os.write(start, b"capture")
    os.close(start)
    assert capture._map(Path(f"/dev/fd/{end}")) == b"capture"
    os.close(end)
    done = subprocess.run(
        [sys.executable, "-c", READ], input=b"capture", stdout=subprocess.PIPE, check=True
    )
    assert done.stdout == b"b'capture'\n"
