"""`ringfence analyze --if-enforced` of files: as the control plane answers it of live traffic."""

import asyncio
from typing import Any

from ringfence.cli.analysis_files import VERSION, FilesAsked
from ringfence.cli.output import Format, emit_data, emit_text, tell
from ringfence.cli.what_if import accepted, numbered, unhelped
from ringfence.control.api.what_if import amended_document, what_if_response
from ringfence.control.what_if import what_if
from ringfence.flows.recorded import dispositions
from ringfence.policy.document import format_documents, parse_documents
from ringfence.policy.yaml_text import dump_all


def what_if_files(asked: FilesAsked) -> dict[str, Any]:
    """What the workspace would block of the flows that passed, each with its `number` from 1."""
    made = asked.workspace, VERSION
    found = what_if(
        asked.seen, dispositions(asked.seen), asked.history, asked.until_ns, asked.judged_by, made
    )
    answer = what_if_response(asked.workspace.name, VERSION, asyncio.run(found))
    return numbered(answer.model_dump(mode="json"))


def write_accepted(asked: FilesAsked, answer: dict[str, Any], wanted: str, output: Format) -> None:
    """Print the workspace with the policies of some rows, which are named as `chosen` has it."""
    rows = accepted(answer, wanted)
    if not rows:
        return
    for warning in unhelped(rows):
        tell(f"warning: {warning}")
    document = amended_document(
        asked.workspace,
        {one["name"]: one for row in rows for one in row["clusters"]}.values(),
        {row["policy"]["id"]: row["policy"] for row in rows}.values(),
    )
    if output is Format.JSON:
        emit_data(document, output)
    else:
        emit_text(format_documents(parse_documents(dump_all([document]), "what was accepted")))
