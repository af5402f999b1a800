"""Captures of other projects through the flow program, held against tables made by tshark.

The captures are not in this repository; tests/golden/pcaps/README.md tells where they come from
and where we differ.
"""

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ringfence.cli.capture import app
from tests.kernel.conftest import ROOT

CORPUS = Path(os.environ.get("RINGFENCE_CORPORA", ROOT.parent / "shared" / "corpora")) / "pcaps"
CASES = json.loads((CORPUS / "cases.json").read_text()) if CORPUS.exists() else []

# Broken captures of which we say something else than tshark: who is right is in the README.
DIFFERENT = {
    "tcpdump-ip6_frag_asan",
    "tcpdump-ipv6_invalid_length",
    "tcpdump-ipv6_missing_jumbo_payload_option",
    "zeek-trunc-ip6-ext-trunc",
}

Row = tuple[Any, ...]


def table(rows: list[dict[str, Any]]) -> Counter[Row]:
    columns = ("proto", "src", "sport", "dst", "dport", "packets", "ip_bytes", "tcp_flags_or")
    return Counter(tuple(row.get(name) for name in columns) for row in rows)


@pytest.mark.skipif(not CASES, reason=f"no captures at {CORPUS}: set RINGFENCE_CORPORA")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_replay_agrees_with_tshark(case: dict[str, Any]) -> None:
    options = [word for text in case["decode_as"] for word in ("--decode-as", text)]
    command = ["replay", str(CORPUS / case["file"]), "-o", "json", *options]
    result = CliRunner().invoke(app, command, catch_exceptions=False)
    assert result.exit_code == 0
    ours = json.loads(result.stdout)
    theirs = json.loads((CORPUS / case["expected_file"]).read_text())
    assert ours["frames"] == theirs["frames"]
    assert ours["frame_bytes"] == theirs["frame_bytes"]
    assert ours["truncated_frames"] == theirs["truncated_frames"]
    agrees = all(table(ours[layer]) == table(theirs[layer]) for layer in ("outer", "inner"))
    assert agrees == (case["name"] not in DIFFERENT)
