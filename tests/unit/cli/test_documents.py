"""What is printed of changes."""

import pytest

from ringfence.cli.documents import print_changes
from ringfence.control.apply import decide, read_files
from tests.unit.control.shop import DOCUMENTS


def test_descriptions_are_only_counted(capsys: pytest.CaptureFixture[str]) -> None:
    held = read_files([("held", DOCUMENTS)])
    text = DOCUMENTS.replace("3306", "3307").replace(
        "    protocol", "    description: since Monday\n    protocol"
    )
    (change,) = (
        one for one in decide(held, read_files([("given", text)])) if one.kind == "Workspace"
    )
    lines = list(change.lines)
    assert len(lines) == 2
    row = {"kind": "Workspace", "name": "shop", "change": "changed", "diff": lines}
    print_changes([row])
    assert capsys.readouterr().out.splitlines() == [
        "Workspace shop: changed",
        "  ~ policy front-to-db, ports: [3306] → [3307]",
        "  1 description changes",
    ]
