"""Tables, and what hostile names do to them."""

import json

import pytest

from ringfence.cli.output import Column, Format, emit, human_bytes

COLUMNS = [
    Column("NAME", lambda row: row["name"]),
    Column("COUNT", lambda row: row["count"], right=True),
    Column("MORE", lambda row: row["more"], wide=True),
]
ROWS = [{"name": "carts", "count": 7, "more": "a|b"}, {"name": "db", "count": 1234, "more": None}]


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        (Format.TABLE, "NAME   COUNT\ncarts      7\ndb      1234\n"),
        (Format.WIDE, "NAME   COUNT  MORE\ncarts      7  a|b\ndb      1234\n"),
        (Format.CSV, "NAME,COUNT,MORE\ncarts,7,a|b\ndb,1234,\n"),
        (
            Format.MD,
            (
                "| NAME | COUNT | MORE |\n| --- | --: | --- |\n"
                "| carts | 7 | a\\|b |\n| db | 1234 |  |\n"
            ),
        ),
    ],
)
def test_forms(form: Format, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    emit(ROWS, COLUMNS, form)
    assert capsys.readouterr().out == expected


@pytest.mark.parametrize("form", [Format.JSON, Format.JSONL])
def test_data_forms_keep_everything(form: Format, capsys: pytest.CaptureFixture[str]) -> None:
    emit(ROWS, COLUMNS, form)
    out = capsys.readouterr().out
    read = json.loads(out) if form is Format.JSON else [json.loads(x) for x in out.splitlines()]
    assert read == ROWS


@pytest.mark.parametrize("form", Format)
def test_control_characters_never_reach_the_terminal(
    form: Format, capsys: pytest.CaptureFixture[str]
) -> None:
    emit([{"name": "a\x1b[2Jb\n\x9b\u202e", "count": 1, "more": ""}], COLUMNS, form)
    assert not set("\x1b\x9b\u202e") & set(capsys.readouterr().out)


def test_markdown_cells_stay_one_cell(capsys: pytest.CaptureFixture[str]) -> None:
    emit([{"name": "x\\|<b>y", "count": 1, "more": ""}], COLUMNS, Format.MD)
    assert "| x&#92;\\|&lt;b>y | 1 |" in capsys.readouterr().out


def test_nothing_to_show_is_said_beside_the_data(capsys: pytest.CaptureFixture[str]) -> None:
    emit([], COLUMNS, Format.TABLE, "no flow matches")
    assert capsys.readouterr() == ("", "no flow matches\n")


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (3 << 40, "3.0 TiB")]
)
def test_human_bytes(count: int, text: str) -> None:
    assert human_bytes(count) == text
