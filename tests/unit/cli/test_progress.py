"""Progress where there is no terminal: plain lines, and the time of each step."""

import re

import pytest

from ringfence.cli.progress import shown


def test_steps_are_told_and_timed(capsys: pytest.CaptureFixture[str]) -> None:
    with shown() as progress:
        with progress.step("Build") as note:
            note("too soon to be told")
        with pytest.raises(ValueError, match="no"), progress.step("[Break]"):
            raise ValueError("no")
    said = re.sub(r"\d+\.\d s", "N s", capsys.readouterr().err)
    assert said.splitlines() == [
        "Build …",
        "Build: done after N s",
        "[Break] …",
        "[Break]: failed after N s",
    ]
    assert [title for title, _ in progress.times] == ["Build"]
