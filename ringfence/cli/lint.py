"""`ringfence lint`: what is odd about policies, in files or as the control plane holds them."""

import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from ringfence.cli.client import connect
from ringfence.cli.documents import read_document, read_documents
from ringfence.cli.output import Column, Format, Row, emit, emit_data, tell
from ringfence.model.duration import parse_duration
from ringfence.model.errors import InputError, RingfenceError

app = typer.Typer(add_completion=False)

COLUMNS = [
    Column("FINDING", lambda row: row["kind"]),
    Column("POLICY", lambda row: f"{row['workspace']}/{row['policy']}"),
    Column("WHY", lambda row: row["why"]),
]
WITH_PLACE = [Column("PLACE", lambda row: f"{row['file']}:{row['line']}"), *COLUMNS]


class LintFormat(StrEnum):
    """The forms of -o of findings."""

    TABLE = "table"
    JSON = "json"
    SARIF = "sarif"


@app.command()
def lint(
    files: Annotated[
        list[Path] | None,
        typer.Argument(help="Files, folders, or -; left out, what the control plane holds."),
    ] = None,
    file: Annotated[
        list[Path], typer.Option("--file", "-f", help="The same as an option; repeatable.")
    ] = [],  # noqa: B006
    inventory: Annotated[
        Path | None,
        typer.Option(help="With files: what `ringfence inventory -o json` printed."),
    ] = None,
    workspace: Annotated[
        list[str] | None, typer.Option(help="Judge this one only; repeatable.")
    ] = None,
    unused: Annotated[
        str | None,
        typer.Option(help="Find policies that nothing used in this time, such as 30d; no files."),
    ] = None,
    expiring: Annotated[
        str | None, typer.Option(help="Find policies that expire within this time, such as 14d.")
    ] = None,
    output: Annotated[
        LintFormat, typer.Option("--output", "-o", help="How to print the findings.")
    ] = LintFormat.TABLE,
) -> None:
    """Find policies that are shadowed, redundant, too broad, unused, expired or of nobody.

    Primary workspaces are judged together, for policies of one may decide before those of another.
    With files no server is needed. Without --inventory they are judged for any inventory: told is
    what holds whatever workloads there are. Exit code 2 if there is a finding, or a
    file has nothing in it.

    Examples: ringfence lint --unused 30d

    ringfence lint policies/ --inventory inventory.json -o sarif
    """
    files = [*(files or []), *file]
    if files and unused:
        raise InputError("files do not tell what was used: leave --unused or the files out")
    if inventory and not files:
        raise InputError("--inventory goes with files")
    texts = read_documents(files)
    hollow = [name for name, text in texts if not _says_something(text)]
    for name in hollow:
        tell(f"{name}: there is nothing in it")
    if files:
        rows = _lint_files(texts, inventory, workspace or [], expiring)
    else:
        query = {"workspace": workspace} if workspace else {}
        rows = connect().get("/lint", unused=unused, expiring=expiring, **query)["items"]
    if output is LintFormat.SARIF:
        emit_data(_sarif(rows), Format.JSON)
    else:
        columns = WITH_PLACE if files else COLUMNS
        emit(rows, columns, Format(output), f"nothing {'else ' if hollow else ''}is odd")
    raise typer.Exit(2 if rows or hollow else 0)


def _says_something(text: str) -> bool:
    """Whether there is more in a file than comments."""
    return any(line.partition("#")[0].strip() for line in text.splitlines())


def _lint_files(
    texts: list[tuple[str, str]],
    inventory: Path | None,
    workspaces: list[str],
    expiring: str | None,
) -> list[Row]:
    from ringfence.inventory.recorded import read_inventory  # noqa: PLC0415
    from ringfence.policy.offline import lint_documents  # noqa: PLC0415

    within_ns = parse_duration(expiring) * 10**9 if expiring else 0
    recorded = [read_document(inventory)] if inventory else []
    try:
        items = [one for name, text in recorded for one in read_inventory(text, name).expected()]
        found = lint_documents(
            texts,
            items if inventory else None,
            workspaces,
            now_ns=time.time_ns(),
            within_ns=within_ns,
            note=tell,
        )
    except InputError as error:  # what is wrong in a file is no mistake in the command
        raise RingfenceError(str(error)) from error
    return [
        {
            "file": place.file,
            "line": place.line,
            "kind": str(one.kind),
            "workspace": one.workspace,
            "policy": one.policy,
            "why": one.why,
            "others": list(one.others),
        }
        for place, one in found
    ]


def _sarif(rows: list[Row]) -> dict[str, Any]:
    """SARIF 2.1.0 (OASIS): code hosts show it beside the lines."""
    from ringfence import __version__  # noqa: PLC0415
    from ringfence.policy.finding import ODDITIES  # noqa: PLC0415

    return {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "ringfence",
                        "version": __version__,
                        "rules": [
                            {"id": str(kind), "shortDescription": {"text": text}}
                            for kind, text in ODDITIES.items()
                        ],
                    }
                },
                "results": [_result(row) for row in rows],
            }
        ],
    }


def _result(row: Row) -> dict[str, Any]:
    location: dict[str, Any] = {
        "logicalLocations": [{"fullyQualifiedName": f"{row['workspace']}/{row['policy']}"}]
    }
    if "file" in row:
        location["physicalLocation"] = {
            "artifactLocation": {"uri": quote(Path(row["file"]).as_posix())},
            "region": {"startLine": row["line"]},
        }
    return {
        "ruleId": row["kind"],
        "level": "warning",
        "message": {"text": f"{row['workspace']}/{row['policy']}: {row['why']}"},
        "locations": [location],
    }
