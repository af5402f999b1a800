"""`ringfence enforce`: from analysed policies to rules in the kernels, and back."""

import sys
import time
from typing import Annotated, Any

import typer

from ringfence.cli.client import Client, connect
from ringfence.cli.output import AnswerOption, Format, emit_data, say, tell
from ringfence.cli.trial import follow_stage, tell_trial, trial_body
from ringfence.model.errors import InputError, RingfenceError
from ringfence.model.ids import parse_version
from ringfence.model.override import Override
from ringfence.model.words import counted, named

app = typer.Typer(add_completion=False)

YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
WaitOption = Annotated[bool, typer.Option(help="Wait until every connected agent has it in force.")]
TimeoutOption = Annotated[float, typer.Option(min=0, help="Seconds to wait.")]
ConfirmOption = Annotated[
    str | None,
    typer.Option(
        metavar="60s", help="Take it back after so long unless `ringfence confirm` is run before."
    ),
]
DryRunOption = Annotated[bool, typer.Option(help="Show what would change only.")]
RulesOption = Annotated[
    bool, typer.Option("--rules", help="With --dry-run: also how the kernels' rules differ.")
]


@app.command()
def enforce(  # noqa: PLR0913, PLR0917 - one parameter for each option
    workspaces: Annotated[
        list[str] | None, typer.Argument(help="Workspaces to enforce, each as name or name@p2.")
    ] = None,
    off: Annotated[
        bool,
        typer.Option("--off", help="Take all rules away, but of quarantines and netpol."),
    ] = False,
    yes: YesOption = False,
    dry_run: DryRunOption = False,
    rules: RulesOption = False,
    override: Annotated[
        list[Override] | None,
        typer.Option(help="Enforce despite a refusal that names this word; repeatable."),
    ] = None,
    confirm: ConfirmOption = None,
    stage: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NODE",
            help="Enforce at these nodes first, by commas or repeated; any: at one.",
        ),
    ] = None,
    for_: Annotated[
        str | None, typer.Option("--for", help="How long --stage tries it.", show_default="5m")
    ] = None,
    threshold: Annotated[
        str | None,
        typer.Option(
            help="Share of --stage's conversations that may be dropped unforeseen.",
            show_default="1%",
        ),
    ] = None,
    wait: WaitOption = True,
    timeout: TimeoutOption = 60.0,
    output: AnswerOption = Format.TABLE,
) -> None:
    """Show what would change and for whom, ask, then enforce these workspaces, and no others.

    Without any, tell what is enforced, and what of it is on trial.

    Exit code 2 if it is not in force on every node by the end of the wait. With --stage, which
    waits until the trial is over, also if it was reverted.

    Example: ringfence enforce sock-shop nodes

    ringfence enforce sock-shop@p7 --confirm 60s

    ringfence enforce sock-shop@p7 --stage node1 --for 10m --threshold 0.5%
    """
    if workspaces and off:
        raise InputError("name the workspaces to enforce, or write --off to stop enforcing")
    if not workspaces and not off:
        if confirm or stage or dry_run:
            raise InputError("name the workspaces to enforce, or write --off")
        _show_state(connect().get("/enforcement"), output)
        return
    wanted = [_workspace(text) for text in workspaces or []]
    body = {"workspaces": wanted, "override": override or []}
    if off and stage:
        raise InputError("without rules nothing is dropped: use --confirm instead of --stage")
    if rules and not dry_run:
        raise InputError("--rules goes with --dry-run")
    body |= trial_body(confirm, stage, for_, threshold)
    if not (yes or dry_run or sys.stdin.isatty()):
        raise InputError(
            "nobody can answer here: pass --yes to go ahead, --dry-run to see the plan"
        )
    client = connect()
    body["expected_revision"] = client.get("/enforcement")["revision"]
    if dry_run:
        show_plan(plan_of(client, body | {"rules": rules}, off=off), output)
    elif not carry_out(client, body, off=off, yes=yes, wait=wait, timeout=timeout, output=output):
        raise typer.Exit(2)


