"""`ringfence rollback`: make what a workspace once said its latest version again."""

import re
import sys
from typing import Annotated, Any

import typer

from ringfence.cli.client import connect, segment
from ringfence.cli.enforce import (
    ConfirmOption,
    DryRunOption,
    RulesOption,
    TimeoutOption,
    WaitOption,
    YesOption,
    carry_out,
    plan_of,
    show_plan,
)
from ringfence.cli.output import AnswerOption, Format, emit_data, say
from ringfence.cli.trial import trial_body
from ringfence.model.errors import InputError

app = typer.Typer(add_completion=False)

_VERSION = re.compile("p?([1-9][0-9]{0,8})")


@app.command()
def rollback(  # noqa: PLR0913, PLR0917 - one parameter for each option
    workspace: Annotated[str, typer.Argument(help="The workspace.")],
    version: Annotated[str, typer.Argument(help="The version to go back to, such as p1.")],
    enforce: Annotated[
        bool, typer.Option("--enforce", help="Enforce the new version, beside what is enforced.")
    ] = False,
    confirm: ConfirmOption = None,
    dry_run: DryRunOption = False,
    rules: RulesOption = False,
    yes: YesOption = False,
    wait: WaitOption = True,
    timeout: TimeoutOption = 60.0,
    output: AnswerOption = Format.TABLE,
) -> None:
    """Make a new version with the content of an older one. Versions are never taken away.

    What is enforced stays as it is, unless --enforce is given; then the plan is shown and asked
    about, as `ringfence enforce` does; with -o json it is a document of its own. --dry-run shows
    what the new version would differ in, with --enforce the plan too, and changes nothing.

    Example: ringfence rollback sock-shop p1

    ringfence rollback sock-shop p1 --enforce --confirm 60s
    """
    number = _VERSION.fullmatch(version)
    if not number:
        raise InputError(f"{version!r} is not a version: write p1")
    if rules and not (dry_run and enforce):
        raise InputError("--rules goes with --enforce --dry-run")
    if enforce and not (yes or dry_run or sys.stdin.isatty()):
        raise InputError(
            "nobody can answer here: pass --yes to go ahead, --dry-run to see the plan"
        )
    if confirm is not None and not enforce:
        raise InputError("--confirm goes with --enforce")
    trial = trial_body(confirm)
    client = connect()
    asked = {"version": int(number[1]), "dry_run": dry_run}
    made = client.post(f"/workspaces/{segment(workspace)}/rollback", asked)
    _tell(workspace, number[1], made, output, dry_run=dry_run)
    if not enforce:
        return
    enforced = client.get("/enforcement")
    wanted = {one["name"]: one for one in enforced["workspaces"]}
    # There is no new version yet: the old one has the same content.
    to_be = int(number[1]) if dry_run and made["differences"] else made["version"]
    wanted[workspace] = {"name": workspace, "version": to_be}
    body = {
        "workspaces": list(wanted.values()),
        "override": [],
        "expected_revision": enforced["revision"],
        **trial,
    }
    if dry_run:
        show_plan(plan_of(client, body | {"rules": rules}), output)
    elif not carry_out(client, body, yes=yes, wait=wait, timeout=timeout, output=output):
        raise typer.Exit(2)


def _tell(
    workspace: str, back_to: str, made: dict[str, Any], output: Format, *, dry_run: bool
) -> None:
    if output is not Format.TABLE:
        emit_data(made, output)
    elif made["differences"]:
        would = "would be as" if dry_run else "as"
        say(f"{workspace} p{made['version']}: {would} p{back_to}")
        for line in made["differences"]:
            say(f"  {line}")
    else:
        say(f"{workspace} p{made['version']} is as p{back_to} already")
