"""Where the recorded cases of others are."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
CORPORA = Path(os.environ.get("RINGFENCE_CORPORA", ROOT.parent / "shared" / "corpora"))


def corpus(name: str) -> tuple[Path, pytest.MarkDecorator]:
    """The folder of a corpus, and the mark that skips a test where it is not there."""
    folder = CORPORA / name
    reason = f"no corpus at {folder}: set RINGFENCE_CORPORA"
    return folder, pytest.mark.skipif(not folder.exists(), reason=reason)