def carry_out(
    client: Client,
    body: dict[str, Any],
    *,
    off: bool = False,
    yes: bool,
    wait: bool,
    timeout: float,
    output: Format = Format.TABLE,
) -> bool:
    """Show the plan, ask, and enforce what was shown; whether it is in force, where waited for.

    `body` has the revision that is enforced now: where it is another by then, nothing is changed.
    """
    plan = plan_of(client, body, off=off)
    show_plan(plan, output)
    if not yes and not typer.confirm("Go ahead?", err=True):
        raise RingfenceError("nothing was changed")
    # The versions that were shown, even if there are newer ones by now.
    shown = {**body, "workspaces": plan["workspaces"]}
    revision = _send(client, shown, off=off, dry_run=False)["revision"]
    staged = body.get("stage")
    if wait and staged and not follow_stage(client, revision):
        return False
    in_force = not wait or wait_until_in_force(client, timeout, revision)
    tell_trial(client.get("/enforcement"))
    return in_force


def _workspace(text: str) -> dict[str, Any]:
    name, version = parse_version(text)
    return {"name": name, "version": version}


def _send(client: Client, body: dict[str, Any], *, off: bool, dry_run: bool) -> dict[str, Any]:
    if off:
        names = ("expected_revision", "confirm_seconds", "rules")
        asked = {name: body[name] for name in names if name in body}
        answer = client.delete("/enforcement", dry_run=dry_run, **asked)
    else:
        answer = client.post("/enforcement", {**body, "dry_run": dry_run})
    return dict(answer)


def plan_of(client: Client, body: dict[str, Any], *, off: bool = False) -> dict[str, Any]:
    """What enforcing would change; nothing is changed."""
    return _send(client, body, off=off, dry_run=True)


def show_plan(plan: dict[str, Any], output: Format) -> None:
    """Print a plan; raises RingfenceError where it is refused, before any line of a table."""
    if output is not Format.TABLE:
        emit_data(plan, output)
    if plan.get("refused"):
        raise RingfenceError(plan["refused"])
    if output is Format.TABLE:
        _print_plan(plan)


def _print_plan(plan: dict[str, Any]) -> None:
    for line in plan["changes"]:
        say(line)
    names = plan["workloads"]
    if names:
        verb = "changes" if len(names) == 1 else "change"
        say(f"{counted(len(names), 'workload')} {verb}: {named(names)}")
    else:
        say("no workload changes")
    for warning in plan["warnings"]:
        say(f"note: {warning}")
    for change in plan.get("rules") or ():
        say(f"rules of {change['workload']} at {change['node']}:")
        for line in change["difference"]:
            say(line)


def wait_until_in_force(client: Client, timeout: float, revision: int | None = None) -> bool:
    """Until every connected agent has what is desired in force; whether every node has it.

    Given a revision, the wait ends once another one is enforced.
    """
    deadline = time.monotonic() + timeout
    while True:
        state = client.get("/enforcement")
        agents = [agent for agent in state["agents"] if agent["connected"]]
        behind = [agent for agent in agents if not _in_force(agent)]
        if revision not in (None, state["revision"]):
            tell(f"revision {revision} is not enforced any more: revision {state['revision']} is")
            return False
        if not behind or time.monotonic() > deadline:
            break
        time.sleep(0.2)
    nodes = counted(len(agents) - len(behind), "node")
    tell(f"in force on {nodes}" + (f" (revision {revision})" if revision is not None else ""))
    for agent in behind:
        tell(f"not in force on {agent['name']}: {agent['stale_reason'] or 'no answer'}")
    for node in state["unreached"]:
        tell(f"not known to be in force on {node}: no agent is connected there")
    tell_quarantined(state["quarantined"])
    return not behind and not state["unreached"]


def _show_state(state: dict[str, Any], output: Format) -> None:
    if output is not Format.TABLE:
        emit_data(state, output)
        return
    for cluster in state["kubernetes_clusters"]:
        say(f"the policies of Kubernetes cluster {cluster}")
    for one in state["workspaces"]:
        say(f"{one['name']}@p{one['version']}")
    if not state["workspaces"]:
        say("no workspace is enforced")
    tell_trial(state)
    tell_quarantined(state["quarantined"])


def tell_quarantined(names: list[str]) -> None:
    """Say on stderr who is cut off, whatever is enforced."""
    if names:
        tell(f"quarantined: {named(names)}; see `ringfence quarantine list`")


def _in_force(agent: dict[str, Any]) -> bool:
    return agent["enforced_revision"] == agent["desired_revision"] and not agent["stale_reason"]
