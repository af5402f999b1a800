"""What the embedded flow store takes of memory, and what it does where there is no more disk."""

import json
import re
import subprocess
import sys
from pathlib import Path

MEMORY_MIB = 1024


def test_memory_stays_within_its_bound_under_readers_and_writers(tmp_path: Path) -> None:
    script = [sys.executable, "-m", "tests.integration.store.hold_under_load"]
    words = [*script, str(tmp_path), str(MEMORY_MIB), "15"]
    ran = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True)
    grown, inserted, answered = (int(word) for word in ran.stdout.split())
    assert grown <= MEMORY_MIB
    assert inserted > 1
    assert answered > 1


def test_a_disk_that_is_full_refuses_and_loses_nothing(tmp_path: Path) -> None:
    script = [sys.executable, "-m", "tests.integration.store.fill_disk", str(tmp_path)]
    ran = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", *script],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    told = json.loads(ran.stdout)
    assert re.search("(?i)not enough space|no space left", told.pop("said")), "it says why"
    assert told.pop("stored") > 2
    assert told == {
        "readable": True,
        "kept": True,
        "whole": True,
        "kept after a restart": True,
    }
