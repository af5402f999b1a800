"""What the commands that read YAML files share: gathering them and showing differences."""

import re
import sys
from pathlib import Path
from typing import Any

from ringfence.cli.client import ApiError, Client
from ringfence.cli.files import unreadable
from ringfence.cli.output import say, tell
from ringfence.cli.requests import told
from ringfence.model.errors import InputError
from ringfence.model.words import counted, named

STDIN = "-"
_DESCRIPTION = re.compile(r"[-+~] policy [^,:]+, description: ")
"""A line that tells how the description of a policy changes, which changes no rule."""


def read_documents(paths: list[Path]) -> list[tuple[str, str]]:
    """(name, text) of each file, of each *.yaml file of each folder, of stdin for `-`."""
    found: list[tuple[str, str]] = []
    for path in paths:
        if str(path) == STDIN:
            found.append((STDIN, sys.stdin.read()))
            continue
        files = sorted(path.glob("*.y*ml")) if path.is_dir() else [path]
        if not files:
            raise InputError(f"{path} holds no YAML file")
        for file in files:
            try:
                found.append((str(file), file.read_text()))
            except (OSError, UnicodeDecodeError) as error:
                raise unreadable(file, error) from error
    return found


def read_document(path: Path) -> tuple[str, str]:
    """(name, text) of one file, or of stdin for `-`; a folder is refused."""
    if path.is_dir():
        raise unreadable(path, IsADirectoryError())
    return read_documents([path])[0]


def send_documents(
    client: Client, path: str, documents: list[tuple[str, str]], **more: Any
) -> dict[str, Any]:
    """Send them to the control plane; what is wrong in a file is no mistake in the command."""
    files = [{"name": name, "documents": text} for name, text in documents]
    try:
        return dict(client.post(path, {"files": files, **more}))
    except InputError as error:
        raise ApiError(str(error)) from error


def print_changes(changes: list[dict[str, Any]]) -> None:
    """Say each change and its lines."""
    for change in changes:
        version = f" (p{change['version']})" if change.get("version") else ""
        say(f"{change['kind']} {change['name']}{version}: {change['change']}")
        lines = change.get("diff") or []
        told = [line for line in lines if not _DESCRIPTION.match(line)]
        for line in told:
            say(f"  {line}")
        if described := len(lines) - len(told):
            verb = "changes" if described == 1 else "change"
            say(f"  {counted(described, 'description')} {verb}")


def tell_governance(answer: dict[str, Any]) -> None:
    """Say on stderr what changed scopes do to the rules in force, and what is odd about them."""
    names = answer["workloads"]
    if names:
        workloads = f"{counted(len(names), 'workload')}: {named(names)}"
        tell(f"other enforced rules decide at {workloads}")
    for warning in answer["warnings"]:
        tell(f"warning: {warning}")


def tell_requests(answer: dict[str, Any]) -> None:
    """Say on stderr what the applied workspaces need of those of other scopes."""
    for request in answer["requests"]:
        for line in told(request):
            tell(line)
