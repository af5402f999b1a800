"""Where `flows export` writes, and what it says where it cannot."""

import subprocess
import sys
from pathlib import Path

import pytest

from ringfence.cli.files import FileError, opened

TO_STDOUT = """
from ringfence.cli.files import FileError, opened
try:
    with opened(None) as sink:
        sink.write(b"flow")
except FileError as error:
    raise SystemExit(str(error))
"""


def test_a_full_disk_behind_stdout_is_said_in_a_line() -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-c", TO_STDOUT], stdout=full, stderr=subprocess.PIPE, check=False
        )
    said = "cannot write stdout: No space left on device\n"
    assert (done.returncode, done.stderr.decode()) == (1, said)


def test_a_file_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "flows"
    with opened(file) as sink:
        sink.write(b"flow")
        assert not file.exists()
    assert file.read_bytes() == b"flow"
    with pytest.raises(FileError, match="No such file"), opened(tmp_path / "none" / "flows"):
        pass
    assert list(tmp_path.iterdir()) == [file]
