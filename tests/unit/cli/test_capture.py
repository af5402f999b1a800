"""From where `capture replay` reads."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ringfence.cli import capture
from ringfence.cli.output import Column, Format, emit

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


@pytest.mark.parametrize("columns", [capture._ONE_WAY, capture._TWO_WAY])
def test_each_heading_of_csv_stands_once(
    columns: list[Column], capsys: pytest.CaptureFixture[str]
) -> None:
    emit([], columns, Format.CSV)
    (headings,) = csv.reader(capsys.readouterr().out.splitlines())
    assert len(set(headings)) == len(headings)
